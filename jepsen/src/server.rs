//! The server's process: started, killed, started again on the same directory and ports.

use std::{
    fs::{File, OpenOptions},
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::{Child, Command};

/// A server that is one member. It dies with this program.
#[derive(Debug)]
pub struct Server {
    program: PathBuf,
    directory: PathBuf,
    client_port: u16,
    peer_port: u16,
    child: Option<Child>,
}

/// Ports from below the range that the system hands to clients: while the server is down, a client that connects to a port
/// of that range could meet itself there.
fn free_port(from: u16) -> io::Result<u16> {
    (from..from + 2000)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| io::Error::other("found no free port"))
}

impl Server {
    /// A server of `program` that keeps its data and its log in `directory`. Not started yet.
    ///
    /// # Errors
    /// If there is no free port.
    pub fn new(program: &Path, directory: &Path) -> io::Result<Server> {
        // Runs beside each other look for ports in different places.
        let base = 20_000 + (std::process::id() % 5000) as u16;
        let client_port = free_port(base)?;
        let peer_port = free_port(client_port + 1)?;
        let (program, directory) = (program.to_path_buf(), directory.to_path_buf());
        Ok(Server { program, directory, client_port, peer_port, child: None })
    }

    /// Where clients find it.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// Starts it, with etcd's flags. It does not answer at once.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(&mut self) -> io::Result<()> {
        assert!(self.child.is_none(), "the server was started twice");
        let (client, peer) = (self.address(), format!("http://127.0.0.1:{}", self.peer_port));
        let log: File = OpenOptions::new().create(true).append(true).open(self.directory.join("server.log"))?;
        let child = Command::new(&self.program)
            .args(["--name", "jepsen"])
            .arg("--data-dir")
            .arg(self.directory.join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("jepsen={peer}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Ends it with SIGKILL, in the middle of whatever it does, and waits for the end.
    ///
    /// # Errors
    /// If it had ended before by itself: that is a finding, not part of the plan.
    pub async fn kill(&mut self) -> io::Result<()> {
        let mut child = self.child.take().expect("the server was killed before it was started");
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("the server ended by itself: {status}")));
        }
        child.kill().await?;
        Ok(())
    }
}
