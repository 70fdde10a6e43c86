//! Pictures of a run, as inline SVG: what each client did, how long calls took, how many were answered; faults behind all of it.

use super::Outcome;
use crate::timeline::{Call, End};
use std::{collections::BTreeMap, fmt::Write};

const WIDTH: f64 = 1000.0;
/// Room for labels on the left.
const LEFT: f64 = 70.0;
const LANE: f64 = 9.0;
const LATENCY: f64 = 150.0;
const RATE: f64 = 60.0;
/// The latency axis, in milliseconds, each step ten times the one before.
const DECADES: (f64, f64) = (0.1, 10_000.0);
/// Dots in the latency plot; of more calls, some are left out.
const DOTS_MAX: usize = 2500;
const ENDS: [(End, &str); 3] = [(End::Ok, "ok"), (End::Failed, "failed"), (End::Unknown, "unknown")];

/// Maps time to the picture.
struct Scale {
    end_ns: f64,
}

impl Scale {
    fn x(&self, ns: u64) -> f64 {
        LEFT + (WIDTH - LEFT) * ns as f64 / self.end_ns
    }
}

/// All pictures of a run in one.
pub fn draw(outcome: &Outcome) -> String {
    let calls = &outcome.calls;
    let last = calls.iter().map(|call| call.returned_ns).chain(outcome.episodes.iter().map(|one| one.to_ns)).max();
    let Some(last) = last else { return String::new() };
    let scale = Scale { end_ns: last.max(1) as f64 };
    let clients = calls.iter().map(|call| call.client + 1).max().unwrap_or(0);
    let lanes = clients as f64 * LANE;
    let height = lanes + LATENCY + RATE + 60.0;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"timeline\">");
    faults(&mut svg, outcome, &scale, height - 20.0);
    timeline(&mut svg, calls, &scale);
    label(&mut svg, 0.0, 12.0, "clients");
    latency(&mut svg, calls, &scale, lanes + 10.0);
    rate(&mut svg, outcome, &scale, lanes + LATENCY + 25.0);
    axis(&mut svg, &scale, height - 6.0);
    svg.push_str("</svg>");
    svg
}

fn label(svg: &mut String, x: f64, y: f64, text: &str) {
    let _ = write!(svg, "<text x=\"{x:.0}\" y=\"{y:.0}\">{text}</text>");
}

fn faults(svg: &mut String, outcome: &Outcome, scale: &Scale, height: f64) {
    for episode in &outcome.episodes {
        let (x, end) = (scale.x(episode.from_ns), scale.x(episode.to_ns));
        let what = super::html::escape(&episode.what);
        let wide = (end - x).max(1.0);
        let _ = write!(
            svg,
            "<rect class=\"fault\" x=\"{x:.1}\" y=\"0\" width=\"{wide:.1}\" height=\"{height:.0}\"><title>{what}</title></rect>"
        );
    }
    for finding in &outcome.judgement.anomalies {
        if let Some(at) = finding.at_ns {
            let (x, kind) = (scale.x(at), super::html::escape(&finding.kind));
            let _ = write!(svg, "<path class=\"anomaly\" d=\"M{x:.1} 0v{height:.0}\"><title>{kind}</title></path>");
        }
    }
}

/// A lane for each client: a stroke for each stretch of calls that ended alike.
fn timeline(svg: &mut String, calls: &[Call], scale: &Scale) {
    let mut lanes: BTreeMap<usize, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        lanes.entry(call.client).or_default().push(call);
    }
    let mut paths: BTreeMap<End, String> = BTreeMap::new();
    for (client, mut calls) in lanes {
        calls.sort_by_key(|call| call.called_ns);
        let y = client as f64 * LANE + LANE / 2.0;
        for stretch in calls.chunk_by(|one, next| one.end == next.end && next.called_ns < one.returned_ns + 50_000_000)
        {
            let from = scale.x(stretch[0].called_ns);
            let to = scale.x(stretch[stretch.len() - 1].returned_ns);
            let _ = write!(paths.entry(stretch[0].end).or_default(), "M{from:.1} {y:.1}h{:.1}", (to - from).max(0.4));
        }
    }
    for (end, class) in ENDS {
        if let Some(path) = paths.get(&end) {
            let _ = write!(svg, "<path class=\"lane {class}\" d=\"{path}\"/>");
        }
    }
}

/// A dot for each call, by when it was made and how long it took.
fn latency(svg: &mut String, calls: &[Call], scale: &Scale, top: f64) {
    let decades = (DECADES.1 / DECADES.0).log10();
    let y = |ms: f64| {
        let level = (ms.clamp(DECADES.0, DECADES.1) / DECADES.0).log10() / decades;
        top + LATENCY * (1.0 - level)
    };
    for (ms, text) in
        [(0.1, "0.1 ms"), (1.0, "1 ms"), (10.0, "10 ms"), (100.0, "100 ms"), (1000.0, "1 s"), (10_000.0, "10 s")]
    {
        let _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {:.1}H{WIDTH}\"/>", y(ms));
        label(svg, 0.0, y(ms) + 3.0, text);
    }
    // What failed is rare and matters: of the answered ones every n-th is drawn.
    let answered = calls.iter().filter(|call| call.end == End::Ok).count();
    let step = answered.div_ceil(DOTS_MAX).max(1);
    for (end, class) in ENDS {
        let mut path = String::new();
        let every = if end == End::Ok { step } else { (calls.len() - answered).div_ceil(DOTS_MAX).max(1) };
        for call in calls.iter().filter(|call| call.end == end).step_by(every) {
            let ms = (call.returned_ns - call.called_ns) as f64 / 1e6;
            let _ = write!(path, "M{:.1} {:.1}h0", scale.x(call.called_ns), y(ms));
        }
        if !path.is_empty() {
            let _ = write!(svg, "<path class=\"dot {class}\" d=\"{path}\"/>");
        }
    }
}

/// A bar for each second, as high as calls were answered in it.
fn rate(svg: &mut String, outcome: &Outcome, scale: &Scale, top: f64) {
    let most = outcome.stats.per_second.iter().copied().max().unwrap_or(0).max(1);
    for (second, count) in outcome.stats.per_second.iter().enumerate() {
        let (x, end) =
            (scale.x(second as u64 * 1_000_000_000), scale.x((second as u64 + 1) * 1_000_000_000).min(WIDTH));
        let tall = RATE * *count as f64 / most as f64;
        let _ = write!(
            svg,
            "<rect class=\"bar\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\"><title>{count}/s</title></rect>",
            top + RATE - tall,
            (end - x - 0.5).max(0.5),
        );
    }
    label(svg, 0.0, top + 10.0, &format!("{most}/s"));
}

fn axis(svg: &mut String, scale: &Scale, y: f64) {
    let seconds = scale.end_ns / 1e9;
    let step = [1.0, 2.0, 5.0, 10.0, 20.0, 60.0].into_iter().find(|step| seconds / step <= 15.0).unwrap_or(120.0);
    let mut at = 0.0;
    while at <= seconds {
        label(svg, scale.x((at * 1e9) as u64), y, &format!("{at:.0} s"));
        at += step;
    }
}
