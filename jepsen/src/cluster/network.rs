//! Hosts of their own: a network namespace for each member and each proxy, tied to one bridge.
//!
//! ```text
//!   this program ── bridge hj<pid>b 10.x.y.1
//!                     ├── hj<pid>v1 ═ eth0 10.x.y.11 in hj<pid>-1
//!                     ├── hj<pid>v2 ═ eth0 10.x.y.12 in hj<pid>-2   each host drops by its own rules what it must not hear
//! ```
//!
//! Rules stand at the receiver, so that a one-way cut is one. This program reaches every host always: clients are not cut off.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fmt::Write as _,
    io::{self, Write},
    process::{Command, Stdio},
};

/// What every name of ours begins with, before the process id.
const PREFIX: &str = "hj";

/// Who cannot hear whom: packets from the first to the second are dropped. Hosts count from 0.
pub type Cuts = BTreeSet<(usize, usize)>;

/// The hosts of one cluster. Dropping it removes them.
#[derive(Debug)]
pub struct Network {
    name: String,
    subnet: String,
    hosts: usize,
}

/// Runs a program, with `input` on its standard input.
///
/// # Errors
/// If it cannot be started or fails; with what it said.
pub fn run_with_input(program: &str, args: &[&str], input: &str) -> io::Result<String> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|cause| io::Error::other(format!("{program}: {cause}")))?;
    // Short texts: they fit the pipe, so writing first and reading later cannot block both.
    child.stdin.take().expect("it is piped").write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{program} {}: {}", args.join(" "), said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(program: &str, args: &[&str]) -> io::Result<String> {
    run_with_input(program, args, "")
}

impl Network {
    /// Makes `hosts` hosts. Leftovers of runs that died are removed first.
    ///
    /// # Errors
    /// If this process may not, or `ip` or `nft` is missing.
    pub fn new(hosts: usize) -> io::Result<Network> {
        remove_leftovers();
        run("nft", &["--version"])?;
        let pid = std::process::id();
        // Runs beside each other take different subnets.
        let taken = run("ip", &["-4", "-o", "addr"])?;
        let subnet = (0..256)
            .map(|at| format!("10.213.{}", (pid + at) % 256))
            .find(|subnet| !taken.contains(&format!(" {subnet}.")))
            .ok_or_else(|| io::Error::other("no free subnet"))?;
        // From here on Drop cleans up what there is, however far this gets.
        let network = Network { name: format!("{PREFIX}{pid}"), subnet, hosts };
        network.build()?;
        Ok(network)
    }

    fn build(&self) -> io::Result<()> {
        let Network { name, subnet, hosts } = self;
        let mut script =
            format!("link add {name}b type bridge\naddr add {subnet}.1/24 dev {name}b\nlink set {name}b up\n");
        for number in 1..=*hosts {
            let host = self.host(number - 1);
            let _ = writeln!(script, "netns add {host}");
            let _ = writeln!(script, "link add {name}v{number} type veth peer name eth0 netns {host}");
            let _ = writeln!(script, "link set {name}v{number} master {name}b up");
        }
        run_with_input("ip", &["-batch", "-"], &script)?;
        for host in 0..*hosts {
            let address = self.address(host);
            let script = format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n");
            run_with_input("ip", &["-netns", &self.host(host), "-batch", "-"], &script)?;
        }
        Ok(())
    }

    fn host(&self, host: usize) -> String {
        format!("{}-{}", self.name, host + 1)
    }

    /// The address of `host`.
    pub fn address(&self, host: usize) -> String {
        format!("{}.{}", self.subnet, host + 11)
    }

    /// What to put before a command line so that it runs on `host`, in the same process.
    pub fn enter(&self, host: usize) -> Vec<OsString> {
        vec!["nsenter".into(), format!("--net=/run/netns/{}", self.host(host)).into(), "--".into()]
    }

    /// Drops exactly `cuts` from now on, and of all else between hosts `loss_percent`.
    ///
    /// # Errors
    /// If `nft` refuses.
    pub fn set(&self, cuts: &Cuts, loss_percent: u8) -> io::Result<()> {
        for host in 0..self.hosts {
            let script = self.rules(host, cuts, loss_percent);
            let enter = format!("--net=/run/netns/{}", self.host(host));
            run_with_input("nsenter", &[&enter, "--", "nft", "-f", "-"], &script)?;
        }
        Ok(())
    }

    /// The rules at `host`, which replace those before in one step.
    fn rules(&self, host: usize, cuts: &Cuts, loss_percent: u8) -> String {
        let mut rules = String::new();
        for from in (0..self.hosts).filter(|from| cuts.contains(&(*from, host))) {
            let _ = writeln!(rules, "ip saddr {} drop", self.address(from));
        }
        if loss_percent > 0 {
            let _ = writeln!(rules, "ip saddr != {}.1 numgen random mod 100 < {loss_percent} drop", self.subnet);
        }
        // Deleting a table that is not there fails, so it is added first.
        format!(
            "add table inet jepsen\ndelete table inet jepsen\ntable inet jepsen {{\nchain heard {{\n\
             type filter hook input priority 0; policy accept;\n{rules}}}\n}}\n"
        )
    }

