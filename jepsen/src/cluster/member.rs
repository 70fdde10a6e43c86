//! One member: a process with etcd's flags, on the same data and addresses whenever it starts.

use super::process::Process;
use std::{ffi::OsString, io};

/// What a start says about the cluster.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// `name=peer-url`, with commas between.
    pub cluster: String,
    /// Whether the cluster is there already: `existing`, else `new`.
    pub exists: bool,
    /// Tells clusters apart.
    pub token: String,
}

/// A member. Dropping it kills its process.
#[derive(Debug)]
pub struct Member {
    /// Its process.
    pub process: Process,
    /// Put after its command line.
    pub extra: Vec<String>,
    /// Where clients find it.
    pub client_url: String,
    /// Where other members find it.
    pub peer_url: String,
}

impl Member {
    /// Starts it, with etcd's flags. It does not answer at once.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(&mut self, bootstrap: &Bootstrap) -> io::Result<()> {
        // Not the root of a mounted disk: a data directory must be replaceable.
        let data = self.process.data().join("member");
        let state = if bootstrap.exists { "existing" } else { "new" };
        let (client, peer) = (&self.client_url, &self.peer_url);
        let flags: [(&str, OsString); 9] = [
            ("--name", self.process.name.clone().into()),
            ("--data-dir", data.into()),
            ("--listen-client-urls", client.into()),
            ("--advertise-client-urls", client.into()),
            ("--listen-peer-urls", peer.into()),
            ("--initial-advertise-peer-urls", peer.into()),
            ("--initial-cluster", bootstrap.cluster.clone().into()),
            ("--initial-cluster-token", bootstrap.token.clone().into()),
            ("--initial-cluster-state", state.into()),
        ];
        let flags = flags.into_iter().flat_map(|(flag, value)| [flag.into(), value]);
        self.process.start(flags.chain(self.extra.iter().map(OsString::from)))
    }
}
