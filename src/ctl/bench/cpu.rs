//! What servers on this machine spent, from `/proc`.

use std::time::Duration;

/// User and system time of these processes so far. `None` if one cannot be read: a sum without it would mislead.
pub fn spent(pids: &[u32]) -> Option<Duration> {
    if pids.is_empty() {
        return None;
    }
    pids.iter().map(|pid| of_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).sum()
}

/// From one `stat` line. The program's name may hold blanks and brackets, so fields count from the last one.
fn of_stat(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    // USER_HZ is 100 on every Linux that programs meet.
    Some(Duration::from_millis((user + system) * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_gives_user_and_system_time() {
        let line = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 100";
        assert_eq!(of_stat(line), Some(Duration::from_secs(2)));
        assert_eq!(of_stat("7 (x) S 1"), None);
        assert!(spent(&[std::process::id()]).is_some());
        assert_eq!(spent(&[]), None);
    }
}