    /// Limits what `host` sends to `kbit_per_s`; `None` lifts the limit.
    ///
    /// # Errors
    /// If `tc` refuses.
    pub fn limit(&self, host: usize, kbit_per_s: Option<u32>) -> io::Result<()> {
        let host = self.host(host);
        let Some(rate) = kbit_per_s else {
            // Nothing to lift is as good.
            let _ = run("tc", &["-n", &host, "qdisc", "del", "dev", "eth0", "root"]);
            return Ok(());
        };
        let rate = format!("{rate}kbit");
        let limit = ["rate", &rate, "burst", "16kb", "latency", "500ms"];
        let args = ["-n", &host, "qdisc", "replace", "dev", "eth0", "root", "tbf"];
        run("tc", &[&args[..], &limit[..]].concat()).map(drop)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Removes the hosts and the bridge of the run that is called `name`, as far as they are there.
fn remove(name: &str) {
    // A namespace takes its links along, but some time later, and the next run of this process wants the names.
    let links = run("ip", &["-br", "link", "show", "type", "veth"]).unwrap_or_default();
    for link in links.lines().filter_map(|line| line.split('@').next()) {
        if link.strip_prefix(name).is_some_and(|rest| rest.starts_with('v')) {
            let _ = run("ip", &["link", "del", link]);
        }
    }
    let hosts = run("ip", &["netns", "list"]).unwrap_or_default();
    for host in hosts.lines().filter_map(|line| line.split_whitespace().next()) {
        if host.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')) {
            let _ = run("ip", &["netns", "del", host]);
        }
    }
    let _ = run("ip", &["link", "del", &format!("{name}b")]);
}

/// Whether the process of a run still lives.
fn lives(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// The process id in a name of ours.
fn owner(name: &str) -> Option<u32> {
    let digits: String = name.strip_prefix(PREFIX)?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Removes the hosts of runs whose process has died.
fn remove_leftovers() {
    let hosts = run("ip", &["netns", "list"]).unwrap_or_default();
    let links = run("ip", &["-br", "link", "show", "type", "bridge"]).unwrap_or_default();
    let owners: BTreeSet<u32> = hosts.lines().chain(links.lines()).filter_map(owner).collect();
    for pid in owners.into_iter().filter(|pid| !lives(*pid)) {
        remove(&format!("{PREFIX}{pid}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::UdpSocket, os::fd::AsFd, time::Duration};

    #[test]
    fn rules_drop_what_a_host_must_not_hear_and_nothing_of_ours() {
        let network = std::mem::ManuallyDrop::new(Network { name: "hj0".into(), subnet: "10.9.9".into(), hosts: 3 });
        let rules = network.rules(1, &Cuts::from([(0, 1), (1, 2)]), 5);
        assert!(rules.contains("ip saddr 10.9.9.11 drop"), "{rules}");
        assert!(!rules.contains("10.9.9.12") && !rules.contains("10.9.9.13"), "{rules}");
        assert!(rules.contains("ip saddr != 10.9.9.1 numgen random mod 100 < 5 drop"), "{rules}");
    }

    /// Runs `work` on `host`. Only the thread goes there, and ends there.
    fn on<T: Send + 'static>(network: &Network, host: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        let host = std::fs::File::open(format!("/run/netns/{}", network.host(host))).expect("the host is there");
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(host.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("this thread may go there");
            work()
        });
        thread.join().expect("no panic")
    }

    #[test]
    fn hosts_hear_each_other_until_they_are_cut_off_in_one_direction_or_both() {
        let network = match Network::new(2) {
            Ok(network) => network,
            Err(cause) => return eprintln!("skipped: no hosts here: {cause}"),
        };
        let addresses = [0, 1].map(|member| format!("{}:999", network.address(member)));
        let sockets: Vec<UdpSocket> = (0..2)
            .map(|member| {
                let address = addresses[member].clone();
                on(&network, member, move || UdpSocket::bind(address).expect("the address is this host's"))
            })
            .collect();
        let sent = std::cell::Cell::new(0_u8);
        let hears = |from: usize, to: usize| {
            sent.set(sent.get() + 1);
            sockets[to].set_read_timeout(Some(Duration::from_millis(200))).expect("it is not zero");
            sockets[from].send_to(&[sent.get()], &addresses[to]).expect("sending says nothing of arrival");
            let mut heard = [0];
            // What was sent before may come now.
            while sockets[to].recv(&mut heard).is_ok() {
                if heard == [sent.get()] {
                    return true;
                }
            }
            false
        };
        // A link that was made a moment ago may lose what is sent over it.
        let hears_soon = |from: usize, to: usize| (0..20).any(|_| hears(from, to));
        assert!(hears_soon(0, 1) && hears_soon(1, 0));
        network.set(&Cuts::from([(0, 1)]), 0).expect("nft works");
        assert!(!hears(0, 1) && hears_soon(1, 0));
        network.set(&Cuts::from([(0, 1), (1, 0)]), 0).expect("nft works");
        assert!(!hears(0, 1) && !hears(1, 0));
        network.set(&Cuts::new(), 0).expect("nft works");
        network.limit(0, Some(1000)).expect("tc works");
        assert!(hears_soon(0, 1) && hears_soon(1, 0));
    }

    #[test]
    fn a_name_tells_whose_it_is() {
        assert_eq!(owner("hj123-1 (id: 4)"), Some(123));
        assert_eq!(owner("hj77b             UP"), Some(77));
        assert_eq!(owner("docker0"), None);
        assert_eq!(owner("hjx"), None);
    }
}
