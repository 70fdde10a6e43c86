//! gRPC and HTTP on one port.
//!
//! HTTP/2 with a gRPC content type goes to the services; everything else goes to the gateway. Between a connection and a service
//! that is called often there is one match on the path, and no other layer.

use super::{
    Admission, Backend, Edge, Services,
    admission::{OpenTab, Tab},
    calls::{Call, Calls},
    health::HealthService,
    listen::{Arrival, Caller, Listener, Peer},
    made,
    sent::Sent,
    services::{Reply, spell_too_large},
};
use crate::{
    places::{Bounds, Place, Places},
    runtime,
    tls::Turn,
};
use http::{
    HeaderValue, Request, Response, Version,
    header::{CONTENT_TYPE, UPGRADE},
};
use hyper::{body::Incoming, service::Service as HyperService};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{
    convert::Infallible,
    future::{Future, pending},
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tonic::{Status, body::Body};
use tower::Service;

/// How connections behave.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// `max-concurrent-streams` of one connection.
    pub streams_max: u32,
    /// `grpc-keepalive-interval`: silence after which a client is asked whether it lives; zero: never.
    pub keepalive_interval: Duration,
    /// `grpc-keepalive-timeout`: how long its answer may take.
    pub keepalive_timeout: Duration,
    /// How many there may be, of all listeners that are served together.
    pub places: Bounds,
    /// Where answers count until they are sent ([`Edge::admission`]).
    pub admission: Option<Admission>,
}

impl Default for ConnectionSettings {
    fn default() -> ConnectionSettings {
        ConnectionSettings {
            streams_max: u32::MAX,
            keepalive_interval: Duration::from_secs(2 * 3600),
            keepalive_timeout: Duration::from_secs(20),
            places: Bounds::NONE,
            admission: None,
        }
    }
}

/// Listeners that are being served.
pub struct Serving {
    stop: watch::Sender<Option<Instant>>,
    places: Places,
    listeners: Vec<JoinHandle<()>>,
}

/// Serves all services of `edge` on `listeners`, and `gateway` to whoever speaks plain HTTP.
pub fn serve<B: Backend>(
    listeners: Vec<Listener>,
    edge: Edge<B>,
    gateway: axum::Router,
    settings: &ConnectionSettings,
) -> Serving {
    let stop = watch::Sender::new(None);
    let health = HealthService::server(edge.backend.clone(), stop.subscribe());
    let services = Services::with(&edge, |rare| rare.add_service(health));
    start(listeners, both(edge.calls, services, gateway), settings, stop)
}

fn both<B: Backend>(calls: Calls, services: Services<B>, gateway: axum::Router) -> Both<B> {
    Both { calls, services, gateway: HttpOnly(gateway.with_state(())) }
}

/// What answers a member's connections, but for plain HTTP: for the simulator, which accepts them itself.
#[cfg(test)]
pub(crate) fn member_front<B: Backend>(edge: Edge<B>) -> impl Front {
    both(edge.calls.clone(), Services::of(&edge), axum::Router::new())
}

/// Serves one connection that the simulator has accepted, to its end.
#[cfg(test)]
pub(crate) async fn serve_connection(
    connection: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
    front: impl Front,
    settings: &ConnectionSettings,
) {
    let (_never, stop) = watch::channel(None);
    let places = Places::new(settings.places);
    let Ok(place) = places.enter(None) else { return };
    let known = Known { front, caller: Caller::default(), place: Arc::new(place), tab: None, peer: None };
    hold(Box::pin(connection), known, None, Arc::new(protocol(settings)), stop).await;
}

/// Serves plain HTTP alone, as `listen-client-http-urls` and `listen-metrics-urls` ask for.
pub fn serve_http(listeners: Vec<Listener>, gateway: axum::Router, settings: &ConnectionSettings) -> Serving {
    start(listeners, HttpOnly(gateway.with_state(())), settings, watch::Sender::new(None))
}

/// Serves whatever `front` answers: for those that are no member.
pub(crate) fn serve_front(listeners: Vec<Listener>, front: impl Front, settings: &ConnectionSettings) -> Serving {
    start(listeners, front, settings, watch::Sender::new(None))
}

fn start(
    listeners: Vec<Listener>,
    front: impl Front,
    settings: &ConnectionSettings,
    stop: watch::Sender<Option<Instant>>,
) -> Serving {
    let places = Places::new(settings.places);
    let hall = Hall { front, protocol: Arc::new(protocol(settings)), admission: settings.admission };
    let accept = |listener| accept_all(listener, hall.clone(), stop.subscribe(), places.clone());
    let listeners = listeners.into_iter().map(|listener| tokio::spawn(accept(listener))).collect();
    Serving { stop, places, listeners }
}

impl Serving {
    /// How many connections there are; the number goes on changing.
    pub fn connections(&self) -> Arc<AtomicUsize> {
        self.places.all()
    }

