//! Large answers, made where that holds nobody up.
//!
//! What a service answers is encoded by the task that serves its call, and other calls wait for the thread meanwhile: of a large answer that is
//! a copy of many megabytes. So a list is encoded on a thread where it may take its time. The service answers with nothing then, and with what
//! was made beside it, which takes the place of that nothing on its way out.

use super::admission::Ticket;
use crate::{
    mvcc::RangeRows,
    pb::etcdserverpb::{RangeResponse, ResponseHeader},
    runtime,
    types::Error,
};
use bytes::{Buf, BufMut, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prost::{Message, encoding};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tonic::{Response, Status, body::Body};

/// A message as it is sent, with the head that gRPC gives it.
#[derive(Clone)]
struct Made(Bytes);

/// No compression, and four bytes of length.
const HEAD_BYTES: usize = 5;

impl Ticket {
    /// The answer to a call, with which the ticket goes along. Those that may be small have paid nothing.
    ///
    /// # Errors
    /// [`Error::AnswerTooLarge`]: it does not fit into a message. [`Error::Stopped`]: the process ends.
    pub(super) async fn answers<M: Message + Default + 'static>(self, answer: M) -> Result<Response<M>, Error> {
        if !self.is_for_much() {
            return Ok(self.goes_with(Response::new(answer)));
        }
        let making = runtime::spawn_blocking(move || framed(&answer));
        let made = making.await.map_err(|_| Error::Stopped)??;
        let mut response = self.goes_with(Response::new(M::default()));
        response.extensions_mut().insert(Made(made));
        Ok(response)
    }

    /// The answer to a range whose rows are there as they are sent.
    ///
    /// # Errors
    /// [`Error::AnswerTooLarge`]
    pub(super) fn answers_with_rows(
        self,
        header: Option<ResponseHeader>,
        rows: RangeRows,
    ) -> Result<Response<RangeResponse>, Error> {
        let made = framed_rows(header, rows)?;
        let mut response = self.goes_with(Response::new(RangeResponse::default()));
        response.extensions_mut().insert(Made(made));
        Ok(response)
    }

    /// Has the ticket go along with the answer that was read with it, if it has paid for something.
    fn goes_with<T>(self, mut response: Response<T>) -> Response<T> {
        if self.has_paid() {
            response.extensions_mut().insert(Arc::new(self));
        }
        response
    }
}

fn framed(message: &impl Message) -> Result<Bytes, Error> {
    let bytes = message.encoded_len();
    let length = u32::try_from(bytes).map_err(|_| Error::AnswerTooLarge)?;
    let mut framed = Vec::with_capacity(HEAD_BYTES + bytes);
    framed.put_u8(0);
    framed.put_u32(length);
    message.encode_raw(&mut framed);
    Ok(framed.into())
}

/// The numbers of `more` and `count` in `etcdserverpb.RangeResponse`; `kvs`, which is 2, comes with the rows.
const MORE: u32 = 3;
const COUNT: u32 = 4;

/// Writes around the rows what belongs there: they stay where they are.
fn framed_rows(header: Option<ResponseHeader>, rows: RangeRows) -> Result<Bytes, Error> {
    let RangeRows { kvs: mut message, count, more, .. } = rows;
    if more {
        encoding::bool::encode(MORE, &more, &mut message);
    }
    if count != 0 {
        encoding::int64::encode(COUNT, &count, &mut message);
    }
    let mut front = [0; RangeRows::ROOM];
    let mut left = &mut front[HEAD_BYTES..];
    RangeResponse { header, ..RangeResponse::default() }.encode(&mut left).map_err(|_| Error::AnswerTooLarge)?;
    let front_bytes = RangeRows::ROOM - left.len();
    let length = front_bytes - HEAD_BYTES + message.len() - RangeRows::ROOM;
    let length = u32::try_from(length).map_err(|_| Error::AnswerTooLarge)?;
    front[1..HEAD_BYTES].copy_from_slice(&length.to_be_bytes());
    let start = RangeRows::ROOM - front_bytes;
    message[start..RangeRows::ROOM].copy_from_slice(&front[..front_bytes]);
    let mut framed = Bytes::from(message);
    framed.advance(start);
    Ok(framed)
}

/// The response as it leaves: with what was made for it, if something was.
pub(super) fn whole(mut response: http::Response<Body>) -> http::Response<Body> {
    match response.extensions_mut().remove::<Made>() {
        Some(Made(made)) => response.map(|body| Body::new(Whole { made: Some(made), body })),
        None => response,
    }
}

/// A body whose first data is another's.
struct Whole {
    made: Option<Bytes>,
    body: Body,
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|data| this.made.take().unwrap_or(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::mvccpb::KeyValue;

    #[test]
    fn what_is_made_is_what_the_library_would_send() {
        let response = RangeResponse { count: 7, more: true, ..RangeResponse::default() };
        let framed = framed(&response).unwrap();
        assert_eq!(framed[..5], [0, 0, 0, 0, 4]);
        assert_eq!(RangeResponse::decode(&framed[5..]).unwrap(), response);
    }

    #[test]
    fn rows_are_framed_as_the_message_that_they_are_of() {
        let kv = |key: &'static str| KeyValue { key: key.into(), mod_revision: 7, ..KeyValue::default() };
        let long = ResponseHeader { cluster_id: u64::MAX, member_id: u64::MAX, revision: -1, raft_term: u64::MAX };
        for header in [None, Some(ResponseHeader { revision: 3, ..ResponseHeader::default() }), Some(long)] {
            for (kvs, count, more) in
                [(vec![], 0, false), (vec![kv("a"), kv("b")], 2, false), (vec![kv("a")], 300, true)]
            {
                let message = RangeResponse { header, kvs, more, count };
                let listed = RangeResponse { kvs: message.kvs.clone(), ..RangeResponse::default() }.encode_to_vec();
                let kvs = [&[0; RangeRows::ROOM][..], &listed].concat();
                let rows = RangeRows { kvs, count, more, ..RangeRows::default() };
                assert_eq!(framed_rows(message.header, rows).unwrap(), framed(&message).unwrap());
            }
        }
    }
}
