//! The proxies between clients and members: tiers of them, each proxy on a host of its own.
//!
//! ```text
//!   members ◀── p1.1 p1.2 ◀── p2.1 p2.2 ◀── clients      each proxy knows all of the tier before it
//! ```
//!
//! Every proxy keeps its copies on disk as well, so that what it does when it starts without its upstream can be seen.

use super::process::Process;
use std::{ffi::OsString, fmt, fs, io, path::PathBuf};

/// Which proxies to put before a cluster.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Their program, which takes `henge proxy`'s flags.
    pub program: PathBuf,
    /// Proxies in each tier; 0: no proxies at all.
    pub proxies: usize,
    /// How many tiers.
    pub tiers: usize,
    /// What they copy.
    pub copies: Copies,
    /// Flags besides those that make the ring.
    pub extra: Vec<String>,
    /// Clients talk to members, and to the tiers between, as well as to the last tier.
    pub is_mixed: bool,
}

impl Ring {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.proxies * self.tiers
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.proxies, self.tiers) {
            (0, _) | (_, 0) => f.write_str("no proxies"),
            (proxies, 1) => write!(f, "{proxies} proxies"),
            (proxies, tiers) => write!(f, "{tiers} tiers of {proxies} proxies"),
        }
    }
}

/// What proxies keep copies of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Copies {
    /// All keys, always.
    All,
    /// What is asked for often, while it is.
    Auto,
    /// The first proxy of a tier all keys, the next what is asked for often, and so on.
    Both,
}

impl Copies {
    /// The flags of the proxy that comes `at`th in its tier.
    fn flags(self, at: usize) -> &'static [&'static str] {
        match self {
            Copies::All => &["--cache-prefix=", "--cache-auto=false"],
            Copies::Auto => &["--cache-auto=true"],
            Copies::Both if at.is_multiple_of(2) => Copies::All.flags(at),
            Copies::Both => Copies::Auto.flags(at),
        }
    }
}

/// A proxy. Dropping it kills its process.
#[derive(Debug)]
pub struct Proxy {
    /// Its process.
    pub process: Process,
    /// Where clients find it.
    pub url: String,
    /// Its tier; the one before the members is 0.
    pub tier: usize,
    flags: Vec<OsString>,
}

impl Proxy {
    /// The proxy that comes `at`th in `tier` of `ring`; `upstream` are the URLs of what stands behind it. Not started yet.
    pub fn new(ring: &Ring, process: Process, url: String, (tier, at): (usize, usize), upstream: &[String]) -> Proxy {
        let mut flags = vec![OsString::from("proxy"), "--name".into(), process.name.clone().into()];
        flags.extend(["--endpoints".into(), upstream.join(",").into()]);
        flags.extend(["--listen-client-urls".into(), url.clone().into()]);
        flags.extend(["--data-dir".into(), process.data().into()]);
        flags.extend(ring.copies.flags(at).iter().map(OsString::from));
        flags.extend(ring.extra.iter().map(OsString::from));
        Proxy { process, url, tier, flags }
    }

    /// Starts it. It does not answer at once.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(&mut self) -> io::Result<()> {
        self.process.start(&self.flags)
    }

    /// Removes all that it keeps on disk. It must not run.
    ///
    /// # Errors
    /// If that cannot be removed.
    pub fn wipe(&self) -> io::Result<()> {
        assert!(self.process.child.is_none(), "{} still writes there", self.process.name);
        match fs::remove_dir_all(self.process.data()) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(proxies: usize, tiers: usize, copies: Copies) -> Ring {
        Ring { program: "henge".into(), proxies, tiers, copies, extra: vec!["--cache-bytes=9".into()], is_mixed: false }
    }

    fn flags(copies: Copies, at: usize) -> Vec<String> {
        let (name, program, folder) = ("p1.1".into(), "henge".into(), "/runs/p1.1".into());
        let process = Process { name, program, enter: Vec::new(), folder, child: None };
        let upstream = ["http://a:1".to_string(), "http://b:2".to_string()];
        let proxy = Proxy::new(&ring(2, 1, copies), process, "http://c:3".into(), (0, at), &upstream);
        proxy.flags.iter().map(|flag| flag.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_proxy_knows_all_that_stands_behind_it_and_where_its_copies_are() {
        let flags = flags(Copies::All, 0).join(" ");
        for part in ["proxy --name p1.1", "--endpoints http://a:1,http://b:2", "--listen-client-urls http://c:3"] {
            assert!(flags.contains(part), "{part} is missing in {flags}");
        }
        assert!(flags.ends_with("--data-dir /runs/p1.1/data --cache-prefix= --cache-auto=false --cache-bytes=9"));
    }

    #[test]
    fn neighbours_may_copy_different_things() {
        let all = |at| flags(Copies::Both, at).contains(&"--cache-prefix=".to_string());
        assert_eq!([0, 1, 2].map(all), [true, false, true]);
    }

    #[test]
    fn a_ring_says_how_large_it_is() {
        let says = |proxies, tiers| ring(proxies, tiers, Copies::All).to_string();
        assert_eq!([says(0, 2), says(3, 1), says(2, 2)], ["no proxies", "3 proxies", "2 tiers of 2 proxies"]);
        assert!(ring(0, 2, Copies::All).is_empty() && ring(2, 2, Copies::All).len() == 4);
    }
}
