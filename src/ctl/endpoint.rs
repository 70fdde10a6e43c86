//! endpoint health, status, hashkv: each endpoint is asked by itself, all at the same time.

use super::{
    failure::Failure,
    global::Global,
    output::{Answer, Format, Health, Printer},
};
use crate::{
    client::{Client, Error, GetOptions},
    go,
};
use std::{future::Future, time::Instant};
use tokio::task::JoinSet;
use tonic::Code;

/// Endpoint commands.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Use all endpoints from the cluster member list
    #[arg(long, global = true)]
    cluster: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Checks the healthiness of endpoints specified in `--endpoints` flag
    Health {
        #[arg(hide = true)]
        more: Vec<String>,
    },
    /// Prints out the status of endpoints specified in `--endpoints` flag
    Status {
        #[arg(hide = true)]
        more: Vec<String>,
    },
    /// Prints the KV history hash for each endpoint in --endpoints
    Hashkv {
        /// Maximum revision to hash (0: latest revision)
        #[arg(long, default_value_t = 0, value_parser = go::int)]
        rev: i64,
        #[arg(hide = true)]
        more: Vec<String>,
    },
}

pub async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let endpoints = targets(global, args.cluster).await?;
    let printer = global.printer()?;
    match args.command {
        Command::Health { .. } => {
            let clients = of_all(&endpoints, async |endpoint| global.stranger_to(endpoint).await).await?;
            let all = of_each(clients, |client| async move {
                let began = Instant::now();
                let error = unhealthy(&client).await;
                (began.elapsed(), error)
            });
            let all: Vec<Health> =
                all.await.into_iter().map(|(endpoint, (took, error))| Health { endpoint, took, error }).collect();
            let sick = all.iter().any(|one| one.error.is_some());
            print_health(printer, all)?;
            if sick { Err(Failure::error("unhealthy cluster")) } else { Ok(()) }
        }
        Command::Status { .. } => {
            let clients = of_all(&endpoints, async |endpoint| global.client_of(endpoint).await).await?;
            let all = of_each(clients, |client| async move { client.status().await }).await;
            let (answers, error) = sift("status", all);
            printer.print(&Answer::Status(answers))?;
            error.map_or(Ok(()), |_| Err(Failure::error("")))
        }
        Command::Hashkv { rev, .. } => {
            let clients = of_all(&endpoints, async |endpoint| global.client_of(endpoint).await).await?;
            let all = of_each(clients, move |client| async move { client.hash_kv(rev).await }).await;
            let (answers, error) = sift("hash", all);
            printer.print(&Answer::HashKv(answers))?;
            error.map_or(Ok(()), |error| Err(Failure::error(error)))
        }
    }
}

/// The endpoints to ask: those given, or with `cluster` every client URL that the members advertise.
pub async fn targets(global: &Global, cluster: bool) -> Result<Vec<String>, Failure> {
    if !cluster {
        return Ok(global.endpoints());
    }
    // Not as elsewhere a matter of the connection, in etcdctl.
    let client = global.client().await.map_err(|failure| Failure::error(failure.text()))?;
    let members = client.member_list(true).await.map_err(|error| {
        Failure::from(error).map(|text| format!("failed to fetch endpoints from etcd cluster member list: {text}"))
    })?;
    Ok(members.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}

/// Why this endpoint is not healthy: it cannot read through the log, or it has an alarm.
async fn unhealthy(client: &Client) -> Option<String> {
    match client.get("health", GetOptions::default()).await {
        Ok(_) => {}
        // To be refused takes a working quorum as well.
        Err(error) if error.code() == Some(Code::PermissionDenied) => {}
        Err(error) => return Some(error.to_string()),
    }
    match client.alarms().await {
        Ok(answer) if answer.alarms.is_empty() => None,
        Ok(answer) => {
            // With a blank after each, as etcdctl has it.
            let kinds = answer.alarms.iter().map(|alarm| format!("{} ", alarm.alarm().as_str_name()));
            Some(format!("Active Alarm(s): {}", kinds.collect::<String>()))
        }
        Err(error) if error.code() == Some(Code::PermissionDenied) => None,
        Err(_) => Some("Unable to fetch the alarm list".into()),
    }
}

/// A client for each endpoint.
async fn of_all(
    endpoints: &[String],
    connect: impl AsyncFn(&str) -> Result<Client, Failure>,
) -> Result<Vec<(String, Client)>, Failure> {
    let mut clients = Vec::new();
    for endpoint in endpoints {
        clients.push((endpoint.clone(), connect(endpoint).await?));
    }
    Ok(clients)
}

/// Runs `ask` against each endpoint at once; answers in the order of the endpoints.
async fn of_each<T, F, Fut>(clients: Vec<(String, Client)>, ask: F) -> Vec<(String, T)>
where
    T: Send + 'static,
    F: Fn(Client) -> Fut,
    Fut: Future<Output = T> + Send + 'static,
{
    let mut asked = JoinSet::new();
    for (at, (endpoint, client)) in clients.into_iter().enumerate() {
        let answer = ask(client);
        asked.spawn(async move { (at, endpoint, answer.await) });
    }
    let mut all = asked.join_all().await;
    all.sort_by_key(|(at, ..)| *at);
    all.into_iter().map(|(_, endpoint, answer)| (endpoint, answer)).collect()
}

/// The healthy ones are an answer; in the simple format the others are complaints.
fn print_health(printer: Printer, all: Vec<Health>) -> Result<(), Failure> {
    if printer.format != Format::Simple {
        return printer.print(&Answer::Health(all));
    }
    let (sick, healthy): (Vec<Health>, Vec<Health>) = all.into_iter().partition(|one| one.error.is_some());
    printer.print(&Answer::Health(healthy))?;
    eprint!("{}", String::from_utf8_lossy(&printer.render(&Answer::Health(sick))?));
    Ok(())
}

/// Complains about the endpoints that did not answer; gives the answers of the others, and the last of the complaints.
fn sift<T>(what: &str, all: Vec<(String, Result<T, Error>)>) -> (Vec<(String, T)>, Option<Error>) {
    let mut failed = None;
    let mut answers = Vec::new();
    for (endpoint, answer) in all {
        match answer {
            Ok(answer) => answers.push((endpoint, answer)),
            Err(error) => {
                eprintln!("Failed to get the {what} of endpoint {endpoint} ({error})");
                failed = Some(error);
            }
        }
    }
    (answers, failed)
}
