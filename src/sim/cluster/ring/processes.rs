//! Processes with tasks: edges of members, proxies, clients. Their tasks run on one thread, in the order of their numbers, on the
//! world's time.
//!
//! Tokio gives the clock, which stands still but for what the world lets pass, and its timers. It does not say who runs next: what it
//! wakes, and in which order, is of no account here, for whoever was woken runs in the order in which it was made.

use super::net::{Net, Place};
use crate::{
    io::Rng,
    runtime::simulated::{self, Dialled, Task},
    sim::{
        Chance,
        cluster::{clock::Time, executor::Executor},
    },
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, future::poll_fn, pin::pin, sync::Arc, task::Context, time::Duration};
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, sleep_until},
};

/// A process, for as long as it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pid(u64);

/// Rounds of tasks that wake each other without any time passing, before somebody is said to spin.
const ROUNDS_MAX: u32 = 100_000;

/// All processes.
pub struct Processes {
    running: BTreeMap<Pid, Process>,
    last: Pid,
    ambient: Arc<Ambient>,
    runtime: Runtime,
    began: Instant,
}

struct Process {
    place: Place,
    tasks: Executor<()>,
    is_paused: bool,
}

/// What a task finds around it.
struct Ambient {
    /// Who runs now, and where.
    now: Mutex<Option<(Pid, Place)>>,
    spawned: Mutex<Vec<(Pid, Task)>>,
    chance: Mutex<Chance>,
    net: Arc<Net>,
}

impl simulated::World for Ambient {
    fn spawn(&self, task: Task) {
        let (pid, _) = self.now.lock().expect("only tasks make tasks");
        self.spawned.lock().push((pid, task));
    }

    fn draw(&self) -> u64 {
        self.chance.lock().next_u64()
    }

    fn connect(&self, authority: &str) -> Dialled {
        let (_, from) = self.now.lock().expect("only tasks connect");
        Box::pin(Arc::clone(&self.net).connect(from, authority.to_owned()))
    }
}

impl Processes {
    /// None yet; the world's time is 0.
    pub fn new(net: Arc<Net>, chance: Chance) -> Processes {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime of one thread without input and output");
        let began = runtime.block_on(async { Instant::now() });
        let ambient = Ambient { now: Mutex::default(), spawned: Mutex::default(), chance: Mutex::new(chance), net };
        Processes { running: BTreeMap::new(), last: Pid(0), ambient: Arc::new(ambient), runtime, began }
    }

    /// A new process at `place` begins with `task`.
    pub fn start(&mut self, place: Place, task: impl Future<Output = ()> + Send + 'static) -> Pid {
        self.last = Pid(self.last.0 + 1);
        let mut tasks = Executor::default();
        tasks.spawn(Box::pin(task));
        self.running.insert(self.last, Process { place, tasks, is_paused: false });
        self.last
    }

    /// Gives a process one more task; its number.
    pub fn add(&mut self, pid: Pid, task: impl Future<Output = ()> + Send + 'static) -> u64 {
        let process = self.running.get_mut(&pid).expect("it runs");
        process.tasks.spawn(Box::pin(task))
    }

    /// Ends one task of a process.
    pub fn abandon(&mut self, pid: Pid, task: u64) {
        let Processes { running, ambient, runtime, .. } = self;
        let Some(process) = running.get_mut(&pid) else { return };
        let _tokio = runtime.enter();
        simulated::within(ambient.clone(), || {
            *ambient.now.lock() = Some((pid, process.place));
            process.tasks.abandon(task);
            *ambient.now.lock() = None;
        });
        for (_, task) in std::mem::take(&mut *ambient.spawned.lock()) {
            process.tasks.spawn(task);
        }
    }

    /// Does something to the network.
    pub fn with_net<T>(&self, act: impl FnOnce(&Net) -> T) -> T {
        let _tokio = self.runtime.enter();
        act(&self.ambient.net)
    }

    /// Ends a process, whatever it was doing. Its connections end with it; those of a machine that loses power are just silent.
    pub fn kill(&mut self, pid: Pid, is_silent: bool) {
        let Some(process) = self.running.remove(&pid) else { return };
        let Processes { ambient, runtime, .. } = self;
        let _tokio = runtime.enter();
        simulated::within(ambient.clone(), || {
            *ambient.now.lock() = Some((pid, process.place));
            ambient.net.close(process.place, is_silent, move || drop(process));
            *ambient.now.lock() = None;
        });
        // What was begun while it ended has nobody to run it.
        drop(std::mem::take(&mut *ambient.spawned.lock()));
    }

    /// A process stands still, or goes on.
    pub fn pause(&mut self, pid: Pid, is_paused: bool) {
        if let Some(process) = self.running.get_mut(&pid) {
            process.is_paused = is_paused;
        }
    }

    /// Lets time pass, and everybody do what is to be done meanwhile.
    pub fn run_until(&mut self, time: &Time, until_us: u64) {
        let Processes { running, ambient, runtime, began, .. } = self;
        let began = *began;
        let until = began + Duration::from_micros(until_us);
        simulated::within(ambient.clone(), || {
            // Nobody here is to be held up because another one did much.
            runtime.block_on(tokio::task::unconstrained(async {
                let mut reached = pin!(sleep_until(until));
                poll_fn(|context: &mut Context<'_>| {
                    let now_us = began.elapsed().as_micros() as u64;
                    time.set_us(now_us.min(until_us).max(time.now_us()));
                    turn(running, ambient, context);
                    reached.as_mut().poll(context)
                })
                .await;
            }));
        });
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // One after the other, each where it ran.
        let pids = self.running.keys().copied().collect::<Vec<_>>();
        pids.into_iter().for_each(|pid| self.kill(pid, true));
    }
}

/// Runs whoever was woken, and whom they wake, until all wait for time to pass.
fn turn(running: &mut BTreeMap<Pid, Process>, ambient: &Ambient, context: &Context<'_>) {
    for _ in 0..ROUNDS_MAX {
        let mut is_quiet = true;
        for (pid, process) in running.iter_mut().filter(|(_, process)| !process.is_paused) {
            process.tasks.tell(context.waker());
            if !process.tasks.is_called() {
                continue;
            }
            is_quiet = false;
            *ambient.now.lock() = Some((*pid, process.place));
            process.tasks.run();
            *ambient.now.lock() = None;
            for (parent, task) in std::mem::take(&mut *ambient.spawned.lock()) {
                assert_eq!(parent, *pid, "a task is of the process that made it");
                process.tasks.spawn(task);
            }
        }
        if is_quiet {
            return;
        }
    }
    panic!("tasks wake each other for ever");
}
