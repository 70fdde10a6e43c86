//! The name that this program was called by: its own, or that of a tool of etcd's which it stands in for.

use std::{ffi::OsStr, path::Path};

/// The version of etcd that `etcdctl version` and `etcdutl version` claim, since scripts compare it.
const ETCD_VERSION: &str = "3.7.1";
/// The version of etcd's API that this program follows.
const API_VERSION: &str = "3.7";

/// Who we are to whoever called. It decides which commands there are (`etcdutl` has its own), and how strict we are about variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    Hengectl,
    Etcdctl,
    Etcdutl,
}

impl Name {
    /// By the first word of the command line.
    pub fn called() -> Name {
        std::env::args_os().next().map_or(Name::Hengectl, |word| Name::of(&word))
    }

    fn of(word: &OsStr) -> Name {
        match Path::new(word).file_name().and_then(OsStr::to_str) {
            Some("etcdctl") => Name::Etcdctl,
            Some("etcdutl") => Name::Etcdutl,
            _ => Name::Hengectl,
        }
    }

    pub fn text(self) -> &'static str {
        match self {
            Name::Hengectl => "hengectl",
            Name::Etcdctl => "etcdctl",
            Name::Etcdutl => "etcdutl",
        }
    }

    /// What `version` prints.
    pub fn version(self) -> String {
        let version = if self == Name::Hengectl { env!("CARGO_PKG_VERSION") } else { ETCD_VERSION };
        format!("{} version: {version}\nAPI version: {API_VERSION}\n", self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_decides_and_its_folder_does_not_matter() {
        let of = |word: &str| Name::of(OsStr::new(word));
        assert_eq!(of("/usr/local/bin/etcdctl"), Name::Etcdctl);
        assert_eq!(of("etcdutl"), Name::Etcdutl);
        for own in ["hengectl", "/etcdctl/hengectl", "", "etcdctl-3.7"] {
            assert_eq!(of(own), Name::Hengectl, "{own}");
        }
    }

    #[cfg(feature = "server")]
    #[test]
    fn the_version_is_the_one_that_members_claim() {
        assert_eq!(ETCD_VERSION, crate::config::ETCD_VERSION);
        assert_eq!(Name::Etcdctl.version(), "etcdctl version: 3.7.1\nAPI version: 3.7\n");
    }
}