    /// How many there are, and may be, and what becomes of those who are too many.
    pub fn places(&self) -> Places {
        self.places.clone()
    }

    /// Stops accepting at once, lets calls in flight end, and cuts those that are not done after `patience`.
    ///
    /// Streams end by themselves when [`Backend::stopping`] is true: say that first.
    pub async fn stop(self, patience: Duration) {
        self.stop.send_replace(Some(Instant::now() + patience));
        for listener in self.listeners {
            // Ends in time by itself. If it was cancelled or panicked its connections are gone too.
            let _ = listener.await;
        }
    }
}

type Protocol = auto::Builder<runtime::Executor>;

/// What is the same for all connections.
#[derive(Clone)]
struct Hall<F> {
    front: F,
    protocol: Arc<Protocol>,
    admission: Option<Admission>,
}

fn protocol(settings: &ConnectionSettings) -> Protocol {
    let mut protocol = auto::Builder::new(runtime::Executor);
    // Names of headers are the same in either case, but there are scripts that look for etcd's, which begin with capitals.
    protocol.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).title_case_headers(true);
    protocol
        .http2()
        .timer(TokioTimer::new())
        // Wide enough that one stream of large values is not held up by the round trip; etcd's clients use as much.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .max_frame_size(64 << 10)
        .max_send_buf_size(1 << 20)
        .max_concurrent_streams(settings.streams_max)
        .keep_alive_interval(Some(settings.keepalive_interval).filter(|interval| !interval.is_zero()))
        .keep_alive_timeout(settings.keepalive_timeout)
        // gRPC has no use for it, and it costs a header in each reply.
        .auto_date_header(false);
    protocol
}

/// A plain HTTP client that has not sent its headers by then is cut.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

async fn accept_all(
    listener: Listener,
    hall: Hall<impl Front>,
    mut stop: watch::Receiver<Option<Instant>>,
    places: Places,
) {
    let mut connections = JoinSet::new();
    let for_connections = stop.clone();
    let deadline = loop {
        tokio::select! {
            biased;
            deadline = told_to_stop(&mut stop) => break deadline,
            // Reaps, so that the set holds the living only.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok(arrival) => {
                    let place = match places.enter(arrival.address()) {
                        Ok(place) => place,
                        Err(full) => {
                            if places.is_news() {
                                let (remote_addr, open) = (arrival.remote(), places.counts().all);
                                tracing::warn!(remote_addr, open, ?full, "rejected connection on client endpoint: too many");
                            }
                            continue;
                        }
                    };
                    // Not beside the other branches: whoever has been accepted must not be lost.
                    let turn = tokio::select! {
                        biased;
                        deadline = told_to_stop(&mut stop) => break deadline,
                        turn = arrival.enter() => turn,
                    };
                    let stop = for_connections.clone();
                    connections.spawn(converse(arrival, turn, place, hall.clone(), stop));
                }
                Err(error) => {
                    tracing::warn!(url = listener.url(), %error, "rejected connection on client endpoint");
                    // Out of file descriptors, most likely: the loop must not spin until one is free.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    };
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout_at(deadline.unwrap_or_else(Instant::now), all).await;
    connections.shutdown().await;
}

/// Waits for the word to stop: until when to be patient; `None` if [`Serving`] was dropped and nobody waits.
pub(super) async fn told_to_stop(stop: &mut watch::Receiver<Option<Instant>>) -> Option<Instant> {
    stop.wait_for(Option::is_some).await.map_or(None, |deadline| *deadline)
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One connection, to its end.
async fn converse(
    arrival: Arrival,
    turn: Option<Turn>,
    place: Place,
    hall: Hall<impl Front>,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    let (remote_addr, peer) = (arrival.remote(), arrival.peer());
    let greeting = tokio::select! {
        biased;
        _ = told_to_stop(&mut stop) => return,
        () = place.taken_away() => return,
        greeting = arrival.greet(turn) => greeting,
    };
    let (connection, caller) = match greeting {
        Ok(connection) => connection,
        Err(error) => {
            tracing::warn!(remote_addr, error, "rejected connection on client endpoint");
            return;
        }
    };
    let Hall { front, protocol, admission } = hall;
    let peer = peer.filter(|_| front.wants_peer());
    let open = admission.map(Tab::open);
    let tab = open.as_ref().map(|open| Arc::clone(open.tab()));
    hold(connection, Known { front, caller, place: Arc::new(place), tab, peer }, open, protocol, stop).await;
}

/// In the extensions of requests that came over TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OverTls;

/// In the extensions of requests after which a connection may be something else, a WebSocket: the connection's place, for whoever it is then.
#[derive(Clone)]
pub(crate) struct KeptPlace {
    _place: Arc<Place>,
}

/// Answers the requests of one connection, and says whose it is.
struct Known<F> {
    front: F,
    caller: Caller,
    place: Arc<Place>,
    /// Where its answers count until it has taken them.
    tab: Option<Arc<Tab>>,
    /// Where it comes from, if the front wants to know.
    peer: Option<Peer>,
}

impl<F: Front> HyperService<Request<Incoming>> for Known<F> {
    type Response = Response<Sent>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Answer {
        self.place.speaks();
        if let Some(name) = &self.caller.name {
            request.extensions_mut().insert(name.clone());
        }
        if self.caller.has_tls {
            request.extensions_mut().insert(OverTls);
        }
        if request.version() != Version::HTTP_2 && request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(KeptPlace { _place: Arc::clone(&self.place) });
        }
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(peer);
        }
        Answer { tab: self.tab.clone(), ..self.front.call(request) }
    }
}

/// Speaks HTTP on a connection, to its end.
async fn hold(
    connection: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    front: Known<impl Front>,
    tab: Option<OpenTab>,
    protocol: Arc<Protocol>,
    mut stop: watch::Receiver<Option<Instant>>,
) {
    let place = Arc::clone(&front.place);
    // What becomes a WebSocket leaves this conversation, and ends with its call.
    let conversation = protocol.serve_connection_with_upgrades(TokioIo::new(connection), front);
    tokio::pin!(conversation);
    let slow = async {
        match &tab {
            Some(open) => open.tab().closed().await,
            None => pending().await,
        }
    };
    let result = tokio::select! {
        biased;
        result = conversation.as_mut() => result,
        // It has asked for nothing yet, and others want to.
        () = place.taken_away() => return,
        // It does not read, and others need the room.
        () = slow => {
            tracing::info!("closed a client's connection: it does not read its answers, and others wait for room");
            return;
        }
        _ = told_to_stop(&mut stop) => {
            conversation.as_mut().graceful_shutdown();
            conversation.await
        }
    };
    if let Err(error) = result {
        // Clients that vanish are daily life.
        tracing::debug!(%error, "connection ended");
    }
}

/// What answers a connection.
pub(crate) trait Front:
    HyperService<Request<Incoming>, Response = Response<Sent>, Error = Infallible, Future = Answer> + Clone + Send + 'static
{
    /// Whether requests are to say where their connection comes from.
    fn wants_peer(&self) -> bool {
        false
    }
}

impl<B: Backend> Front for Both<B> {
    fn wants_peer(&self) -> bool {
        self.calls.has_spans()
    }
}
impl Front for HttpOnly {}

/// Plain HTTP alone.
#[derive(Clone)]
struct HttpOnly(axum::Router);

impl HyperService<Request<Incoming>> for HttpOnly {
    type Response = Response<Sent>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        if is_grpc(&request) {
            let refusal = Status::unimplemented("this port serves HTTP alone; gRPC is on another one");
            return Answer::new(std::future::ready(Ok(refusal.into_http())));
        }
        let answer = self.0.clone().call(request.map(axum::body::Body::new));
        Answer::new(async { answer.await.map(|response| response.map(Body::new)) })
    }
}

