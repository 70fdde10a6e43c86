//! Watchers over connections: at members and proxies that come and go; whoever loses its stream goes on at another place.

use super::{
    Place,
    calls::{channel, to_wire},
    processes::Pid,
};
use crate::{
    io::Rng,
    pb::etcdserverpb::{
        WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_client::WatchClient,
        watch_create_request::FilterType, watch_request::RequestUnion,
    },
    sim::{
        Chance,
        cluster::{
            checkers::{Cursor, Rule, Violation, broken},
            plan::{MS, S},
            world::{Event, World},
        },
    },
    types::{Key, KeyRange, Revision},
};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// A watcher.
pub struct RingWatcher {
    /// How far it has come.
    pub cursor: Cursor,
    /// Begins in the past.
    from_past: bool,
    /// Wants to hear now and then how far it is.
    progress_notify: bool,
    /// Insists on a leader.
    insists: bool,
    stream: Option<WatchStream>,
}

/// Its stream at a place.
struct WatchStream {
    place: Place,
    pid: Pid,
    task: u64,
    requests: mpsc::Sender<WatchRequest>,
    inbox: Arc<Mutex<Vec<Result<WatchResponse, Status>>>>,
}

impl RingWatcher {
    /// One of any kind.
    pub fn draw(chance: &mut Chance, keys: u64) -> RingWatcher {
        let key = Key::from(format!("k{}", chance.below(keys)));
        let range = match chance.below(3) {
            0 => KeyRange::One(key),
            1 => KeyRange::From(key),
            _ => KeyRange::From(Key::new()),
        };
        let cursor = Cursor { range, no_delete: chance.hits(1, 5), next: None };
        RingWatcher {
            cursor,
            from_past: chance.hits(1, 2),
            progress_notify: chance.hits(1, 2),
            insists: chance.hits(1, 4),
            stream: None,
        }
    }

    /// Where it is, for a report.
    pub fn place(&self) -> Option<Place> {
        self.stream.as_ref().map(|stream| stream.place)
    }
}

impl World {
    /// A watcher does something: opens a stream, asks how far it is, or leaves.
    pub(in crate::sim::cluster) fn ring_watch(&mut self, number: usize) {
        let slow = if self.healed { 200 * MS } else { [20 * MS, 300 * MS, 2 * S][self.chance.below(3) as usize] };
        let delay = self.chance.between(1, slow);
        self.after(delay, Event::RingWatch { number });
        let (leaves, asks) = (self.chance.hits(1, 60) && !self.healed, self.chance.hits(1, 6));
        let ring = self.ring.as_mut().expect("it has watchers");
        let Some(stream) = &ring.watchers[number].stream else { return self.open_wire(number) };
        if leaves {
            self.close_wire(number);
        } else if asks {
            let union = RequestUnion::ProgressRequest(WatchProgressRequest {});
            // Full if the connection takes nothing; then it is asked another time.
            let _ = stream.requests.try_send(WatchRequest { request_union: Some(union) });
        }
    }

    fn open_wire(&mut self, number: usize) {
        let Some(place) = self.any_place() else { return };
        let newest = self.checkers.floor.revision.0.max(1) as u64;
        let ring = self.ring.as_mut().expect("it has watchers");
        let watcher = &mut ring.watchers[number];
        if watcher.from_past && watcher.cursor.next.is_none() {
            watcher.cursor.next = Some(Revision(1 + self.chance.below(newest) as i64));
        }
        let (key, range_end) = to_wire(&watcher.cursor.range);
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: watcher.cursor.next.unwrap_or_default().0,
            progress_notify: watcher.progress_notify,
            filters: watcher.cursor.no_delete.then_some(FilterType::Nodelete.into()).into_iter().collect(),
            ..Default::default()
        };
        let client = &ring.clients[ring.plan.clients + number];
        let (pid, channels) = (client.pid, Arc::clone(&client.channels));
        let (requests, from_watcher) = mpsc::channel(4);
        requests.try_send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).expect("room");
        let inbox = Arc::<Mutex<Vec<_>>>::default();
        let (told, insists) = (Arc::clone(&inbox), watcher.insists);
        let task = ring.processes.add(pid, async move {
            let mut request = tonic::Request::new(ReceiverStream::new(from_watcher));
            if insists {
                request.metadata_mut().insert("hasleader", "true".parse().expect("letters"));
            }
            let mut replies = match WatchClient::new(channel(&channels, place)).watch(request).await {
                Ok(replies) => replies.into_inner(),
                Err(status) => return told.lock().push(Err(status)),
            };
            loop {
                let reply = replies.message().await.transpose();
                let reply = reply.unwrap_or_else(|| Err(Status::unavailable("the stream has ended")));
                let is_over = reply.is_err();
                told.lock().push(reply);
                if is_over {
                    return;
                }
            }
        });
        watcher.stream = Some(WatchStream { place, pid, task, requests, inbox });
        let cursor = watcher.cursor.clone();
        self.note(|| format!("w{number} goes to {place}: {cursor:?}"));
    }

    fn close_wire(&mut self, number: usize) {
        let ring = self.ring.as_mut().expect("it has watchers");
        let Some(WatchStream { pid, task, place, .. }) = ring.watchers[number].stream.take() else { return };
        ring.processes.abandon(pid, task);
        self.note(|| format!("w{number} leaves {place}"));
    }

    /// Looks at what watchers were told.
    pub(super) fn hear_watchers(&mut self) -> Result<(), Violation> {
        let count = self.ring.as_ref().map_or(0, |ring| ring.watchers.len());
        for number in 0..count {
            let ring = self.ring.as_mut().expect("it has watchers");
            let Some(stream) = &ring.watchers[number].stream else { continue };
            let replies = std::mem::take(&mut *stream.inbox.lock());
            for reply in replies {
                self.note(|| format!("w{number} is told {reply:?}"));
                let is_over = match reply {
                    Ok(reply) => self.wire_watched(number, reply)?,
                    Err(_) => true,
                };
                if is_over {
                    self.close_wire(number);
                    break;
                }
            }
        }
        Ok(())
    }

    /// A reply; whether the watcher is no more.
    fn wire_watched(&mut self, number: usize, reply: WatchResponse) -> Result<bool, Violation> {
        let ring = self.ring.as_mut().expect("it has watchers");
        let watcher = &mut ring.watchers[number];
        let at = Revision(reply.header.as_ref().map_or(0, |header| header.revision));
        let cursor = &mut watcher.cursor;
        if reply.canceled && reply.compact_revision > 0 {
            self.checkers.lost(cursor, Revision(reply.compact_revision))?;
            return Ok(true);
        }
        if reply.canceled {
            // A client that insists on a leader may be told that there is none.
            return match watcher.insists {
                true => Ok(true),
                false => broken(Rule::Watch, format!("w{number} is cancelled: {reply:?}")),
            };
        }
        if reply.created {
            cursor.next = Some(cursor.next.unwrap_or(at.next()));
        } else if reply.events.is_empty() {
            self.checkers.progressed(cursor, at)?;
        } else {
            self.stats.watched += reply.events.len() as u64;
            self.checkers.watched(cursor, &reply.events)?;
        }
        Ok(false)
    }
}
