//! What a member may use, and how much of it anybody may have.

use super::{reader::Reader, value::int};

/// The flags of the group. Of all numbers 0 is "by itself", as the flag says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitFlags {
    /// `memory-budget`, in bytes.
    pub memory_bytes: usize,
    /// `max-range-bytes`: of one answer.
    pub range_bytes_max: usize,
    /// `max-connections`, of each kind of listener.
    pub connections_max: usize,
    /// `max-connections-per-address`.
    pub connections_per_address_max: usize,
    /// `rate-limit-users`: name and requests a second.
    pub users: Vec<(String, u32)>,
    /// `rate-limit-prefixes`: what keys begin with, and requests a second.
    pub prefixes: Vec<(String, u32)>,
}

/// With less nothing could be done.
const MEMORY_BYTES_MIN: i64 = 64 << 20;

impl LimitFlags {
    pub(super) fn of(read: &mut Reader<'_>) -> LimitFlags {
        let memory_bytes = read.value("memory-budget", |text| match int(text) {
            Ok(bytes) if bytes == 0 || bytes >= MEMORY_BYTES_MIN => Ok(bytes as usize),
            _ => Err(format!(
                "{text:?} is no number of bytes of at least {MEMORY_BYTES_MIN}, and not 0 for half of the memory"
            )),
        });
        LimitFlags {
            memory_bytes,
            range_bytes_max: read.int("max-range-bytes", 0, 1 << 32) as usize,
            connections_max: read.int("max-connections", 0, 1 << 24) as usize,
            connections_per_address_max: read.int("max-connections-per-address", 0, 1 << 24) as usize,
            users: read.value("rate-limit-users", rates),
            prefixes: read.value("rate-limit-prefixes", rates),
        }
    }
}

/// Reads `NAME=RATE,…`. What stands before the last `=` is the name, so a name may have one too.
fn rates(text: &str) -> Result<Vec<(String, u32)>, String> {
    let one = |part: &str| {
        let (name, rate) = part.rsplit_once('=').ok_or(format!("{part:?} is not NAME=REQUESTS-A-SECOND"))?;
        match rate.parse::<u32>() {
            Ok(rate @ 1..=1_000_000_000) if !name.is_empty() => Ok((name.to_owned(), rate)),
            _ => Err(format!("{part:?} needs a name, and 1 to 1000000000 requests a second")),
        }
    };
    let all = text.split(',').filter(|part| !part.is_empty()).map(one).collect::<Result<Vec<_>, _>>()?;
    let twice = |name: &str| all.iter().filter(|(other, _)| other == name).count() > 1;
    match all.iter().find(|(name, _)| twice(name)) {
        Some((name, _)) => Err(format!("{name:?} is there twice")),
        None => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_a_name_and_a_number() {
        let expected = vec![("alice".to_owned(), 100), ("a=b".to_owned(), 1), ("*".to_owned(), 7)];
        assert_eq!(rates("alice=100,a=b=1,*=7"), Ok(expected));
        assert_eq!(rates(""), Ok(Vec::new()));
        for wrong in ["alice", "=5", "alice=", "alice=0", "alice=-1", "alice=x", "a=1,b=2,a=3"] {
            assert!(rates(wrong).is_err(), "{wrong:?}");
        }
    }
}
