use super::*;
use crate::client::ConnectOptions;
use tokio::time::timeout;

/// A line, with this test as its upstream.
struct Rig {
    line: mpsc::Sender<Ask>,
    requests: mpsc::Receiver<LeaseKeepAliveRequest>,
    answers: mpsc::Sender<Result<LeaseKeepAliveResponse, Status>>,
}

fn rig() -> Rig {
    rig_with(ANSWER_MAX)
}

fn rig_with(answer_max: Duration) -> Rig {
    // Nobody listens there; what the line does after a loss ends with a refusal.
    let upstream = Upstream::new(&["127.0.0.1:1".to_owned()], ConnectOptions::default()).expect("an address");
    let (line, asked) = mpsc::channel(ASKED_MAX);
    let (to_upstream, requests) = mpsc::channel(ON_THE_WAY_MAX);
    let (answers, from_upstream) = mpsc::channel(ON_THE_WAY_MAX);
    let stream = Stream {
        turn: upstream.pick().0,
        requests: to_upstream,
        answers: from_upstream,
        reader: tokio::spawn(std::future::pending()),
        owed: 0,
        heard: Instant::now(),
    };
    tokio::spawn(Line { stream: Some(stream), answer_max, ..Line::new(upstream, asked) }.run());
    Rig { line, requests, answers }
}

impl Rig {
    async fn ask(&self, id: i64) -> oneshot::Receiver<Outcome> {
        let (reply, outcome) = oneshot::channel();
        assert!(self.line.send(Ask { id, reply }).await.is_ok(), "there is a line");
        outcome
    }

    async fn requested(&mut self) -> i64 {
        timeout(Duration::from_secs(5), self.requests.recv()).await.expect("in time").expect("a request").id
    }

    async fn answer(&self, id: i64, ttl: i64) {
        let answer = LeaseKeepAliveResponse { header: None, id, ttl };
        self.answers.send(Ok(answer)).await.expect("a line");
    }
}

async fn ttl(outcome: oneshot::Receiver<Outcome>) -> Result<i64, Status> {
    let outcome = timeout(Duration::from_secs(20), outcome).await.expect("in time").expect("an outcome");
    outcome.map(|(answer, _)| answer.ttl)
}

#[tokio::test]
async fn who_asks_while_a_renewal_is_on_its_way_waits_for_the_next_one() {
    let mut rig = rig();
    let first = rig.ask(7).await;
    assert_eq!(rig.requested().await, 7);
    // Two at once, and another lease: the two travel together, and not before the first is answered.
    let (second, third, other) = (rig.ask(7).await, rig.ask(7).await, rig.ask(8).await);
    assert_eq!(rig.requested().await, 8);
    assert!(rig.requests.try_recv().is_err());
    rig.answer(7, 10).await;
    assert_eq!(ttl(first).await.expect("an answer"), 10);
    assert_eq!(rig.requested().await, 7);
    rig.answer(7, 20).await;
    rig.answer(8, 30).await;
    assert_eq!(ttl(second).await.expect("an answer"), 20);
    assert_eq!(ttl(third).await.expect("an answer"), 20);
    assert_eq!(ttl(other).await.expect("an answer"), 30);
    assert!(rig.requests.try_recv().is_err(), "each was asked for once");
}

#[tokio::test]
async fn a_lost_stream_is_told_to_all_who_wait_sent_or_not() {
    let mut rig = rig();
    let sent = rig.ask(7).await;
    assert_eq!(rig.requested().await, 7);
    let (waiting, other) = (rig.ask(7).await, rig.ask(8).await);
    assert_eq!(rig.requested().await, 8);
    rig.answers.send(Err(types::Error::NoLeader.into())).await.expect("a line");
    for outcome in [sent, waiting, other] {
        let status = ttl(outcome).await.expect_err("it is lost");
        assert_eq!(status.message(), types::Error::NoLeader.text());
    }
    // The line goes on with a stream of its own, to nobody here.
    let later = rig.ask(7).await;
    assert!(ttl(later).await.expect_err("nobody listens").message().contains("no upstream could be reached"));
}

#[tokio::test]
async fn an_upstream_that_keeps_silent_is_given_up_and_one_that_answers_others_is_not() {
    let answer_max = GATHER * 5;
    let mut rig = rig_with(answer_max);
    let (slow, quick) = (rig.ask(7).await, rig.ask(8).await);
    assert_eq!((rig.requested().await, rig.requested().await), (7, 8));
    tokio::time::sleep(answer_max / 2).await;
    rig.answer(8, 10).await;
    assert_eq!(ttl(quick).await.expect("an answer"), 10);
    let quiet_since = Instant::now();
    let status = ttl(slow).await.expect_err("it keeps silent");
    assert!(status.message().contains("does not answer"), "{status:?}");
    assert!(quiet_since.elapsed() > answer_max / 2, "{:?}", quiet_since.elapsed());
}

#[tokio::test]
async fn an_answer_that_lay_too_long_is_not_handed_on() {
    let (owed, owing) = mpsc::channel(4);
    let (answers, mut to_client) = mpsc::channel(1);
    let stopping = watch::Sender::new(false);
    tokio::spawn(answer_all(owing, answers, stopping.subscribe()));
    for ttl in [1, 2] {
        let (reply, outcome) = oneshot::channel();
        let answer = LeaseKeepAliveResponse { header: None, id: 7, ttl };
        reply.send(Ok((answer, Instant::now()))).expect("nobody else");
        owed.send(outcome).await.expect("room");
    }
    // The client does not read: there is room for one answer alone.
    tokio::time::sleep(FRESH_MAX + Duration::from_millis(100)).await;
    assert_eq!(to_client.recv().await.expect("an answer").expect("in time").ttl, 1);
    let status = to_client.recv().await.expect("an answer").expect_err("too late");
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(to_client.recv().await.is_none(), "the stream ends");
}
