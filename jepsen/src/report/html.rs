//! The report for people: one page that needs nothing but itself.

use super::{Outcome, Verdict, plot};
use std::{collections::BTreeSet, fmt::Write};

const STYLE: &str = "\
:root{color-scheme:light dark;--ok:#2a9d4a;--failed:#d99a00;--unknown:#8a5cd6;--bad:#d33;--line:#8886;--fault:#d3331f22}
body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em}
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid var(--line);padding:.2em .6em;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}
.holds{color:var(--ok)}.VIOLATION,.FAILED{color:var(--bad);font-weight:bold}.undecided{color:var(--failed)}.skipped{opacity:.6}
svg{width:100%;height:auto;border:1px solid var(--line)}svg text{font-size:10px;fill:currentColor}
.fault{fill:var(--fault)}.anomaly{stroke:var(--bad);stroke-width:1.5}.grid{stroke:var(--line);stroke-width:.5}
.lane{stroke-width:7;fill:none}.dot{stroke-width:2.2;stroke-linecap:round;fill:none}.bar{fill:currentColor;opacity:.45}
path.ok{stroke:var(--ok)}path.failed{stroke:var(--failed)}path.unknown{stroke:var(--unknown)}
pre{white-space:pre-wrap;border-left:3px solid var(--bad);padding-left:.8em}summary{cursor:pointer}
";

/// What finds what: for whoever has to judge a report, or to choose a run for a change.
const GUIDE: &[(&str, &str, &str)] = &[
    (
        "answers before its disk has it",
        "register, set, append under power",
        "lost element, not linearizable, lost append",
    ),
    ("reads without a quorum", "register, append under partition and pause", "not linearizable, G-single-realtime"),
    (
        "a leader that serves before an entry of its own term",
        "register, append under kill and partition",
        "not linearizable",
    ),
    (
        "watchers that miss or repeat events after a reconnect",
        "watch under kill, partition, members",
        "missing event, event twice",
    ),
    ("progress ahead of events", "watch under any nemesis", "early progress"),
    (
        "lease clocks that a new leader takes over wrongly",
        "lease, lock under kill and pause",
        "revoked early, stale holder wrote",
    ),
    ("membership that loses what a voter had", "all under members", "lost element, members differ"),
    (
        "proxies that answer from a copy without asking",
        "register, set, session under proxy, ring",
        "not linearizable, stale read, older than asked for",
    ),
    ("proxies that forget what a client has seen", "session under any nemesis of proxies", "session went back"),
    (
        "copies that miss or repeat what happened",
        "session, watch under proxy-partition",
        "not of its revision, missing event, event twice",
    ),
    ("an error instead of waiting for space or a slow disk", "any under disk", "members that end, long gaps"),
];

/// Makes text safe to stand between tags and in attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The whole page.
pub fn page(title: &str, outcomes: &[Outcome]) -> String {
    let title = escape(title);
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
    );
    overview(&mut html, outcomes);
    html.push_str(
        "<p>In the pictures a shaded stretch is a fault and a red line an anomaly (hover for what). Clients: \
         <span style=\"color:var(--ok)\">answered</span>, <span style=\"color:var(--failed)\">failed</span>, \
         <span style=\"color:var(--unknown)\">unknown</span>. Below them: how long each call took, and answers a second.</p>",
    );
    for outcome in outcomes {
        run(&mut html, outcome);
    }
    guide(&mut html);
    html.push_str("</html>\n");
    html
}

/// A table of verdicts: workloads down, nemeses across.
fn overview(html: &mut String, outcomes: &[Outcome]) {
    let mut nemeses: Vec<&str> = Vec::new();
    for outcome in outcomes {
        if !nemeses.contains(&outcome.nemesis.as_str()) {
            nemeses.push(&outcome.nemesis);
        }
    }
    html.push_str("<table><tr><th></th>");
    for nemesis in &nemeses {
        let _ = write!(html, "<th>{}</th>", escape(nemesis));
    }
    html.push_str("</tr>");
    for workload in outcomes.iter().map(|outcome| outcome.workload.as_str()).collect::<BTreeSet<_>>() {
        let _ = write!(html, "<tr><th>{workload}</th>");
        for nemesis in &nemeses {
            let cell = outcomes.iter().find(|one| one.workload == workload && one.nemesis == *nemesis);
            match cell {
                Some(one) => {
                    let word = one.verdict.word();
                    let _ = write!(html, "<td><a class=\"{word}\" href=\"#{}\">{word}</a></td>", one.name());
                }
                None => html.push_str("<td></td>"),
            }
        }
        html.push_str("</tr>");
    }
    html.push_str("</table>");
}