/// gRPC and plain HTTP: everything that a connection can ask for.
#[derive(Clone)]
struct Both<B> {
    calls: Calls,
    services: Services<B>,
    gateway: HttpOnly,
}

impl<B: Backend> HyperService<Request<Incoming>> for Both<B> {
    type Response = Response<Sent>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        if !is_grpc(&request) {
            return self.gateway.call(request);
        }
        let (head, body) = request.into_parts();
        let Some(mut call) = self.calls.begin(&head) else {
            let reply = self.services.begin(Request::from_parts(head, body));
            return Answer { reply, call: None, tab: None };
        };
        let reply = match call.admit() {
            Ok(()) => self.services.begin(Request::from_parts(head, call.request(body))),
            Err(refusal) => Box::pin(std::future::ready(Ok(Status::from(refusal).into_http()))),
        };
        Answer { reply, call: Some(call), tab: None }
    }
}

/// Whether this is for a gRPC service, rather than for plain HTTP.
pub(crate) fn is_grpc<B>(request: &Request<B>) -> bool {
    let content = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    request.version() == Version::HTTP_2 && content.is_some_and(|content| content.starts_with(b"application/grpc"))
}

/// A reply to come.
pub(crate) struct Answer {
    reply: Reply,
    /// That it answers, if it is one that is counted.
    call: Option<Call>,
    /// Where it counts until it is taken.
    tab: Option<Arc<Tab>>,
}

impl Answer {
    pub(crate) fn new(reply: impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static) -> Answer {
        Answer { reply: Box::pin(reply), call: None, tab: None }
    }
}

impl Future for Answer {
    type Output = Result<Response<Sent>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Answer { reply, tab, .. } = &mut *self;
        let response = ready!(Tab::during(tab, || reply.as_mut().poll(context)))?;
        let response = made::whole(spell_too_large(response));
        let (mut call, tab) = (self.call.take(), self.tab.take());
        if let Some(call) = &mut call {
            call.look(response.headers());
        }
        Poll::Ready(Ok(Sent::response(response, call, tab)))
    }
}
