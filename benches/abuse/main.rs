//! A hundred abusive clients next to a hundred honest ones: what the honest ones feel of it, and how much memory the server takes.
//!
//! ```text
//! cargo bench --bench abuse                          five kinds of abuse at once, on a server of its own
//! cargo bench --bench abuse -- --etcd-bin etcd       the same against etcd
//! cargo bench --bench abuse -- --only giant-ranges   one kind alone
//! ```
//!
//! Honest clients put and get small values, one after the other, each over a connection of its own. Abusers are a process of their own, which
//! yields the processor to the others: elsewhere they have machines of their own, here they would take the honest ones' time by being there.

mod abusers;
mod honest;
mod server;

use abusers::Kind;
use clap::Parser;
use server::Server;
use std::{
    path::PathBuf,
    process::{ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
};

#[derive(Parser, Clone, Debug)]
#[command(about = "Measures what honest clients feel of abusive ones")]
struct Cli {
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    /// An etcd server to use instead of henge
    #[arg(long)]
    etcd_bin: Option<PathBuf>,
    /// A henge server to use instead of the one built with this program
    #[arg(long, default_value = env!("CARGO_BIN_EXE_henge"))]
    henge_bin: PathBuf,
    /// Memory budget of henge, in bytes
    #[arg(long, default_value_t = 512 << 20)]
    memory_budget: u64,
    /// Bytes of data: keys of --val-size each
    #[arg(long, default_value_t = 128 << 20)]
    data: u64,
    /// Bytes of each value that abusers ask for
    #[arg(long, default_value_t = 16 << 10)]
    val_size: usize,
    /// Honest clients
    #[arg(long, default_value_t = 100)]
    honest: usize,
    /// Requests a second of each honest client
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// Abusive clients, of all kinds together
    #[arg(long, default_value_t = 100)]
    abusers: usize,
    /// The kinds of abuse; all if none is named
    #[arg(long, value_enum)]
    only: Vec<Kind>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Port of the server's clients; peers have the next one
    #[arg(long, default_value_t = 27_300)]
    port: u16,
    /// Be the abusers of a server that holds so many keys, until the input ends
    #[arg(long, hide = true)]
    abuse: Option<u64>,
}

impl Cli {
    fn kinds(&self) -> Vec<Kind> {
        if self.only.is_empty() { Kind::ALL.to_vec() } else { self.only.clone() }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = match cli.abuse {
        Some(keys) => runtime.block_on(abuse(&cli, keys)),
        None => runtime.block_on(measure(&cli)),
    };
    match done {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(cli: &Cli) -> Result<String, String> {
    let mut server = Server::start(cli).await?;
    eprintln!("filling in {} MiB", cli.data >> 20);
    let keys = server.fill(cli.data, cli.val_size).await?;
    let honest = honest::Clients::connect(&server.url, cli.honest, cli.rate).await?;
    let window = Duration::from_secs(cli.seconds);
    let quiet = honest.work(window).await?;
    let rss_quiet = server.peak_rss_bytes()?;
    eprintln!("quiet: {quiet}");

    let abusers = begin(cli, keys)?;
    // They do their worst before anybody is measured.
    tokio::time::sleep(window / 4).await;
    let abused = honest.work(window).await?;
    let did = end(abusers).await?;
    eprintln!("abused: {abused}");
    let rss = server.peak_rss_bytes()?;
    server.is_alive()?;

    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let mut text = format!(
        "{} honest clients, {} requests/s each; {} abusers: {}\n\n| | p50 ms | p99 ms | max ms | requests | refused | failed |\n| --- | --- | --- | --- | --- | --- | --- |\n",
        cli.honest,
        cli.rate,
        cli.abusers,
        cli.kinds().iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", "),
    );
    text += &quiet.row("without abuse");
    text += &abused.row("with abuse");
    text += &format!("\np99 with abuse / without: {:.2}\n", abused.p99_ms() / quiet.p99_ms().max(1e-3));
    text += &format!(
        "peak resident memory: {:.0} MiB with {:.0} MiB of data (before the abuse: {:.0} MiB)",
        mib(rss),
        mib(cli.data),
        mib(rss_quiet),
    );
    if cli.etcd_bin.is_none() {
        let cap = cli.memory_budget;
        let grown = rss.saturating_sub(rss_quiet);
        text += &format!(
            "; budget {:.0} MiB: the abuse took {:.0} MiB ({})",
            mib(cap),
            mib(grown),
            if grown <= cap { "within" } else { "OVER" }
        );
    }
    text += "\n\nwhat the abusers did:\n";
    text += &did;
    Ok(text)
}

/// Starts the abusers.
fn begin(cli: &Cli, keys: u64) -> Result<Child, String> {
    let own = std::env::current_exe().map_err(|error| format!("no path to this program: {error}"))?;
    let mut command = Command::new(own);
    command.args([
        "--abuse",
        &keys.to_string(),
        "--abusers",
        &cli.abusers.to_string(),
        "--port",
        &cli.port.to_string(),
    ]);
    for kind in cli.kinds() {
        let name = clap::ValueEnum::to_possible_value(&kind).expect("no kind is hidden");
        command.args(["--only", name.get_name()]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    command.spawn().map_err(|error| format!("cannot start the abusers: {error}"))
}

/// Ends them; what they did.
async fn end(mut abusers: Child) -> Result<String, String> {
    drop(abusers.stdin.take());
    let output = abusers.wait_with_output().await.map_err(|error| format!("the abusers: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("the abusers ended: {}", output.status)),
    }
}

/// What the process of the abusers does.
async fn abuse(cli: &Cli, keys: u64) -> Result<String, String> {
    rustix::process::nice(10).map_err(|error| format!("cannot be nice: {error}"))?;
    let address = cli.address();
    let target = Arc::new(abusers::Target { url: format!("http://{address}"), address, keys });
    let abuse = abusers::begin(&target, &cli.kinds(), cli.abusers);
    let _ = tokio::io::stdin().read(&mut [0; 1]).await;
    let did = abuse.end().await;
    Ok(did.iter().map(|(what, count)| format!("- {what}: {count}\n")).collect())
}
