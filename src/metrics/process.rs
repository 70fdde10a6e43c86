//! What the system knows of this process.

use super::{Source, Text};
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};
use std::fs;

/// Ticks of `/proc` in a second: the same on all machines that Linux runs on.
const TICKS_PER_S: f64 = 100.0;

/// This process: its memory, processor time and files. Where there is no `/proc`, some of it is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Process;

impl Source for Process {
    fn write(&self, text: &mut Text) {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu_s = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        text.counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", cpu_s);
        let files_max = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        text.gauge("process_max_fds", "Maximum number of open file descriptors.", files_max);
        text.gauge("os_fd_limit", "The file descriptor limit.", files_max);
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // The one by which they are read is none of them.
            let files = files.count().saturating_sub(1);
            text.gauge("process_open_fds", "Number of open file descriptors.", files);
            text.gauge("os_fd_used", "The number of used file descriptors.", files);
        }
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(bytes) = bytes(&status, "VmRSS:") {
            text.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", bytes);
        }
        if let Some(bytes) = bytes(&status, "VmSize:") {
            text.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", bytes);
        }
        let memory_max = getrlimit(Resource::As).current.unwrap_or(u64::MAX);
        let help = "Maximum amount of virtual memory available in bytes.";
        text.gauge("process_virtual_memory_max_bytes", help, memory_max);
        if let Some(started_s) = started_s() {
            let help = "Start time of the process since unix epoch in seconds.";
            text.gauge("process_start_time_seconds", help, started_s);
        }
        if let Some(threads) = field(&status, "Threads:") {
            text.gauge("henge_process_threads", "Threads of the process.", threads);
        }
    }
}

/// A number of `/proc/self/status`.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// One that is given in units of 1024 bytes.
fn bytes(status: &str, name: &str) -> Option<u64> {
    Some(field(status, name)? * 1024)
}

/// When the process began, since 1970.
fn started_s() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything, this is the 20th field.
    let ticks = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse::<f64>().ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted_s = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()?;
    Some(booted_s + ticks / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;
    use std::time::SystemTime;

    #[test]
    fn the_system_says_what_is_so() {
        let registry = Registry::default();
        registry.add(Process);
        let text = registry.text();
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} in\n{text}")).parse::<f64>().unwrap()
        };
        let now_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let age_s = now_s - value("process_start_time_seconds");
        assert!((-1.0..100_000.0).contains(&age_s), "{age_s} seconds old");
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!((1.0..=value("process_max_fds")).contains(&value("process_open_fds")));
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!(value("henge_process_threads") >= 1.0);
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        assert_eq!(bytes("Name:\thenge\nVmRSS:\t    12 kB\n", "VmRSS:"), Some(12 * 1024));
        assert_eq!(bytes("Name:\thenge\n", "VmRSS:"), None);
        assert_eq!(field("Threads: x", "Threads:"), None);
    }
}
