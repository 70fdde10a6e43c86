//! Prometheus' text format 0.0.4, as etcd's servers write it.
//!
//! Not OpenMetrics, which most libraries write: there every counter ends in `_total`, and some of etcd's do not
//! (`etcd_server_health_success`).

use super::Histogram;
use std::fmt::Write;

/// What the header of such a text says.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the process ends.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by bucket.
    Histogram,
}

/// Something that can be shown.
pub trait Number {
    /// As Prometheus has it.
    fn value(self) -> f64;
}

macro_rules! numbers {
    ($($kind:ty)*) => {
        $(impl Number for $kind {
            fn value(self) -> f64 {
                self as f64
            }
        })*
    };
}
numbers!(u64 i64 u32 usize f64);

impl Number for bool {
    fn value(self) -> f64 {
        f64::from(u8::from(self))
    }
}

impl Number for &std::sync::atomic::AtomicU64 {
    fn value(self) -> f64 {
        self.load(std::sync::atomic::Ordering::Relaxed) as f64
    }
}

/// A text under way: names with their numbers.
#[derive(Debug, Default)]
pub struct Text {
    families: Vec<(&'static str, String)>,
}

impl Text {
    /// Adds a number without labels that goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &str, number: impl Number) {
        self.family(name, Kind::Gauge, help).sample(&[], number);
    }

    /// Adds a number without labels that only grows.
    pub fn counter(&mut self, name: &'static str, help: &str, number: impl Number) {
        self.family(name, Kind::Counter, help).sample(&[], number);
    }

    /// Adds counts by bucket without labels.
    pub fn histogram(&mut self, name: &'static str, help: &str, histogram: &Histogram) {
        self.family(name, Kind::Histogram, help).histogram(&[], histogram);
    }

    /// Adds a name for several numbers with labels. Without any it is left out, as etcd does.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.families.push((name, String::new()));
        let text = &mut self.families.last_mut().expect("pushed just now").1;
        let head = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { name, head: Some(head), text }
    }

    /// The text, sorted by name.
    pub(super) fn finish(mut self) -> String {
        self.families.sort_by_key(|(name, _)| *name);
        self.families.into_iter().map(|(_, text)| text).collect()
    }
}

/// A name under way.
#[derive(Debug)]
pub struct Family<'a> {
    name: &'static str,
    /// Until there is a first number.
    head: Option<String>,
    text: &'a mut String,
}

impl Family<'_> {
    /// Adds a number.
    pub fn sample(&mut self, labels: &[(&str, &str)], number: impl Number) {
        self.line("", labels, None, number.value());
    }

    /// Adds counts by bucket.
    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let read = histogram.read();
        for (bound, count) in read.buckets {
            self.line("_bucket", labels, Some(&spelled(bound)), count.value());
        }
        self.line("_bucket", labels, Some("+Inf"), read.count.value());
        self.line("_sum", labels, None, read.sum);
        self.line("_count", labels, None, read.count.value());
    }

    fn line(&mut self, end: &str, labels: &[(&str, &str)], bound: Option<&str>, value: f64) {
        let text = &mut *self.text;
        text.push_str(&self.head.take().unwrap_or_default());
        text.push_str(self.name);
        text.push_str(end);
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut opened = '{';
        for (label, value) in all {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(text, "{opened}{label}=\"{value}\"").expect("a String takes all that is written");
            opened = ',';
        }
        if opened == ',' {
            text.push('}');
        }
        text.push(' ');
        text.push_str(&spelled(value));
        text.push('\n');
    }
}

/// As Go spells it: with an exponent from a million on, and below a ten-thousandth. A bound of a bucket is a label, so its spelling counts.
fn spelled(number: f64) -> String {
    if !number.is_finite() {
        return match number {
            f64::INFINITY => "+Inf".to_owned(),
            f64::NEG_INFINITY => "-Inf".to_owned(),
            _ => "NaN".to_owned(),
        };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').expect("it was asked for");
    match exponent.parse::<i32>().expect("a number") {
        -4..6 => number.to_string(),
        exponent @ ..0 => format!("{digits}e-{:02}", -exponent),
        exponent => format!("{digits}e+{exponent:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Registry, Source};
    use std::time::Duration;

    #[test]
    fn numbers_are_spelled_as_go_does() {
        let table = [
            (0.0, "0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (0.001, "0.001"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (3.265e-6, "3.265e-06"),
            (524_288.0, "524288"),
            (1_048_576.0, "1.048576e+06"),
            (2_147_483_648.0, "2.147483648e+09"),
            (1e100, "1e+100"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ];
        for (number, text) in table {
            assert_eq!(spelled(number), text);
        }
    }

    struct Some;

    impl Source for Some {
        fn write(&self, text: &mut Text) {
            text.gauge("b_bytes", "With a \\ and\na line.", 2_u64 << 30);
            let mut family = text.family("c_total", Kind::Counter, "By name.");
            family.sample(&[("name", "a \"b\"\n\\c"), ("kind", "x")], 3_u64);
            family.sample(&[("name", "d"), ("kind", "y")], true);
            text.family("d_total", Kind::Counter, "Without any.");
            let histogram = Histogram::of_seconds(&[0.5, 1.0]);
            histogram.observe(Duration::from_millis(750));
            text.histogram("a_seconds", "Times.", &histogram);
        }
    }

    #[test]
    fn a_text_is_sorted_and_escaped() {
        let registry = Registry::default();
        registry.add(Some);
        let expected = r#"# HELP a_seconds Times.
# TYPE a_seconds histogram
a_seconds_bucket{le="0.5"} 0
a_seconds_bucket{le="1"} 1
a_seconds_bucket{le="+Inf"} 1
a_seconds_sum 0.75
a_seconds_count 1
# HELP b_bytes With a \\ and\na line.
# TYPE b_bytes gauge
b_bytes 2.147483648e+09
# HELP c_total By name.
# TYPE c_total counter
c_total{name="a \"b\"\n\\c",kind="x"} 3
c_total{name="d",kind="y"} 1
"#;
        assert_eq!(registry.text(), expected);
    }
}
