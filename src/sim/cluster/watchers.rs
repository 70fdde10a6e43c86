//! Watchers: from now or from a past revision, at members that come and go; whoever loses its member goes on at another one.

use super::{
    calls::pick,
    checkers::{Cursor, Rule, Violation, broken},
    executor::Bell,
    plan::{Lie, MS, S},
    world::{Event, World},
};
use crate::{
    io::Rng,
    pb::etcdserverpb::WatchResponse,
    sim::Chance,
    types::{Key, KeyRange, Revision},
    watch::{Control, Deliveries, Delivery, Job, Turn, WatchSpec},
};
use prost::Message as _;
use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// A watcher.
pub struct Watcher {
    /// How far it has come.
    pub cursor: Cursor,
    /// Begins in the past.
    from_past: bool,
    stream: Option<Stream>,
}

/// Its stream at a member.
struct Stream {
    at: usize,
    control: Control,
    deliveries: Deliveries,
    /// A part of history to be read.
    job: Option<Job>,
    bell: Arc<Bell>,
}

impl Watcher {
    /// One of any kind.
    pub fn draw(chance: &mut Chance, keys: u64) -> Watcher {
        let key = Key::from(format!("k{}", chance.below(keys)));
        let range = match chance.below(3) {
            0 => KeyRange::One(key),
            1 => KeyRange::From(key),
            _ => KeyRange::From(Key::new()),
        };
        let cursor = Cursor { range, no_delete: chance.hits(1, 5), next: None };
        Watcher { cursor, from_past: chance.hits(1, 2), stream: None }
    }

    /// Whether its stream is at this machine.
    pub fn is_at(&self, at: usize) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.at == at)
    }

    /// Where it is, for a report.
    pub fn place(&self) -> String {
        let stream = self.stream.as_ref();
        stream.map_or("nowhere".into(), |stream| format!("at m{}, reads {}", stream.at + 1, stream.job.is_some()))
    }

    /// Loses its stream.
    pub fn disconnect(&mut self) {
        self.stream = None;
    }
}

impl World {
    /// A watcher looks at its stream, or for one.
    pub fn watch(&mut self, number: usize) -> Result<(), Violation> {
        let slow = if self.healed { 100 * MS } else { [20 * MS, 200 * MS, 2 * S][self.chance.below(3) as usize] };
        let delay = self.chance.between(1, slow);
        self.after(delay, Event::Watch { number });
        if let Some(at) = self.watchers[number].stream.as_ref().map(|stream| stream.at) {
            if self.hosts[at].paused_until_us > self.time.now_us() {
                return Ok(());
            }
            // One that is no member, or not any more, has nothing to tell.
            let is_useless = self.healed && !self.members().contains(&at);
            if is_useless || !self.healed && self.chance.hits(1, 100) {
                self.watchers[number].disconnect();
                return Ok(());
            }
            return self.read_stream(number);
        }
        let mut sound = self.sound();
        if self.healed {
            let members = self.members();
            sound.retain(|at| members.contains(at));
        }
        if let Some(at) = pick(&mut self.chance, &sound) {
            self.open(number, at);
        }
        Ok(())
    }

    fn open(&mut self, number: usize, at: usize) {
        let newest = self.checkers.floor.revision.0;
        let up = self.hosts[at].up.as_ref().expect("it is sound");
        let (control, deliveries) = up.handle.hub().open();
        let watcher = &mut self.watchers[number];
        if watcher.from_past && watcher.cursor.next.is_none() {
            watcher.cursor.next = Some(Revision(1 + self.chance.below(newest.max(1) as u64) as i64));
        }
        if self.plan.lie == Some(Lie::SkipsEvents) {
            watcher.cursor.next = watcher.cursor.next.map(Revision::next);
        }
        let Cursor { range, no_delete, next } = &watcher.cursor;
        let spec = WatchSpec {
            id: None,
            range: range.clone(),
            start: next.unwrap_or_default(),
            no_put: false,
            no_delete: *no_delete,
            prev_kv: false,
            fragment: false,
            progress_notify: self.chance.hits(1, 2),
        };
        if self.plan.lie == Some(Lie::SkipsEvents) {
            watcher.cursor.next = next.map(|next| Revision(next.0 - 1));
        }
        // What is wrong with it is said on the stream.
        let _ = control.create(spec);
        let bell = Arc::new(Bell::default());
        Waker::from(Arc::clone(&bell)).wake();
        watcher.stream = Some(Stream { at, control, deliveries, job: None, bell });
    }

    fn read_stream(&mut self, number: usize) -> Result<(), Violation> {
        let (asks, ticks) = (self.chance.hits(1, 10), self.chance.hits(1, 10));
        let watcher = &mut self.watchers[number];
        let Some(stream) = &mut watcher.stream else { return Ok(()) };
        if asks {
            stream.control.request_progress();
        }
        if ticks {
            stream.deliveries.tick();
        }
        if let Some(job) = stream.job.take() {
            stream.deliveries.caught(job.run()).expect("a store in memory is sound");
        } else if !stream.bell.take() && !ticks {
            // Nobody called.
            return Ok(());
        }
        let waker = Waker::from(Arc::clone(&stream.bell));
        let mut context = Context::from_waker(&waker);
        let mut is_over = false;
        while !is_over {
            match stream.deliveries.poll(&mut context) {
                Poll::Pending => break,
                Poll::Ready(Turn::Read(job)) => stream.job = Some(job),
                Poll::Ready(Turn::Deliver(delivery)) => {
                    let cursor = &mut watcher.cursor;
                    match delivery {
                        Delivery::Created { revision, .. } => {
                            cursor.next = Some(cursor.next.unwrap_or(revision.next()));
                        }
                        Delivery::Refused { reason, .. } => {
                            return broken(Rule::Watch, format!("watcher {number} is refused: {reason}"));
                        }
                        Delivery::Events { events, .. } => {
                            let reply = WatchResponse::decode(&events.concat()[..]).expect("the field of a reply");
                            self.stats.watched += reply.events.len() as u64;
                            self.checkers.watched(cursor, &reply.events)?;
                        }
                        Delivery::Progress { revision, .. } => self.checkers.progressed(cursor, revision)?,
                        Delivery::Canceled { compacted: Some(oldest), .. } => {
                            self.checkers.lost(cursor, oldest)?;
                            is_over = true;
                        }
                        Delivery::Canceled { compacted: None, .. } => {
                            return broken(Rule::Watch, format!("watcher {number} is cancelled for no reason"));
                        }
                    }
                }
            }
        }
        if is_over {
            watcher.disconnect();
        }
        Ok(())
    }
}
