//! Runs futures without threads: those that were woken, in the order of their numbers, when the world says so.

use crate::replica::{Task, Tasks};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

/// A job with a result.
pub type Job<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Who was woken, and who is told of that.
#[derive(Default)]
struct Woken {
    /// A set in order: who wakes several at once may do that in any order.
    numbers: Mutex<BTreeSet<u64>>,
    listener: Mutex<Option<Waker>>,
}

struct Alarm {
    woken: Arc<Woken>,
    number: u64,
}

impl Wake for Alarm {
    fn wake(self: Arc<Alarm>) {
        self.woken.numbers.lock().insert(self.number);
        let listener = self.woken.listener.lock().clone();
        listener.into_iter().for_each(Waker::wake);
    }
}

/// Futures under way.
pub struct Executor<T> {
    woken: Arc<Woken>,
    next: u64,
    jobs: BTreeMap<u64, Job<T>>,
}

impl<T> Default for Executor<T> {
    fn default() -> Executor<T> {
        Executor { woken: Arc::default(), next: 0, jobs: BTreeMap::new() }
    }
}

impl<T> Executor<T> {
    /// Takes a job; it begins at the next run.
    pub fn spawn(&mut self, job: Job<T>) -> u64 {
        self.next += 1;
        self.jobs.insert(self.next, job);
        self.woken.numbers.lock().insert(self.next);
        self.next
    }

    /// Gives a job up.
    pub fn abandon(&mut self, number: u64) {
        // Dropped before anything it wakes is looked at.
        drop(self.jobs.remove(&number));
        self.woken.numbers.lock().remove(&number);
    }

    /// Whether anybody was woken.
    pub fn is_called(&self) -> bool {
        !self.woken.numbers.lock().is_empty()
    }

    /// Has `listener` woken whenever anybody is.
    pub fn tell(&self, listener: &Waker) {
        let mut told = self.woken.listener.lock();
        match &mut *told {
            Some(told) => told.clone_from(listener),
            None => *told = Some(listener.clone()),
        }
    }

    /// One turn of all that were woken; the results of those that have ended.
    pub fn run(&mut self) -> Vec<(u64, T)> {
        let woken = std::mem::take(&mut *self.woken.numbers.lock());
        let mut ended = Vec::new();
        for number in woken {
            // Woken once more after its end.
            let Some(job) = self.jobs.get_mut(&number) else { continue };
            let waker = Waker::from(Arc::new(Alarm { woken: Arc::clone(&self.woken), number }));
            if let Poll::Ready(result) = job.as_mut().poll(&mut Context::from_waker(&waker)) {
                self.jobs.remove(&number);
                ended.push((number, result));
            }
        }
        ended
    }
}

/// Work that may block.
pub type Blocking = Box<dyn FnOnce() + Send>;

/// What a member has asked to be run beside its stages.
#[derive(Default)]
pub struct Chores {
    /// Not begun.
    pub spawned: Mutex<Vec<Task>>,
    /// In order.
    pub blocking: Mutex<VecDeque<Blocking>>,
}

impl Tasks for Chores {
    fn spawn(&self, task: Task) {
        self.spawned.lock().push(task);
    }

    fn block(&self, work: Blocking) {
        self.blocking.lock().push_back(work);
    }
}

/// A flag that a waker sets: for one who is polled by hand.
#[derive(Default)]
pub struct Bell(std::sync::atomic::AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Bell {
    /// Whether it rang since the last call.
    pub fn take(&self) -> bool {
        self.0.swap(false, std::sync::atomic::Ordering::Relaxed)
    }
}
