//! How messages become bytes on a call: as tonic's codec does it, but in memory that is made to fit.

use prost::Message;
use std::marker::PhantomData;
use tonic::{
    Status,
    codec::{Codec, EncodeBuf, Encoder},
};
use tonic_prost::{ProstCodec, ProstDecoder};

/// The codec of all generated services and clients.
#[derive(Debug)]
pub struct FittingCodec<T, U>(PhantomData<fn() -> (T, U)>);

/// Its encoder.
#[derive(Debug)]
pub struct FittingEncoder<T>(PhantomData<fn() -> T>);

impl<T, U> Default for FittingCodec<T, U> {
    fn default() -> FittingCodec<T, U> {
        FittingCodec(PhantomData)
    }
}

impl<T, U> Codec for FittingCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = FittingEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> FittingEncoder<T> {
        FittingEncoder(PhantomData)
    }

    fn decoder(&mut self) -> ProstDecoder<U> {
        ProstCodec::<T, U>::default().decoder()
    }
}

impl<T: Message> Encoder for FittingEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // What grows by doubling takes up to twice of what a large answer needs, and three times while it is moved.
        buffer.reserve(item.encoded_len());
        item.encode_raw(buffer);
        Ok(())
    }
}
