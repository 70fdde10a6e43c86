//! Rules that a build may break on purpose, to prove that the checkers notice.

use std::str::FromStr;

/// A rule of consensus, or of the ring, to break. Only tests and builds with the feature `sabotage` can: anywhere else nothing is broken, whatever is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// Entries and votes are acknowledged as soon as they are written, and synced some time later.
    AckBeforeFsync,
    /// A leader answers reads from what it knows, without asking whether it still leads.
    ReadWithoutQuorum,
    /// A new leader does not open its term with an empty entry, and takes its commit index for the newest there is.
    SkipNoop,
    /// A proxy answers linearizable reads from its copy, without a fence.
    ReadWithoutFence,
    /// A copy that has lost upstream goes on one revision later than where it was.
    ResumeTooLate,
    /// A proxy answers a renewal with what another one is told that was sent before it.
    ShareOlderRenewal,
}

/// Each with the name that `HENGE_SABOTAGE` knows.
const NAMES: [(&str, Sabotage); 6] = [
    ("ack-before-fsync", Sabotage::AckBeforeFsync),
    ("read-without-quorum", Sabotage::ReadWithoutQuorum),
    ("skip-noop", Sabotage::SkipNoop),
    ("read-without-fence", Sabotage::ReadWithoutFence),
    ("resume-too-late", Sabotage::ResumeTooLate),
    ("share-older-renewal", Sabotage::ShareOlderRenewal),
];

impl Sabotage {
    /// Whether this build can break anything.
    pub const POSSIBLE: bool = cfg!(any(test, feature = "sabotage"));

    /// Whether `chosen` breaks this rule.
    #[inline]
    pub fn is(self, chosen: Option<Sabotage>) -> bool {
        Self::POSSIBLE && chosen == Some(self)
    }
}

impl FromStr for Sabotage {
    type Err = String;

    /// # Errors
    /// In words, with the names that there are.
    fn from_str(name: &str) -> Result<Sabotage, String> {
        let known = NAMES.iter().find(|(known, _)| *known == name).map(|(_, sabotage)| *sabotage);
        known.ok_or_else(|| format!("{name:?} is none of {}", NAMES.map(|(known, _)| known).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_found_by_its_name() {
        assert_eq!("skip-noop".parse(), Ok(Sabotage::SkipNoop));
        let refusal = "skip-everything".parse::<Sabotage>().expect_err("there is no such rule");
        assert!(refusal.contains("ack-before-fsync, read-without-quorum, skip-noop"), "{refusal}");
    }
}
