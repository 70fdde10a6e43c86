//! watch: one range from the arguments, or many by commands typed in (`-i`); optionally a command for each event.

use super::{
    failure::Failure,
    flags,
    global::Global,
    kv,
    output::{Answer, Format, Printer},
    system,
    txn_grammar::split,
    usage,
};
use crate::{
    client::{Client, Error, WatchOptions, Watcher},
    go::{self, quote},
    pb::{
        etcdserverpb::WatchResponse,
        mvccpb::{Event, event::EventType},
    },
};
use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use std::{ffi::OsString, os::unix::ffi::OsStrExt as _};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    sync::mpsc,
};

/// Watches keys.
#[derive(Parser, Debug)]
#[command(args_override_self = true)]
pub struct Args {
    /// The key, the end of the range (exclusive), and after `--` a command to run for each event
    #[arg(value_name = "KEY [RANGE_END] [-- COMMAND...]")]
    keys: Vec<OsString>,
    /// Interactive mode: reads `watch ...` and `progress` lines from standard input
    #[arg(short, long)]
    interactive: bool,
    /// Watch on a prefix if prefix is set
    #[arg(long)]
    prefix: bool,
    /// Revision to start watching
    #[arg(long, default_value_t = 0, value_parser = go::int)]
    rev: i64,
    /// Get the previous key-value pair before the event happens
    #[arg(long)]
    prev_kv: bool,
    /// Get periodic watch progress notification from server
    #[arg(long)]
    progress_notify: bool,
    /// The command, for each event, with ETCD_WATCH_* in its environment
    #[arg(last = true)]
    command: Vec<OsString>,
}

impl Args {
    /// What follows `watch` in a line that was typed in.
    fn of_words(words: &[OsString]) -> Result<Args, String> {
        let command = Args::command().no_binary_name(true).disable_help_flag(true);
        let words = flags::normal(&command, words.iter().cloned())?;
        let parsed = command.try_get_matches_from(words).and_then(|matches| Args::from_arg_matches(&matches));
        parsed.map_err(|error| usage::complaint(&error, "watch"))
    }

    /// The key and the end of its range: given here, or in the environment, but not in both.
    fn keys(&mut self) -> Result<Vec<OsString>, Failure> {
        let keys = std::mem::take(&mut self.keys);
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        match (variable("ETCDCTL_WATCH_KEY"), variable("ETCDCTL_WATCH_RANGE_END")) {
            (None, Some(end)) => {
                let end = quote(end.as_bytes());
                Err(Failure::args(format!("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end}")))
            }
            (None, None) => Ok(keys),
            (Some(_), _) if !keys.is_empty() => {
                Err(Failure::args("bad number of arguments (found conflicting environment key)"))
            }
            (Some(key), end) => Ok([key].into_iter().chain(end).collect()),
        }
    }

    fn start(mut self, client: &Client) -> Result<(Watcher, Vec<OsString>), Failure> {
        let mut keys = self.keys()?;
        match keys.len() {
            0 => return Err(Failure::args("bad number of arguments")),
            1 | 2 => {}
            // As etcdctl has it: what can't be a range is a key, and words that nobody reads.
            _ => keys.truncate(1),
        }
        if self.prefix && keys.len() == 2 {
            return Err(Failure::args("`range_end` and `--prefix` are mutually exclusive"));
        }
        let (key, range_end) = kv::span("watch", keys, self.prefix, false)?;
        let options = WatchOptions {
            range_end,
            start_revision: self.rev,
            prev_kv: self.prev_kv,
            progress_notify: self.progress_notify,
            ..WatchOptions::default()
        };
        Ok((client.watch(key, options), self.command))
    }
}

pub async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let printer = global.printer()?;
    if printer.format == Format::Table {
        return Err(Failure::unsupported("table not supported as output format"));
    }
    let client = global.client().await?;
    if args.interactive {
        return interactive(&client, printer).await;
    }
    ends_in_separator(std::env::args_os().next_back())?;
    let (mut watcher, command) = args.start(&client)?;
    while let Some(answer) = watcher.next().await {
        show(answer, &command, printer).await?;
    }
    Err(Failure::interrupted("watch is canceled by the server"))
}

/// `watch key --` was to have a command.
fn ends_in_separator(last: Option<OsString>) -> Result<(), Failure> {
    match last {
        Some(last) if last == "--" => {
            Err(Failure::args("bad number of arguments (found separator --, but no commands)"))
        }
        _ => Ok(()),
    }
}

/// Reads watches line by line until the input ends, which is an error, as etcdctl has it.
async fn interactive(client: &Client, printer: Printer) -> Result<(), Failure> {
    // Keys need not be text.
    let mut lines = BufReader::new(tokio::io::stdin()).split(b'\n');
    let (sender, mut answers) = mpsc::channel(16);
    let mut progress: Vec<mpsc::Sender<()>> = Vec::new();
    loop {
        tokio::select! {
            biased;
            Some((answer, command)) = answers.recv() => {
                let command: Vec<OsString> = command;
                show(answer, &command, printer).await?;
            }
            line = lines.next_segment() => {
                let line = match line {
                    Ok(Some(line)) => line,
                    Ok(None) => return Err(Failure::input("error reading watch request line: EOF")),
                    Err(error) => return Err(Failure::input(format!("error reading watch request line: {error}"))),
                };
                match parse_line(&line) {
                    Line::Progress => {
                        // One question per stream; each watch has its own here.
                        progress.retain(|ask| !ask.is_closed());
                        for ask in &progress {
                            let _ = ask.try_send(());
                        }
                    }
                    Line::Watch(args) => match args.start(client) {
                        Ok((watcher, command)) => progress.push(follow(watcher, command, sender.clone())),
                        Err(failure) => {
                            eprintln!("Invalid command {} ({})", String::from_utf8_lossy(&line), failure.text());
                        }
                    },
                    Line::Ignored(complaint) => eprintln!("{complaint}"),
                    Line::Fatal(failure) => return Err(failure),
                }
            }
        }
    }
}

