//! Large answers, made where that holds nobody up.
//!
//! What a service answers is encoded by the task that serves its call, and other calls wait for the thread meanwhile: of a large answer that is
//! a copy of many megabytes. So a list is encoded on a thread where it may take its time. The service answers with nothing then, and with what
//! was made beside it, which takes the place of that nothing on its way out.

use super::admission::Ticket;
use crate::{runtime, types::Error};
use bytes::{BufMut, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prost::Message;
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
    use crate::pb::etcdserverpb::RangeResponse;

    #[test]
    fn what_is_made_is_what_the_library_would_send() {
        let response = RangeResponse { count: 7, more: true, ..RangeResponse::default() };
        let framed = framed(&response).unwrap();
        assert_eq!(framed[..5], [0, 0, 0, 0, 4]);
        assert_eq!(RangeResponse::decode(&framed[5..]).unwrap(), response);
    }
}
