//! ring wait: until a revision has reached the ring.

use super::{Seen, look};
use crate::{
    client::GetOptions,
    ctl::{
        failure::Failure,
        global::Global,
        output::{Answer, Format, RingList, RingReached},
    },
    go,
    pb::henge::ring::{Copy, Listed},
    types::KeyRange,
};
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

/// Between two looks, for each thousand proxies, and at least once.
const PAUSE: Duration = Duration::from_millis(500);

/// Proxies that were with a member that is down are with another one after this.
const MISSING_MAX: Duration = Duration::from_secs(20);

/// What to wait for.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The revision (default: that of the core now)
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    rev: i64,
    /// How many of the proxies are enough, as 95% or 0.95
    #[arg(long, default_value = "100%", value_parser = share)]
    share: f64,
    /// Only copies that have keys with this prefix count
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// How long to wait
    #[arg(long, default_value = "5m", value_parser = go::duration)]
    timeout: Duration,
}

/// A part of the whole.
fn share(text: &str) -> Result<f64, String> {
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    match number {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("{text:?} is neither like 95% nor like 0.95")),
    }
}

pub async fn run(global: &Global, args: Args) -> Result<(), Failure> {
    let printer = global.printer()?.for_changes()?;
    if printer.format == Format::Protobuf {
        return Err(Failure::unsupported("protobuf not supported as output format"));
    }
    let revision = goal(global, args.rev).await?;
    let prefix = KeyRange::prefix(Bytes::from(args.prefix.clone().into_bytes()));
    let began = Instant::now();
    let deadline = began + args.timeout;
    let bar = bar();
    let mut last = None;
    loop {
        match look(global, revision).await {
            Ok(seen) => {
                let progress = Progress::of(&seen, revision, &prefix);
                bar.set_length(progress.total as u64);
                bar.set_position(progress.reached as u64);
                let is_known = seen.is_settled && (seen.is_whole || began.elapsed() > MISSING_MAX);
                bar.set_message(if is_known { "" } else { "still listening" });
                if is_known && progress.is_enough(args.share) {
                    bar.finish_and_clear();
                    seen.notes.iter().for_each(|note| eprintln!("{note}"));
                    let Progress { reached, total, .. } = progress;
                    return printer.print(&Answer::RingReached(RingReached { revision, reached, total }));
                }
                last = Some((progress, seen.notes));
            }
            // A core that is away is back soon, usually.
            Err(failure) if Instant::now() < deadline => bar.set_message(failure.text().to_owned()),
            Err(failure) => return Err(failure),
        }
        let many = last.as_ref().map_or(1, |(progress, _)| 1 + progress.total / 1_000) as u32;
        let pause = PAUSE * many.min(20);
        if Instant::now() + pause > deadline {
            break;
        }
        tokio::time::sleep(pause).await;
    }
    bar.finish_and_clear();
    let Some((progress, notes)) = last else {
        return Err(Failure::connection(format!("nobody could be asked within {:?}", args.timeout)));
    };
    notes.iter().for_each(|note| eprintln!("{note}"));
    let Progress { reached, total, behind } = progress;
    printer.print(&Answer::Ring(RingList { proxies: behind, by_copy: false }))?;
    Err(Failure::error(format!(
        "revision {revision} has reached {reached} of {total} proxies within {:?}",
        args.timeout
    )))
}

/// The revision to wait for, which must be there.
async fn goal(global: &Global, wanted: i64) -> Result<i64, Failure> {
    let answer = global.client().await?.get("revision", GetOptions::default()).await?;
    let now = answer.header.map_or(0, |header| header.revision);
    match wanted {
        0 => Ok(now),
        1.. if wanted <= now => Ok(wanted),
        1.. => Err(Failure::args(format!("revision {wanted} does not exist yet: the core is at {now}"))),
        _ => Err(Failure::args(format!("{wanted} is no revision"))),
    }
}

/// How far a revision has come.
struct Progress {
    reached: usize,
    total: usize,
    behind: Vec<Listed>,
}

impl Progress {
    fn of(seen: &Seen, revision: i64, prefix: &KeyRange) -> Progress {
        let total = seen.proxies.len();
        let behind: Vec<_> =
            seen.proxies.iter().filter(|listed| !has_reached(listed, revision, prefix)).cloned().collect();
        Progress { reached: total - behind.len(), total, behind }
    }

    fn is_enough(&self, share: f64) -> bool {
        // A hair less: 0.95 is no number that a computer has.
        self.reached as f64 >= self.total as f64 * share - 1e-6
    }
}

/// Whether all copies of a proxy that have keys of `prefix` have `revision`. What a proxy does not copy it asks the core for.
fn has_reached(listed: &Listed, revision: i64, prefix: &KeyRange) -> bool {
    let state = listed.proxy.as_ref().and_then(|proxy| proxy.state.as_ref());
    let mut copies = state.into_iter().flat_map(|state| &state.copies).filter(|copy| overlaps(copy, prefix));
    copies.all(|copy| copy.revision >= revision)
}

fn overlaps(copy: &Copy, prefix: &KeyRange) -> bool {
    let of_copy = KeyRange::from_wire(copy.key.clone(), copy.range_end.clone());
    of_copy.overlaps(prefix)
}

/// A bar on a terminal, nothing elsewhere.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{spinner} {bar:30} {pos}/{len} proxies, {elapsed} {msg}";
    let style = ProgressStyle::with_template(template).expect("a constant template is valid");
    let bar = ProgressBar::new(0).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

#[cfg(test)]
mod tests;
