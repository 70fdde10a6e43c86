//! Versions that a cluster may be downgraded to.
//!
//! henge has no older version of its store to go back to, so a downgrade changes nothing but what `Status` tells. The calls are there
//! for tools that ask before they downgrade, and their rules are etcd's.

use crate::{machine::Command, types::Error};

/// What somebody wants to do about a downgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Downgrade {
    /// Say whether the cluster could be downgraded to this version.
    Validate(String),
    /// Begin to.
    Enable(String),
    /// Stop it.
    Cancel,
}

/// The version that a text means, as `3.6.0`: the patch level is left out, and may be missing in the text.
///
/// # Errors
/// [`Error::WrongDowngradeVersionFormat`]
pub fn target(text: &str) -> Result<String, Error> {
    let numbers = text.split('.').map(|part| part.parse::<u16>());
    match numbers.collect::<Result<Vec<_>, _>>().as_deref() {
        Ok([major, minor] | [major, minor, _]) => Ok(format!("{major}.{minor}.0")),
        _ => Err(Error::WrongDowngradeVersionFormat),
    }
}

/// Whether a cluster that speaks `current`, and is on its way down to `running` if that is a version, may go to `target`: only the minor
/// version before, and only one at a time.
///
/// # Errors
/// [`Error::InvalidDowngradeTargetVersion`], [`Error::DowngradeInProcess`], [`Error::ClusterVersionUnavailable`]
pub fn validate(current: Option<&str>, running: Option<&str>, target: &str) -> Result<(), Error> {
    let current = current.ok_or(Error::ClusterVersionUnavailable)?;
    let numbers = current.split('.').map_while(|part| part.parse::<u16>().ok()).collect::<Vec<_>>();
    let before = match numbers[..] {
        [major, minor, ..] if minor > 0 => format!("{major}.{}.0", minor - 1),
        _ => return Err(Error::InvalidDowngradeTargetVersion),
    };
    if target != before {
        return Err(Error::InvalidDowngradeTargetVersion);
    }
    if running.is_some() { Err(Error::DowngradeInProcess) } else { Ok(()) }
}

/// What has to be replicated for `what`, if anything; `current` and `running` as in [`validate`].
///
/// # Errors
/// Those of [`validate`]. To stop what is not running is no error, as in etcd v3.7.1 (which has a text for it that it never sends).
pub fn command(what: Downgrade, current: Option<&str>, running: Option<&str>) -> Result<Option<Command>, Error> {
    match what {
        Downgrade::Validate(target) => validate(current, running, &target).map(|()| None),
        Downgrade::Enable(version) => {
            validate(current, running, &version)?;
            Ok(Some(Command::DowngradeInfo { enabled: true, version }))
        }
        Downgrade::Cancel => Ok(running.map(|_| Command::DowngradeInfo { enabled: false, version: String::new() })),
    }
}

/// A cluster's version as the replies have it: `3.7` for `3.7.0`.
pub fn spoken(version: Option<String>) -> String {
    let version = version.unwrap_or_default();
    version.strip_suffix(".0").map_or(version.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_two_numbers_or_three() {
        assert_eq!(target("3.6"), Ok("3.6.0".to_owned()));
        assert_eq!(target("3.6.9"), Ok("3.6.0".to_owned()));
        for wrong in ["", "3", "three.six", "3.6.1.2", "v3.6"] {
            assert_eq!(target(wrong), Err(Error::WrongDowngradeVersionFormat), "{wrong:?}");
        }
    }

    #[test]
    fn the_way_down_has_one_step_at_a_time() {
        let current = Some("3.7.0");
        assert_eq!(validate(current, None, "3.6.0"), Ok(()));
        for wrong in ["3.7.0", "3.8.0", "3.5.0", "2.6.0"] {
            assert_eq!(validate(current, None, wrong), Err(Error::InvalidDowngradeTargetVersion), "{wrong}");
        }
        assert_eq!(validate(current, Some("3.6.0"), "3.6.0"), Err(Error::DowngradeInProcess));
        assert_eq!(validate(None, None, "3.6.0"), Err(Error::ClusterVersionUnavailable));
    }
}
