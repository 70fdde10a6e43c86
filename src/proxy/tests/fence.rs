//! Which member is asked for a fence.

use super::{
    super::{Source, fence::Fence},
    copies::{Wire, put},
};
use crate::{
    client::{ConnectOptions, Endpoints},
    server::tests::world,
    types::Term,
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tonic::transport::Channel;

/// A cluster of two, of which one leads.
struct Two {
    other: Endpoints,
    lead: Mutex<Option<(Term, Channel)>>,
}

impl Source for Two {
    fn pick(&self) -> (usize, Channel) {
        self.other.pick()
    }

    fn leave(&self, turn: usize) {
        self.other.leave(turn);
    }

    fn ways(&self) -> usize {
        self.other.len()
    }

    fn lead(&self) -> Option<Channel> {
        self.lead.lock().as_ref().map(|(_, channel)| channel.clone())
    }

    fn heard(&self, term: Term) {
        self.lead.lock().take_if(|(led, _)| *led != term);
    }

    fn lost_lead(&self) {
        self.lead.lock().take();
    }
}

#[tokio::test]
async fn the_leader_is_asked_until_it_is_away_or_leads_no_more() {
    let (lead, other) = (world().await, world().await);
    for n in 0..3 {
        put(&lead, "a", &n.to_string()).await;
    }
    let wire = Wire::to(&lead).await;
    let options = ConnectOptions::default();
    let led = |term| Some((term, Endpoints::new([&wire.address], &options).unwrap().pick().1));
    let two = Arc::new(Two { other: Endpoints::new([&other.url], &options).unwrap(), lead: Mutex::default() });
    let fence = Fence::new(Arc::clone(&two) as Arc<dyn Source>, Duration::from_secs(5));
    let revision = async || fence.pass().await.unwrap().header.revision.0;

    assert_eq!(revision().await, 1, "nobody is known to lead");
    let term = fence.pass().await.unwrap().header.term;
    *two.lead.lock() = led(term);
    assert_eq!((revision().await, two.lead().is_some()), (4, true));

    // Its word counts, but it is of another term: who knows who leads that.
    *two.lead.lock() = led(Term(term.0 + 1));
    assert_eq!((revision().await, two.lead().is_some()), (4, false));
    assert_eq!(revision().await, 1);

    *two.lead.lock() = led(term);
    wire.cut();
    assert_eq!((revision().await, two.lead().is_some()), (1, false));
}
