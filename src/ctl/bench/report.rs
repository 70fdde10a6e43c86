//! What a load's outcome looks like.

use super::{Outcome, Shape};
use crate::ctl::{failure::Failure, output::Format};
use std::fmt::Write as _;

const PERCENTILES: [f64; 7] = [50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99];

/// Prints it; a load in which nothing succeeded is a failure.
pub fn print(name: &str, shape: &Shape, outcome: &Outcome, format: Format) -> Result<(), Failure> {
    let text = if format == Format::Json { json(name, shape, outcome) } else { simple(name, shape, outcome) };
    print!("{text}");
    if outcome.latency_us.is_empty() { Err(Failure::error("no operation succeeded")) } else { Ok(()) }
}

/// Operations per second.
pub fn throughput(outcome: &Outcome) -> f64 {
    outcome.latency_us.len() as f64 / outcome.took.as_secs_f64().max(1e-9)
}

/// The servers' CPU time for one operation, in microseconds.
fn cpu_us(outcome: &Outcome) -> Option<f64> {
    Some(outcome.cpu?.as_secs_f64() * 1e6 / outcome.latency_us.len().max(1) as f64)
}

fn simple(name: &str, shape: &Shape, outcome: &Outcome) -> String {
    let ms = |us: f64| us / 1000.0;
    let latency = &outcome.latency_us;
    let mut text = String::new();
    let _ = writeln!(text, "{name}: {} clients on {} connections", shape.clients, shape.conns);
    let seconds = outcome.took.as_secs_f64();
    let _ = writeln!(text, "  {} operations in {seconds:.2} s: {:.0}/s", latency.len(), throughput(outcome));
    let _ = writeln!(
        text,
        "  latency in ms: mean {:.3}, min {:.3}, max {:.3}, standard deviation {:.3}",
        ms(latency.mean()),
        ms(latency.min() as f64),
        ms(latency.max() as f64),
        ms(latency.stdev())
    );
    for percentile in PERCENTILES {
        let _ = writeln!(text, "  p{percentile:<6} {:>10.3} ms", ms(latency.value_at_percentile(percentile) as f64));
    }
    if let Some(cpu) = cpu_us(outcome) {
        let _ = writeln!(text, "  server CPU: {cpu:.1} µs per operation");
    }
    for (error, times) in &outcome.errors {
        let _ = writeln!(text, "  {times} times: {error}");
    }
    text
}

fn json(name: &str, shape: &Shape, outcome: &Outcome) -> String {
    let latency = &outcome.latency_us;
    let percentiles: serde_json::Map<String, serde_json::Value> =
        PERCENTILES.iter().map(|p| (format!("p{p}"), latency.value_at_percentile(*p).into())).collect();
    let value = serde_json::json!({
        "bench": name,
        "clients": shape.clients,
        "conns": shape.conns,
        "rate": shape.rate,
        "key_size": shape.key_size,
        "val_size": shape.val_size,
        "key_space": shape.key_space,
        "operations": latency.len(),
        "errors": outcome.errors,
        "seconds": outcome.took.as_secs_f64(),
        "per_second": throughput(outcome),
        "latency_us": {
            "mean": latency.mean(),
            "min": latency.min(),
            "max": latency.max(),
            "stdev": latency.stdev(),
            "percentiles": percentiles,
        },
        "server_cpu_us_per_operation": cpu_us(outcome),
    });
    format!("{value}\n")
}