fn run(html: &mut String, outcome: &Outcome) {
    let word = outcome.verdict.word();
    let open = if outcome.verdict == Verdict::Holds { "" } else { " open" };
    let stats = &outcome.stats;
    let _ = write!(
        html,
        "<details id=\"{}\"{open}><summary><b>{}</b> under <b>{}</b>: <span class=\"{word}\">{word}</span>, {} answered, \
         longest gap {} ms</summary>",
        outcome.name(),
        outcome.workload,
        escape(&outcome.nemesis),
        stats.ok,
        stats.longest_gap_ms,
    );
    if let Verdict::Failed(why) | Verdict::Skipped(why) = &outcome.verdict {
        let _ = write!(html, "<pre>{}</pre>", escape(why));
    }
    for finding in outcome.judgement.anomalies.iter().chain(&outcome.judgement.undecided) {
        let _ = write!(html, "<pre><b>{}</b>: {}</pre>", escape(&finding.kind), escape(&finding.what));
    }
    let _ = write!(
        html,
        "<table><tr><th>answered<th>failed<th>unknown<th>half below<th>99 % below<th>longest<th>longest gap<th>all answer after\
         <tr><td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{:.1} ms<td class=n>{:.1} ms<td class=n>{:.0} ms\
         <td class=n>{} ms at {:.1} s<td class=n>{}</table>",
        stats.ok,
        stats.failed,
        stats.unknown,
        stats.p50_ms,
        stats.p99_ms,
        stats.max_ms,
        stats.longest_gap_ms,
        stats.longest_gap_at_ms as f64 / 1000.0,
        outcome.recovered_ms.map_or("?".into(), |ms| format!("{ms} ms")),
    );
    html.push_str(&plot::draw(outcome));
    html.push_str("<ul>");
    for note in &outcome.judgement.notes {
        let _ = write!(html, "<li>{}", escape(note));
    }
    let _ =
        write!(html, "<li>seed {}, {} members, {}, {} s", outcome.seed, outcome.nodes, outcome.ring, outcome.time_s);
    html.push_str("</ul><ol>");
    for episode in &outcome.episodes {
        let (from, to) = (episode.from_ns as f64 / 1e9, episode.to_ns as f64 / 1e9);
        let _ = write!(
            html,
            "<li>{from:.1} s to {to:.1} s: {}; {} ms without an answer",
            escape(&episode.what),
            episode.gap_ms
        );
    }
    html.push_str("</ol></details>");
}

fn guide(html: &mut String) {
    html.push_str("<h2>What finds what</h2><table><tr><th>a server that<th>is caught by<th>and shows as");
    for (what, by, shows) in GUIDE {
        let _ = write!(html, "<tr><td>{what}<td>{by}<td>{shows}");
    }
    html.push_str("</table>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::{Finding, Judgement},
        report::Stats,
        timeline::{Call, End, Episode},
    };

    #[test]
    fn a_page_shows_verdicts_faults_calls_and_anomalies_and_escapes_them() {
        let calls = vec![
            Call { client: 0, what: "read", called_ns: 1, returned_ns: 2_000_000, end: End::Ok },
            Call { client: 1, what: "write", called_ns: 5_000_000, returned_ns: 9_000_000, end: End::Unknown },
        ];
        let mut judgement = Judgement::default();
        judgement.add([Finding::new("stale read", "a < b").at(3_000_000)]);
        let outcome = Outcome {
            workload: "register".into(),
            nemesis: "kill".into(),
            seed: 7,
            nodes: 3,
            ring: "2 proxies".into(),
            time_s: 1,
            verdict: Verdict::Violation,
            judgement,
            recovered_ms: Some(12),
            stats: Stats::new(&calls),
            episodes: vec![Episode { from_ns: 1_000_000, to_ns: 4_000_000, what: "kill m1".into(), gap_ms: 7 }],
            calls,
        };
        let page = page("a & b", &[outcome]);
        for part in [
            "<h1>a &amp; b</h1>",
            "href=\"#register-kill\">VIOLATION</a>",
            "stale read</b>: a &lt; b",
            "<title>kill m1</title>",
            "class=\"anomaly\"",
            "class=\"lane ok\"",
            "class=\"dot unknown\"",
        ] {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
        assert!(!page.contains("http"), "the page needs nothing but itself");
    }
}