type Shown = (Result<WatchResponse, Error>, Vec<OsString>);

/// Hands a watcher's answers on, and its questions to it.
fn follow(mut watcher: Watcher, command: Vec<OsString>, to: mpsc::Sender<Shown>) -> mpsc::Sender<()> {
    let (ask, mut asked) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                answer = watcher.next() => {
                    let Some(answer) = answer else { return };
                    if to.send((answer, command.clone())).await.is_err() {
                        return;
                    }
                }
                Some(()) = asked.recv() => watcher.request_progress(),
            }
        }
    });
    ask
}

/// What a line asks for. A line that is no watch is complained about and passed over; one with flags that do not parse ends
/// the program, since a script that goes on without one of its watches is worse off.
#[derive(Debug)]
enum Line {
    Watch(Box<Args>),
    Progress,
    Ignored(String),
    Fatal(Failure),
}

fn parse_line(line: &[u8]) -> Line {
    let words = match split(line) {
        Ok(words) => words,
        Err(failure) => return Line::Fatal(failure),
    };
    let line = String::from_utf8_lossy(line);
    let from_environment = std::env::var_os("ETCDCTL_WATCH_KEY").is_some_and(|key| !key.is_empty());
    match words.split_first() {
        None => Line::Ignored(format!("Invalid command: {line} (watch and progress supported)")),
        Some((first, _)) if first == "progress" => Line::Progress,
        Some((first, [])) if first == "watch" && !from_environment => {
            Line::Ignored(format!("Invalid command {line} (command type or key is not provided)"))
        }
        Some((first, rest)) if first == "watch" => {
            if let Err(failure) = ends_in_separator(rest.last().cloned()) {
                return Line::Fatal(failure);
            }
            match Args::of_words(rest) {
                Ok(args) => Line::Watch(Box::new(args)),
                Err(complaint) => Line::Fatal(Failure::args(complaint)),
            }
        }
        _ => Line::Ignored(format!("Invalid command {line} (only support watch)")),
    }
}

async fn show(answer: Result<WatchResponse, Error>, command: &[OsString], printer: Printer) -> Result<(), Failure> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("watch was canceled ({error})");
            return Ok(());
        }
    };
    // That the watch was created is no news to whoever asked for it.
    if answer.created && !answer.canceled {
        return Ok(());
    }
    // A refusal has nothing to show in the simple format; its complaint follows.
    if answer.canceled && printer.format == Format::Simple {
        return Ok(());
    }
    // etcdctl says it in words whatever the format, and then in the format.
    if answer.events.is_empty() && !answer.canceled && printer.format != Format::Simple {
        println!("progress notify: {}", answer.header.as_ref().map_or(0, |header| header.revision));
    }
    let revision = answer.header.as_ref().map_or(0, |header| header.revision);
    let events = if command.is_empty() { Vec::new() } else { answer.events.clone() };
    printer.print(&Answer::Watch(answer))?;
    for event in events {
        execute(command, revision, &event).await?;
    }
    Ok(())
}

/// Runs the command for one event and waits for it: the next event's run must not overtake it.
async fn execute(command: &[OsString], revision: i64, event: &Event) -> Result<(), Failure> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let kv = event.kv.clone().unwrap_or_default();
    let kind = if event.r#type == EventType::Delete as i32 { "DELETE" } else { "PUT" };
    let run = Command::new(program)
        .args(arguments)
        .env("ETCD_WATCH_REVISION", revision.to_string())
        .env("ETCD_WATCH_EVENT_TYPE", quote(kind.as_bytes()))
        .env("ETCD_WATCH_KEY", quote(&kv.key))
        .env("ETCD_WATCH_VALUE", quote(&kv.value))
        .status()
        .await;
    let why = match run {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => system::ended(status),
        Err(error) => system::not_started(program, &error),
    };
    let words: Vec<String> = command.iter().map(|word| quote(word.as_bytes())).collect();
    eprintln!("command [{}] error ({why})", words.join(" "));
    Err(Failure::error(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_watches_progress_or_complaints() {
        let Line::Watch(args) = parse_line(b"watch \"a b\" c --rev=7 --prev-kv -- echo \"x y\"") else {
            panic!("a watch")
        };
        assert_eq!(args.keys, ["a b", "c"]);
        assert_eq!(args.command, ["echo", "x y"]);
        assert!(args.rev == 7 && args.prev_kv && !args.prefix);
        assert!(matches!(parse_line(b"progress"), Line::Progress));
        for line in ["cancel 0", "", "watch"] {
            assert!(matches!(parse_line(line.as_bytes()), Line::Ignored(text) if text.contains(line)), "{line}");
        }
        // What is left of a quote that does not end are words.
        assert!(matches!(parse_line(b"\"watch a"), Line::Watch(args) if args.keys == ["a"]));
        let fatal =
            |line: &str| matches!(parse_line(line.as_bytes()), Line::Fatal(failure) if failure != Failure::args(""));
        assert!(fatal("watch a --bogus") && fatal("watch a --help") && fatal("watch a --"));
    }
}
