//! What an idle watcher costs, and one that does not read.

use super::*;
use std::fs;

/// Resident bytes of this process.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Other tests in the same process would be counted too: run it alone, with `--ignored`.
#[test]
#[ignore = "measures the whole process: run it alone"]
fn an_idle_watcher_of_its_own_key_takes_less_than_400_bytes() {
    const WATCHERS: usize = 400_000;
    let world = world();
    let mut client = world.open();
    let before = resident();
    for number in 0..WATCHERS {
        client.create(spec(&format!("/registry/pods/default/{number:08}"), ""));
        if number % 1_000 == 0 {
            client.replies();
        }
    }
    client.replies();
    let each = (resident() - before) / WATCHERS;
    println!("{each} bytes for each of {WATCHERS} watchers");
    assert!(each < 400, "{each} bytes");
}

/// What the store keeps of so many writes is in the measure too, so it is taken twice.
fn grown_by_writes(world: &mut World, writes: usize) -> usize {
    let (before, value) = (resident(), "x".repeat(20_000));
    for _ in 0..writes {
        world.put("a", &value);
    }
    resident() - before
}

/// As above.
#[test]
#[ignore = "measures the whole process: run it alone"]
fn a_thousand_watchers_of_a_stream_that_nobody_reads_take_a_bounded_part_of_what_is_written() {
    const WRITES: usize = 3_000;
    let mut world = world();
    let alone = grown_by_writes(&mut world, WRITES);
    let mut client = world.open();
    for _ in 0..1_000 {
        client.create(spec("a", ""));
    }
    client.replies();
    let watched = grown_by_writes(&mut world, WRITES);
    println!("{alone} bytes without watchers, {watched} with them, {} held", world.hub.held_bytes());
    assert_eq!(world.hub.counts().behind, 1_000);
    // Queues grow by doubling, so the bound may be there nearly twice.
    assert!(watched.saturating_sub(alone) < 3 * Options::default().stream_bytes_max);

    // It reads a little now and then, while writing goes on: history must not gather either.
    let before = resident();
    for _ in 0..2_000 {
        match client.poll() {
            Poll::Ready(Turn::Deliver(_)) | Poll::Pending => {}
            Poll::Ready(Turn::Read(job)) => client.caught(job.run()),
        }
    }
    let grown = resident().saturating_sub(before);
    println!("{grown} bytes more while it reads");
    assert!(grown < 4 * Options::default().stream_bytes_max);
}
