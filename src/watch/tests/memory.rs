//! What an idle watcher costs.

use super::*;
use std::fs;

/// Resident bytes of this process.
fn resident() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Other tests in the same process would be counted too: run it alone, with `--ignored`.
#[test]
#[ignore = "measures the whole process"]
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
