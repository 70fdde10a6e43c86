//! What came of it: medians, as a table for people and as JSON for programs.

use super::{
    measure::Figure,
    rows::Row,
    servers::{Product, Programs},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::Path,
    process::Command,
};

/// Who was measured: product and number of members.
pub type Who = (Product, usize);

/// Medians of one row on one server.
#[derive(Clone, Copy, Debug)]
pub struct Median {
    pub per_second: f64,
    pub cpu_us: f64,
    pub p50: f64,
    pub p99: f64,
}

pub struct Report {
    pub rows: Vec<Row>,
    pub figures: Vec<Figure>,
    pub medians: BTreeMap<(&'static str, Who), Median>,
    machine: String,
    versions: Vec<String>,
}

impl Report {
    pub fn new(programs: &Programs, rows: &[&Row], figures: Vec<Figure>) -> Report {
        let mut runs: BTreeMap<(&'static str, Who), Vec<&Figure>> = BTreeMap::new();
        for figure in &figures {
            runs.entry((figure.row, (figure.product, figure.members))).or_default().push(figure);
        }
        let medians = runs.into_iter().map(|(key, runs)| {
            let of = |value: fn(&Figure) -> f64| median(runs.iter().map(|run| value(run)).collect());
            let median = Median {
                per_second: of(|run| run.per_second),
                cpu_us: of(|run| run.cpu_us),
                p50: of(|run| run.p50),
                p99: of(|run| run.p99),
            };
            (key, median)
        });
        let medians = medians.collect();
        let versions = [Some(&programs.henge), programs.etcd.as_ref()].into_iter().flatten();
        Report {
            rows: rows.iter().map(|row| **row).collect(),
            figures,
            medians,
            machine: machine(),
            versions: versions.filter_map(|program| version(program)).collect(),
        }
    }

    /// Everybody but the limits.
    pub fn contestants(&self) -> Vec<Who> {
        let mut all: Vec<Who> = self.medians.keys().map(|(_, who)| *who).collect();
        all.retain(|(product, _)| !product.is_limit());
        all.sort_by_key(|(product, members)| (*members, *product));
        all.dedup();
        all
    }

    /// Over how many servers that do nothing the loads were spread, beside one: what it costs that there are so many.
    fn spread(&self) -> Vec<usize> {
        let limits = self.medians.keys().map(|(_, who)| *who).filter(|(product, _)| product.is_limit());
        let sizes: BTreeSet<usize> = limits.map(|(_, servers)| servers).filter(|servers| *servers > 1).collect();
        sizes.into_iter().collect()
    }

    /// The table: for each row what the limit takes, and what each server takes, as a multiple of it.
    pub fn markdown(&self) -> String {
        let (who, spread) = (self.contestants(), self.spread());
        let mut text = format!("{}\n\n{}\n\n", self.machine, self.versions.join("; "));
        let _ = write!(text, "| workload | limit: ops/s, µs |");
        for servers in &spread {
            let _ = write!(text, " limit × {servers}: ops/s, µs (× limit) |");
        }
        for (product, members) in &who {
            let _ = write!(text, " {}: ops/s, µs (× limit), p99 ms |", named(*product, *members));
        }
        let _ = writeln!(text, "\n|{}", " --- |".repeat(who.len() + spread.len() + 2));
        for row in &self.rows {
            let Some(limit) = self.medians.get(&(row.id, (row.limit, 1))) else { continue };
            let _ = write!(text, "| {} | {:.0}, {:.1} |", row.title, limit.per_second, limit.cpu_us);
            for servers in &spread {
                match self.medians.get(&(row.id, (row.limit, *servers))) {
                    Some(found) => {
                        let times = found.cpu_us / limit.cpu_us.max(f64::EPSILON);
                        let _ = write!(text, " {:.0}, {:.1} ({times:.2}) |", found.per_second, found.cpu_us);
                    }
                    None => text.push_str(" - |"),
                }
            }
            for contestant in &who {
                match self.medians.get(&(row.id, *contestant)) {
                    Some(found) => {
                        let times = found.cpu_us / limit.cpu_us.max(f64::EPSILON);
                        let bar = bar(row, *contestant).map_or(String::new(), |bar| format!(", bar {bar}"));
                        let _ = write!(
                            text,
                            " {:.0}, {:.1} ({times:.2}{bar}), {:.2} |",
                            found.per_second, found.cpu_us, found.p99
                        );
                    }
                    None => text.push_str(" - |"),
                }
            }
            text.push('\n');
        }
        text
    }

    /// Writes `report.md` and `report.json`.
    pub fn write(&self, folder: &Path) -> Result<(), String> {
        let json = serde_json::json!({ "machine": self.machine, "versions": self.versions, "runs": self.figures });
        for (name, text) in [("report.md", self.markdown()), ("report.json", format!("{json:#}\n"))] {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        Ok(())
    }
}

pub fn named(product: Product, members: usize) -> String {
    if members == 1 { product.name().to_owned() } else { format!("{} × {members}", product.name()) }
}

fn bar(row: &Row, (product, members): Who) -> Option<f64> {
    match (product, members) {
        (Product::Henge, 1) => row.bars[0],
        (Product::Henge, 3) => row.bars[1],
        _ => None,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(values[even / 2 - 1], values[even / 2]),
        odd => values[odd / 2],
    }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let after_colon = |line: &str| line.split_once(':').map(|(_, rest)| rest.trim().to_owned());
    let model = cpus.lines().find(|line| line.starts_with("model name")).and_then(after_colon);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = memory.lines().find(|line| line.starts_with("MemTotal")).and_then(after_colon);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{count} cores ({}), {} of memory, Linux {}.",
        model.unwrap_or_else(|| "unknown".to_owned()),
        memory.unwrap_or_else(|| "unknown".to_owned()),
        kernel.trim()
    )
}

fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next()?.to_owned())
}
