//! Lists that wait for room.
//!
//! Whose connection holds least is served next, and of these who came first: so whoever asks much, or does not take what it asked for, waits
//! behind everybody else. Nobody passes the next one, or large lists would wait forever. When no more may wait, the connection that has most
//! waiting gives way.

use super::{Class, LOOK_AGAIN, Shared, Tab, Ticket, WAITING_PART};
use crate::types::Error;
use std::{
    collections::HashMap,
    future::pending,
    sync::{Arc, atomic::Ordering::Relaxed},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until},
};

/// Who waits.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Vec<Waiter>,
    /// Of the last who came.
    number: u64,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    tab: Option<Arc<Tab>>,
    bytes: u64,
    /// It waits for some time only, and is one of those who may.
    is_bounded: bool,
    room: oneshot::Sender<Ticket>,
}

/// A place in the queue; dropped, it is free.
struct Waiting {
    shared: &'static Shared,
    number: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.queue.lock().waiting.retain(|waiter| waiter.number != self.number);
    }
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Who is next.
    fn next(&self) -> Option<usize> {
        let held = |waiter: &Waiter| waiter.tab.as_ref().map_or(0, |tab| tab.held());
        let of = |(index, waiter): (usize, &Waiter)| ((held(waiter), waiter.number), index);
        self.waiting.iter().enumerate().map(of).min().map(|(_, index)| index)
    }

    /// Makes a place for one more of `tab`, if need be that of whoever has most: its last one waits no longer.
    fn make_place(&mut self, tab: Option<&Arc<Tab>>, most: usize) -> Result<Option<Waiter>, Error> {
        let bounded = || self.waiting.iter().filter(|waiter| waiter.is_bounded);
        if bounded().count() < most {
            return Ok(None);
        }
        let key = |tab: Option<&Arc<Tab>>| tab.map_or(0, |tab| Arc::as_ptr(tab).addr());
        let mut counts = HashMap::<usize, usize>::new();
        bounded().for_each(|waiter| *counts.entry(key(waiter.tab.as_ref())).or_default() += 1);
        let own = counts.get(&key(tab)).copied().unwrap_or(0);
        let greedy = counts.into_iter().map(|(key, count)| (count, key)).max();
        let (_, greedy) = greedy.filter(|(count, _)| *count > own + 1).ok_or(Error::NoRoom)?;
        let is_its = |waiter: &Waiter| waiter.is_bounded && key(waiter.tab.as_ref()) == greedy;
        Ok(self.waiting.iter().rposition(is_its).map(|last| self.waiting.remove(last)))
    }
}

impl Shared {
    /// That of a list which comes now.
    pub(super) fn number(&self) -> u64 {
        let mut queue = self.queue.lock();
        queue.number += 1;
        queue.number
    }

    /// A ticket for the list of this number and `tab` that takes `bytes`, when it is its turn and there is room; with `until` not later than that.
    ///
    /// # Errors
    /// [`Error::NoRoom`]: there was none, or others have waited for less.
    pub(super) async fn list(
        &'static self,
        number: u64,
        tab: Option<Arc<Tab>>,
        bytes: u64,
        until: Option<Instant>,
    ) -> Result<Ticket, Error> {
        let (sender, mut room) = oneshot::channel();
        let waiter = Waiter { number, tab, bytes, is_bounded: until.is_some(), room: sender };
        let _waiting = self.wait_in_line(waiter).map_err(|_| self.shed_list())?;
        self.serve();
        let late = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        };
        tokio::pin!(late);
        loop {
            tokio::select! {
                biased;
                ticket = &mut room => return ticket.map_err(|_| self.shed_list()),
                () = &mut late => return Err(self.shed_list()),
                () = sleep(LOOK_AGAIN) => self.look_again(),
            }
        }
    }

    pub(super) fn shed_list(&self) -> Error {
        self.count_shed(Class::List);
        Error::NoRoom
    }

    fn wait_in_line(&'static self, waiter: Waiter) -> Result<Waiting, Error> {
        let most = (self.bounds.calls_max / WAITING_PART).max(1);
        let number = waiter.number;
        let mut queue = self.queue.lock();
        let gives_way = if waiter.is_bounded { queue.make_place(waiter.tab.as_ref(), most)? } else { None };
        queue.waiting.push(waiter);
        drop(queue);
        drop(gives_way);
        Ok(Waiting { shared: self, number })
    }

    /// Gives room to those who wait, in their order, while there is some.
    pub(super) fn serve(&'static self) {
        // Whoever has left meanwhile gives the ticket back, which serves others: not under the lock.
        while let Some((room, ticket)) = self.serve_next() {
            let _ = room.send(ticket);
        }
    }

    fn serve_next(&'static self) -> Option<(oneshot::Sender<Ticket>, Ticket)> {
        let mut queue = self.queue.lock();
        let next = queue.next()?;
        let Waiter { tab, bytes, .. } = &queue.waiting[next];
        let mut ticket = Ticket::of(self, Class::List, tab.clone());
        ticket.pay(*bytes).ok()?;
        Some((queue.waiting.remove(next).room, ticket))
    }

    /// Somebody waits: other classes make room as well, and do not say so; and who does not take its answers can give way.
    fn look_again(&'static self) {
        let now = Instant::now();
        let mut queue = self.queue.lock();
        if queue.looked.is_some_and(|looked| now - looked < LOOK_AGAIN / 2) {
            return;
        }
        queue.looked = Some(now);
        drop(queue);
        self.serve();
        if self.queue.lock().len() > 0 {
            self.close_a_slow_one();
        }
    }

    /// A call that does not wait has found no room.
    pub(super) fn wants_room(&self) {
        let now = Instant::now();
        let mut queue = self.queue.lock();
        if queue.looked.is_none_or(|looked| now - looked >= LOOK_AGAIN / 2) {
            queue.looked = Some(now);
            drop(queue);
            self.close_a_slow_one();
        }
    }

    /// Lists that wait.
    pub(super) fn waiting(&self) -> u64 {
        self.queue.lock().len() as u64
    }

    pub(super) fn slow_closed(&self) -> u64 {
        self.slow_closed.load(Relaxed)
    }
}
