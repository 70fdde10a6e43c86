//! henge beside etcd and beside a server that does nothing, in one run.
//!
//! ```text
//! cargo bench --bench versus                                  every row, one member and three; a report in target/versus
//! cargo bench --bench versus -- --rows put-256,get-256        only these
//! cargo bench --bench versus -- footprint                     a million keys, a million idle watchers, and maintenance meanwhile
//! cargo bench --bench versus -- --etcd-bin ~/etcd --rounds 9  against this etcd, with more rounds
//! ```
//!
//! Every row is run on every server in turn, round after round, and medians are compared: a machine that drifts does so for all of them.
//! What counts is the servers' CPU time for one operation, from the system's accounting; throughput is that of a machine on which the
//! load generator takes its share.

mod footprint;
mod limit;
mod measure;
mod plots;
mod report;
mod rows;
mod servers;

use clap::{Parser, Subcommand};
use rows::ROWS;
use servers::{Cluster, Product, Programs};
use std::{path::PathBuf, process::ExitCode};

#[derive(Parser, Debug)]
#[command(about = "Measures henge beside etcd and beside a server that does nothing")]
struct Cli {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    args: Args,
    /// Given by cargo
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand, Debug)]
enum What {
    /// What many keys and many idle watchers take, and what maintenance does to those who write meanwhile
    Footprint(footprint::Args),
    #[command(hide = true)]
    Limit(limit::Args),
}

#[derive(clap::Args, Debug)]
struct Args {
    /// Only these rows, with commas between
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Sizes of the clusters
    #[arg(long, value_delimiter = ',', default_value = "1,3")]
    members: Vec<usize>,
    /// Rounds; every row is run once in each, on every server
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each run
    #[arg(long, default_value_t = 3)]
    seconds: u64,
}

/// Programs and places.
#[derive(clap::Args, Debug)]
struct Place {
    /// An etcd server; else the one in PATH, and none if there is none
    #[arg(long, global = true)]
    etcd_bin: Option<PathBuf>,
    /// A henge server to use instead of the one built with this program
    #[arg(long, global = true, default_value = env!("CARGO_BIN_EXE_henge"))]
    henge_bin: PathBuf,
    /// First of the ports to use
    #[arg(long, global = true, default_value_t = 26_000)]
    port: u16,
    /// Where servers keep their data; on a real disk
    #[arg(long, global = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target"))]
    dir: PathBuf,
    /// Where the report goes
    #[arg(long, global = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/versus"))]
    out: PathBuf,
}

impl Place {
    fn programs(&self) -> Result<Programs, String> {
        let etcd = self.etcd_bin.clone().or_else(|| in_path("etcd"));
        std::fs::create_dir_all(&self.out).map_err(|error| format!("cannot make {}: {error}", self.out.display()))?;
        Ok(Programs { henge: self.henge_bin.clone(), etcd, port: self.port, dir: self.dir.clone() })
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}")),
    };
    let outcome = match cli.what {
        Some(What::Limit(args)) => runtime.block_on(limit::run(args)),
        Some(What::Footprint(args)) => runtime.block_on(measure_footprint(&cli.place, &args)),
        None => runtime.block_on(compare(&cli.place, &cli.args)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => failed(&why),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("Error: {why}");
    ExitCode::FAILURE
}

async fn measure_footprint(place: &Place, args: &footprint::Args) -> Result<(), String> {
    let table = footprint::run(&place.programs()?, args).await?;
    println!("{table}");
    let path = place.out.join("footprint.md");
    std::fs::write(&path, table).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

async fn compare(place: &Place, args: &Args) -> Result<(), String> {
    if let Some(unknown) = args.rows.iter().find(|id| ROWS.iter().all(|row| row.id != **id)) {
        let known = ROWS.iter().map(|row| row.id).collect::<Vec<_>>().join(", ");
        return Err(format!("there is no row {unknown:?}; there are {known}"));
    }
    if args.rounds == 0 || args.members.iter().any(|members| !matches!(members, 1 | 3 | 5)) {
        return Err("--rounds must be at least 1, and --members 1, 3 or 5".to_owned());
    }
    let programs = place.programs()?;

    let mut products = vec![(Product::Limit, 1), (Product::LimitSynced, 1)];
    for members in &args.members {
        if *members > 1 {
            // So many servers take more than one does, also if they do nothing.
            products.extend([(Product::Limit, *members), (Product::LimitSynced, *members)]);
        }
        products.push((Product::Henge, *members));
        products.extend(programs.etcd.is_some().then_some((Product::Etcd, *members)));
    }
    let mut clusters = Vec::new();
    for (number, (product, members)) in (0_u16..).zip(products) {
        let cluster = Cluster::start(&programs, product, members, number).await?;
        eprintln!("started {}", cluster.name());
        clusters.push(cluster);
    }
    let rows = ROWS.iter().filter(|row| args.rows.is_empty() || args.rows.iter().any(|id| id == row.id));
    let rows = rows.collect::<Vec<_>>();
    let figures = measure::run(&rows, &clusters, args.rounds, args.seconds).await?;
    drop(clusters);
    let report = report::Report::new(&programs, &rows, figures);
    report.write(&place.out)?;
    plots::draw(&report, &place.out)?;
    println!("{}", report.markdown());
    eprintln!("the report is in {}", place.out.display());
    Ok(())
}

fn in_path(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(program)).find(|path| path.is_file())
}
