//! One server's process: started, paused, killed, started again on the same folder.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, OpenOptions},
    io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// Characters of a log line that are shown.
const LINE_MAX: usize = 300;

/// The process of one server, on its own host if it has one. Dropping it kills the process.
#[derive(Debug)]
pub struct Process {
    /// The server's name.
    pub name: String,
    /// Its program.
    pub program: PathBuf,
    /// Put before the command line: how to get to its host.
    pub enter: Vec<OsString>,
    /// Its folder: `data` (or the disk that is mounted there) and the log.
    pub folder: PathBuf,
    /// The process, if it runs.
    pub child: Option<Child>,
}

impl Process {
    /// Where its data is.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts it with `args`. It does not answer at once.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start<S: AsRef<OsStr>>(&mut self, args: impl IntoIterator<Item = S>) -> io::Result<()> {
        assert!(self.child.is_none(), "{} was started twice", self.name);
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        // The kernel ends the server when this program ends, however that happens.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(&self.enter).arg(&self.program).args(args);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        fs::create_dir_all(self.data())?;
        self.child = Some(command.spawn()?);
        Ok(())
    }

    /// Where what it prints goes.
    pub fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// Ends it with SIGKILL, in the middle of whatever it does, and waits for the end. Returns how it had ended by itself, if it had.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> io::Result<Option<ExitStatus>> {
        let Some(mut child) = self.child.take() else { return Ok(None) };
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        child.kill()?;
        child.wait()?;
        Ok(None)
    }

    /// Asks it to end (SIGTERM), and kills it if it has not after `limit`. Returns what was wrong with its end, in words.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn stop(&mut self, limit: Duration) -> io::Result<Option<String>> {
        use rustix::process::{Pid, Signal, kill_process};
        let Some(mut child) = self.child.take() else { return Ok(None) };
        kill_process(Pid::from_child(&child), Signal::TERM)?;
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = child.try_wait()? {
                let wrong = format!("{} was asked to end, and ended with {status}", self.name);
                // A program that does not handle the signal ends by it.
                return Ok((!status.success() && status.signal().is_none()).then_some(wrong));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        child.kill()?;
        child.wait()?;
        Ok(Some(format!("{} did not end within {} s and was killed", self.name, limit.as_secs())))
    }

    /// How it ended, if it ended by itself; it can then be started again.
    pub fn take_end(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(status)
    }

    /// Stops it for a while (`true`), or lets it go on.
    ///
    /// # Errors
    /// If it has ended.
    pub fn pause(&self, pause: bool) -> io::Result<()> {
        use rustix::process::{Pid, Signal, kill_process};
        let Some(child) = &self.child else { return Err(io::Error::other(format!("{} does not run", self.name))) };
        let signal = if pause { Signal::STOP } else { Signal::CONT };
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Why it ended, as far as its log tells: where its last cry begins, or its last lines.
    pub fn last_words(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(16 << 10)..]).into_owned();
        let all: Vec<String> = text.lines().map(|line| line.chars().take(LINE_MAX).collect()).collect();
        let cry = ["panic: ", "panicked at", "fatal error: ", "\"fatal\"", "unexpected fault address"];
        let cries = |line: &String| cry.iter().any(|mark| line.contains(mark));
        // What this start printed comes after what earlier ones did, and a cry is followed by a stack.
        let from = all.iter().rposition(cries).unwrap_or(all.len().saturating_sub(2));
        all[from..all.len().min(from + 2)].join("\n").trim_end().to_string()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(cause) = self.kill() {
            eprintln!("jepsen: {} may still run: {cause}", self.name);
        }
    }
}
