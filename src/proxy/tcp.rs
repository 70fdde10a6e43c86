//! `henge gateway`: carries TCP connections to the endpoints in turn, and knows nothing of what they say.
//!
//! As etcd's gateway: an endpoint that can't be reached is left alone for a while; when none is left, connections are closed at once.

use parking_lot::Mutex;
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Longest wait for a connection to an endpoint.
const DIAL_MAX: Duration = Duration::from_secs(2);
/// Connections that are carried at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 32_768;
/// After an accept that failed: out of file descriptors, most likely, and the loop must not spin until one is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A TCP proxy. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    turns: Arc<Mutex<Turns>>,
}

/// Whose turn it is.
struct Turns {
    endpoints: Vec<(String, Standing)>,
    next: usize,
    retry_delay: Duration,
}

#[derive(Clone, Copy)]
enum Standing {
    Sound,
    AwayUntil(Instant),
}

impl Gateway {
    /// A gateway to `endpoints` (`host:port`); one that fails is left alone for `retry_delay`.
    pub fn new(endpoints: Vec<String>, retry_delay: Duration) -> Gateway {
        let endpoints = endpoints.into_iter().map(|endpoint| (endpoint, Standing::Sound)).collect();
        Gateway { turns: Arc::new(Mutex::new(Turns { endpoints, next: 0, retry_delay })) }
    }

    /// Carries connections until this future is dropped; then all of them are cut.
    pub async fn serve(&self, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let accept = async {
                let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((listener.accept().await?.0, permit))
            };
            tokio::select! {
                biased;
                // Reaps, so that the set holds the living only.
                Some(_) = connections.join_next() => {}
                accepted = accept => match accepted {
                    Ok((client, permit)) => drop(connections.spawn(self.clone().carry(client, permit))),
                    Err(error) => {
                        tracing::warn!(%error, "rejected connection on client endpoint");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    async fn carry(self, mut client: TcpStream, _permit: OwnedSemaphorePermit) {
        let Some(mut endpoint) = self.connect().await else { return };
        // Small messages both ways: nobody gains by waiting for more of them.
        let _ = (client.set_nodelay(true), endpoint.set_nodelay(true));
        if let Err(error) = copy_bidirectional(&mut client, &mut endpoint).await {
            tracing::debug!(%error, "connection ended");
        }
    }

    /// The next endpoint that can be reached; `None` if there is none now.
    async fn connect(&self) -> Option<TcpStream> {
        loop {
            let (at, address) = self.turns.lock().next(Instant::now())?;
            let why = match timeout(DIAL_MAX, TcpStream::connect(&address)).await {
                Ok(Ok(stream)) => {
                    self.turns.lock().endpoints[at].1 = Standing::Sound;
                    return Some(stream);
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no connection in time".to_owned(),
            };
            let mut turns = self.turns.lock();
            let interval = turns.retry_delay;
            turns.endpoints[at].1 = Standing::AwayUntil(Instant::now() + interval);
            tracing::warn!(address, ?interval, error = why, "deactivated endpoint");
        }
    }
}

impl Turns {
    fn next(&mut self, now: Instant) -> Option<(usize, String)> {
        let count = self.endpoints.len();
        let is_candidate = |at: &usize| match self.endpoints[*at].1 {
            Standing::Sound => true,
            Standing::AwayUntil(until) => until <= now,
        };
        let at = (0..count).map(|step| (self.next + step) % count).find(is_candidate)?;
        self.next = at + 1;
        Some((at, self.endpoints[at].0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Says `word` to whoever connects, then repeats what it hears.
    async fn echo(word: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    stream.write_all(word.as_bytes()).await.unwrap();
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn gateway(endpoints: Vec<String>, retry_delay: Duration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let gateway = Gateway::new(endpoints, retry_delay);
        tokio::spawn(async move { gateway.serve(listener).await });
        address
    }

    /// What one connection through `gateway` hears: a word, and its own echo.
    async fn hear(gateway: &str) -> String {
        let mut stream = TcpStream::connect(gateway).await.unwrap();
        stream.write_all(b"!").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        heard
    }

    #[tokio::test]
    async fn connections_go_round_and_a_dead_endpoint_is_left_alone() {
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let gateway = gateway(vec![echo("a").await, dead, echo("b").await], Duration::from_secs(60)).await;
        let mut heard = Vec::new();
        for _ in 0..4 {
            heard.push(hear(&gateway).await);
        }
        assert_eq!(heard, ["a!", "b!", "a!", "b!"]);
    }

    #[test]
    fn an_endpoint_gets_its_turn_again_after_the_delay() {
        let now = Instant::now();
        let until = now + Duration::from_secs(1);
        let endpoints =
            vec![("a".to_owned(), Standing::AwayUntil(until)), ("b".to_owned(), Standing::AwayUntil(until))];
        let mut turns = Turns { endpoints, next: 0, retry_delay: Duration::from_secs(1) };
        assert_eq!(turns.next(now), None);
        assert_eq!(turns.next(until), Some((0, "a".to_owned())));
        assert_eq!(turns.next(until), Some((1, "b".to_owned())));
    }
}
