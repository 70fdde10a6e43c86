//! The body of an answer on its way to a connection: what is counted of it, and what it holds until it has left.
//!
//! A client may ask, and read nothing of what it is told. So neither the place of a call nor the room for what was read is free when the
//! answer is made: both go with its bytes, and are given back when the connection drops these, because they are written or the client left.

use super::{
    admission::{CallPlace, Piece, Tab, Ticket},
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
/// What is larger leaves in slices: a connection asks for the next one when it has got rid of one, and so shows that its client reads.
const SLICE_BYTES: usize = 64 << 10;

/// The body of an answer.
pub(crate) struct Sent {
    body: tonic::body::Body,
    /// That it answers, if it is one that is counted.
    call: Option<Call>,
    /// Where it counts.
    tab: Option<Arc<Tab>>,
    /// What was paid already by whoever read it.
    ticket: Option<Arc<Ticket>>,
    /// Of the last part, what has not left.
    rest: Option<Rest>,
}

struct Rest {
    data: Bytes,
    ticket: Arc<Ticket>,
}

impl Sent {
    /// `response` with such a body. It is one of `call`, if that is counted, and counts on `tab` until it has left.
    pub(super) fn response(
        mut response: Response<tonic::body::Body>,
        call: Option<Call>,
        tab: Option<Arc<Tab>>,
    ) -> Response<Sent> {
        let ticket = response.extensions_mut().remove::<Arc<Ticket>>();
        response.map(|body| Sent { body, call, tab, ticket, rest: None })
    }

    /// Counts a part, and gives it what it holds.
    fn piece(&mut self, data: Bytes) -> Piece {
        if let Some(call) = &mut self.call {
            call.sent(&data);
            // Streams have bounds of their own for what nobody reads.
            if !call.is_unary() {
                return Piece::new(data, None, None);
            }
        }
        match self.ticket_for(data.len()) {
            Some(ticket) => self.slice(Rest { data, ticket }),
            None => Piece::new(data, self.take_place(), None),
        }
    }

    /// The next slice. The place of its call goes with the last one.
    fn slice(&mut self, Rest { mut data, ticket }: Rest) -> Piece {
        if data.len() <= SLICE_BYTES {
            return Piece::new(data, self.take_place(), Some(ticket));
        }
        let slice = data.split_to(SLICE_BYTES);
        self.rest = Some(Rest { data, ticket: Arc::clone(&ticket) });
        Piece::new(slice, None, Some(ticket))
    }

    fn take_place(&mut self) -> Option<CallPlace> {
        self.call.as_mut()?.take_place()
    }

    fn ticket_for(&mut self, bytes: usize) -> Option<Arc<Ticket>> {
        let sends = || Some(Arc::new(self.tab.as_ref().filter(|_| bytes > PIECE_BYTES_MIN)?.sends(bytes)));
        let mut ticket = self.ticket.take().or_else(sends)?;
        // Nobody else has it yet.
        if let Some(ticket) = Arc::get_mut(&mut ticket) {
            ticket.is_offered(bytes);
        }
        Some(ticket)
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
        if let Some(rest) = this.rest.take() {
            return Poll::Ready(Some(Ok(Frame::data(this.slice(rest)))));
        }
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
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            None => self.body.size_hint(),
            Some(rest) => {
                let (hint, left) = (self.body.size_hint(), rest.data.len() as u64);
                let mut all = SizeHint::new();
                all.set_lower(hint.lower() + left);
                hint.upper().into_iter().for_each(|upper| all.set_upper(upper + left));
                all
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{Admission, Bounds, admission::Class, calls::Calls};
    use bytes::Buf;
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
        let open = Tab::open(admission);
        let mut call = Calls::new(false, None, admission).begin(&head("/etcdserverpb.KV/Range")).unwrap();
        call.admit().unwrap();
        let mut response = answer(150_000);
        let mut ticket = admission.read();
        Tab::during(&mut Some(Arc::clone(open.tab())), || crate::mvcc::Meter::take(&mut ticket, 150_000)).unwrap();
        response.extensions_mut().insert(Arc::new(ticket));
        let mut sent = Sent::response(response, Some(call), Some(Arc::clone(open.tab()))).into_body();
        let held = under_way(&admission);
        assert!(held.0 == 1 && held.1 > 140_000, "{held:?}");
        let mut pieces = Vec::new();
        while !sent.is_end_stream() {
            assert_eq!(
                sent.size_hint().exact(),
                Some(150_000 - pieces.iter().map(Buf::remaining).sum::<usize>() as u64)
            );
            pieces.push(data(&mut sent).await);
        }
        assert_eq!(pieces.iter().map(Buf::remaining).collect::<Vec<_>>(), [64 << 10, 64 << 10, 150_000 - (128 << 10)]);
        drop(sent);
        assert_eq!(under_way(&admission), held, "it may be long until a client reads it");
        let last = pieces.pop();
        drop(pieces);
        assert_eq!(under_way(&admission), held, "all of it is one piece of memory");
        drop(last);
        assert_eq!(under_way(&admission), (0, 0));
    }

    #[tokio::test]
    async fn what_nobody_has_paid_for_counts_when_it_is_sent_unless_it_is_a_stream() {
        let admission = Admission::new(Bounds::within(1 << 30));
        let calls = Calls::new(false, None, admission);
        let open = Tab::open(admission);
        for (path, counts) in
            [(Some("/etcdserverpb.KV/Txn"), true), (Some("/etcdserverpb.Watch/Watch"), false), (None, true)]
        {
            let call = path.map(|path| calls.begin(&head(path)).unwrap());
            let mut sent = Sent::response(answer(500_000), call, Some(Arc::clone(open.tab()))).into_body();
            let piece = data(&mut sent).await;
            let expected = if counts { 500_000 } else { 0 };
            assert_eq!(under_way(&admission), (0, expected), "{path:?}");
            drop((piece, sent));
            assert_eq!(under_way(&admission), (0, 0));
        }
        let list = admission.standings().nth(Class::List as usize).unwrap();
        assert_eq!(list.shed, 0);
    }
}
