//! One run: load, kills, and then the checks.

use crate::{
    Args, history,
    history::Operation,
    linear::{self, Verdict},
    order,
    random::Random,
    server::Server,
    workload::Workload,
};
use henge::client::{Client, ConnectOptions, GetOptions};
use std::{
    error::Error,
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Longest time for the server to answer after a start.
const START_MAX: Duration = Duration::from_secs(30);
/// Steps of the search for one register. A sane history needs a few for each call.
const STEPS_MAX: u64 = 200_000_000;

/// Runs as `args` say, and prints what was found. Returns whether all checks hold.
///
/// # Errors
/// If the run itself failed: a server that does not start, that ends by itself, or a directory that is not empty.
pub async fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let directory = directory(args)?;
    let mut server = Server::new(&args.server_bin, &directory)?;
    let workload = Workload::new(args.keys as usize);
    let outcome = drive(args, &mut server, &workload).await;
    let history = workload.recorder.take();
    let path = directory.join("history.txt");
    write_history(&path, &history)?;
    if let Err(cause) = outcome {
        return Err(format!("{cause} (history and log are in {})", directory.display()).into());
    }
    let unanswered = history.iter().filter(|operation| operation.returned_ns.is_none()).count();
    let failed = workload.failed.load(Relaxed);
    println!("{} calls answered, {unanswered} open, {failed} failed", history.len() - unanswered);
    let holds = judge(&history);
    if args.data_dir.is_none() && holds {
        fs::remove_dir_all(&directory)?;
    } else {
        println!("history: {}", path.display());
    }
    Ok(holds)
}

fn directory(args: &Args) -> Result<PathBuf, Box<dyn Error>> {
    let temporary = || std::env::temp_dir().join(format!("henge-jepsen-{}-{}", args.seed, std::process::id()));
    let directory = args.data_dir.clone().unwrap_or_else(temporary);
    fs::create_dir_all(&directory)?;
    // Registers are taken to be empty at first, so an old data directory would look like a violation.
    if fs::read_dir(&directory)?.next().is_some() {
        return Err(format!("{} is not empty", directory.display()).into());
    }
    Ok(directory)
}

/// Load and kills. The server is down at the end.
async fn drive(args: &Args, server: &mut Server, workload: &Arc<Workload>) -> Result<(), Box<dyn Error>> {
    let mut random = Random::new(args.seed);
    server.start().map_err(|cause| format!("cannot start {}: {cause}", args.server_bin.display()))?;
    let watcher = connect(server).await?;
    await_answer(&watcher).await?;
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..args.clients as usize {
        let client = connect(server).await?;
        clients.spawn(workload.clone().run(client, number, random.part(number as u64 + 1)));
    }
    for round in 1..=args.rounds {
        tokio::time::sleep(Duration::from_millis(300 + random.below(1200))).await;
        server.kill().await?;
        let down = Instant::now();
        // Sometimes at once, sometimes after clients have noticed.
        tokio::time::sleep(Duration::from_millis(random.below(400))).await;
        server.start()?;
        await_answer(&watcher).await?;
        println!("round {round}: killed, answers again after {} ms", down.elapsed().as_millis());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    workload.stop.store(true, Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended?.map_err(|nonsense| nonsense.0)?;
    }
    workload.read_all(&watcher, args.clients as usize).await.map_err(|nonsense| nonsense.0)?;
    server.kill().await?;
    Ok(())
}

async fn connect(server: &Server) -> Result<Client, Box<dyn Error>> {
    // Short, so that a kill leaves clients waiting for less than the pause between two.
    let options = ConnectOptions {
        connect_timeout: Duration::from_millis(500),
        request_timeout: Some(Duration::from_secs(1)),
        ..ConnectOptions::default()
    };
    Ok(Client::connect([server.address()], options).await?)
}

async fn await_answer(client: &Client) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + START_MAX;
    loop {
        match client.get("jepsen", GetOptions::default()).await {
            Ok(_) => return Ok(()),
            Err(cause) if Instant::now() > deadline => {
                return Err(format!("no answer {} s after the start: {cause}", START_MAX.as_secs()).into());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn write_history(path: &Path, history: &[Operation]) -> std::io::Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    writeln!(file, "# called and returned in ms since the start; ? is a call without an answer; @ is the revision")?;
    for operation in history {
        writeln!(file, "{operation}")?;
    }
    file.flush()
}

/// Runs the checks and prints what they find.
fn judge(history: &[Operation]) -> bool {
    let mut holds = true;
    for (key, operations) in history::by_key(history) {
        match linear::check(&operations, STEPS_MAX) {
            Verdict::Linearizable => println!("register {key}: linearizable ({} calls)", operations.len()),
            Verdict::Undecided => {
                println!("register {key}: undecided after {STEPS_MAX} steps ({} calls)", operations.len());
                holds = false;
            }
            Verdict::Violation { stuck, explained } => {
                println!("register {key}: NOT linearizable; no order explains\n  {stuck}\nafter");
                for operation in &explained[explained.len().saturating_sub(10)..] {
                    println!("  {operation}");
                }
                holds = false;
            }
        }
    }
    match order::check(history) {
        None => println!("revisions: in order"),
        Some(order::Inversion { earlier, later }) => {
            println!("revisions: NOT in order\n  {earlier}\n  {later}");
            holds = false;
        }
    }
    println!("verdict: {}", if holds { "all checks hold" } else { "VIOLATION" });
    holds
}
