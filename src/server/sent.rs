//! The body of an answer on its way to a connection: what is counted of it, and what it holds until it has left.
//!
//! A client may ask, and read nothing of what it is told. So neither the place of a call nor the room for what was read is free when the
//! answer is made: both go with its bytes, and are given back when the connection drops these, because they are written or the client left.

use super::{
    Admission,
    admission::{Piece, Ticket},
    calls::Call,
};
use bytes::Bytes;
use http::Response;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// A piece that is smaller counts nowhere but as one of its call.
const PIECE_BYTES_MIN: usize = 4 << 10;

/// The body of an answer.
pub(crate) struct Sent {
    body: tonic::body::Body,
    /// That it answers, if it is one that is counted.
    call: Option<Call>,
    /// Where it counts.
    admission: Option<Admission>,
    /// What was paid already by whoever read it.
    ticket: Option<Arc<Ticket>>,
}

impl Ticket {
    /// Has the ticket go along with the answer that was read with it. Small ones have paid nothing.
    pub(super) fn goes_with<T>(self, mut response: tonic::Response<T>) -> tonic::Response<T> {
        if self.has_paid() {
            response.extensions_mut().insert(Arc::new(self));
        }
        response
    }
}

impl Sent {
    /// `response` with such a body. It is one of `call`, if that is counted.
    pub(super) fn response(
        mut response: Response<tonic::body::Body>,
        call: Option<Call>,
        admission: Option<Admission>,
    ) -> Response<Sent> {
        let ticket = response.extensions_mut().remove::<Arc<Ticket>>();
        response.map(|body| Sent { body, call, admission, ticket })
    }

    /// Counts a part, and gives it what it holds.
    fn piece(&mut self, data: Bytes) -> Piece {
        let Some(call) = &mut self.call else {
            let ticket = self.ticket_for(&data);
            return Piece::new(data, None, ticket);
        };
        call.sent(&data);
        // Streams have bounds of their own for what nobody reads.
        if !call.is_unary() {
            return Piece::new(data, None, None);
        }
        let place = call.take_place();
        let ticket = self.ticket_for(&data);
        Piece::new(data, place, ticket)
    }

    fn ticket_for(&mut self, data: &Bytes) -> Option<Arc<Ticket>> {
        self.ticket.take().or_else(|| {
            let admission = self.admission.filter(|_| data.len() > PIECE_BYTES_MIN)?;
            Some(Arc::new(admission.sends(data.len())))
        })
    }
}

impl Body for Sent {
    type Data = Piece;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, tonic::Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let Some(call) = &mut this.call {
            match &frame {
                Some(Ok(frame)) => frame.trailers_ref().into_iter().for_each(|trailers| call.look(trailers)),
                Some(Err(_)) | None => call.broke_off(),
            }
        }
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|data| this.piece(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{Bounds, admission::Class, calls::Calls};
    use http_body_util::{BodyExt, Full};

    /// Calls and bytes that are under way.
    fn under_way(admission: &Admission) -> (u64, u64) {
        admission.standings().fold((0, 0), |(calls, bytes), class| (calls + class.calls, bytes + class.bytes))
    }

    fn answer(length: usize) -> Response<tonic::body::Body> {
        Response::new(tonic::body::Body::new(Full::new(Bytes::from(vec![0; length]))))
    }

    fn head(path: &str) -> http::request::Parts {
        http::Request::builder().uri(path).body(()).unwrap().into_parts().0
    }

    async fn data(sent: &mut Sent) -> Piece {
        sent.frame().await.unwrap().unwrap().into_data().unwrap()
    }

    #[tokio::test]
    async fn place_and_room_are_free_when_the_bytes_have_left() {
        let admission = Admission::new(Bounds::within(1 << 30));
        let mut call = Calls::new(false, None, admission).begin(&head("/etcdserverpb.KV/Range")).unwrap();
        call.admit().unwrap();
        let mut ticket = admission.read();
        crate::mvcc::Meter::take(&mut ticket, 100_000).unwrap();
        let mut response = answer(50_000);
        *response.extensions_mut() = ticket.goes_with(tonic::Response::new(())).into_parts().2;
        let mut sent = Sent::response(response, Some(call), Some(admission)).into_body();
        let (calls, bytes) = under_way(&admission);
        assert!(calls == 1 && bytes > 50_000, "{calls} {bytes}");
        let piece = data(&mut sent).await;
        drop(sent);
        assert_eq!(under_way(&admission), (calls, bytes), "it may be long until a client reads it");
        drop(piece);
        assert_eq!(under_way(&admission), (0, 0));
    }

    #[tokio::test]
    async fn what_nobody_has_paid_for_counts_when_it_is_sent_unless_it_is_a_stream() {
        let admission = Admission::new(Bounds::within(1 << 30));
        let calls = Calls::new(false, None, admission);
        for (path, counts) in
            [(Some("/etcdserverpb.KV/Txn"), true), (Some("/etcdserverpb.Watch/Watch"), false), (None, true)]
        {
            let call = path.map(|path| calls.begin(&head(path)).unwrap());
            let mut sent = Sent::response(answer(500_000), call, Some(admission)).into_body();
            let piece = data(&mut sent).await;
            let expected = if counts { 500_000 } else { 0 };
            assert_eq!(under_way(&admission), (0, expected), "{path:?}");
            drop(piece);
            assert_eq!(under_way(&admission), (0, 0));
        }
        let list = admission.standings().nth(Class::List as usize).unwrap();
        assert_eq!(list.shed, 0);
    }
}
