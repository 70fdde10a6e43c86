//! The `table` format: lists of members and endpoints.

use super::{Answer, Failure, hash_row, member_row, ring, snapshot_row, status_row, took};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};

/// etcdctl has tables for lists only.
pub fn render(answer: &Answer) -> Result<Vec<u8>, Failure> {
    let (columns, rows): (&[&str], Vec<Vec<String>>) = match answer {
        Answer::Members(answer) => (
            &["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"],
            answer.members.iter().map(member_row).collect(),
        ),
        Answer::Health(all) => (
            &["ENDPOINT", "HEALTH", "TOOK", "ERROR"],
            all.iter()
                .map(|one| {
                    let healthy = one.error.is_none().to_string();
                    vec![one.endpoint.clone(), healthy, took(one.took), one.error.clone().unwrap_or_default()]
                })
                .collect(),
        ),
        Answer::Status(all) => (
            &[
                "ENDPOINT",
                "ID",
                "VERSION",
                "STORAGE VERSION",
                "DB SIZE",
                "IN USE",
                "PERCENTAGE NOT IN USE",
                "QUOTA",
                "IS LEADER",
                "IS LEARNER",
                "RAFT TERM",
                "RAFT INDEX",
                "RAFT APPLIED INDEX",
                "ERRORS",
                "DOWNGRADE TARGET VERSION",
                "DOWNGRADE ENABLED",
            ],
            all.iter().map(|(endpoint, status)| status_row(endpoint, status)).collect(),
        ),
        Answer::HashKv(all) => (
            &["ENDPOINT", "HASH", "HASH REVISION"],
            all.iter()
                .map(|(endpoint, hash)| vec![endpoint.clone(), hash.hash.to_string(), hash.hash_revision.to_string()])
                .collect(),
        ),
        Answer::Ring(all) => (ring::columns(all), ring::rows(all)),
        Answer::Snapshot(status) => {
            (&["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"], vec![snapshot_row(status)])
        }
        Answer::SnapshotHash(hash) => (&["HASH", "HASH REVISION", "COMPACT REVISION"], vec![hash_row(hash)]),
        _ => return Err(Failure::unsupported("table not supported as output format")),
    };
    Ok(draw(columns, rows).into_bytes())
}

/// Single lines around and between; no line between rows. The order of the characters is the library's.
const LINES: &str = "││──├─┼┤│    ┬┴┌┐└┘";

/// Headings in the middle (an odd blank goes right), cells to the right.
fn draw(columns: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(LINES).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().enumerate().map(|(at, name)| {
        let width = rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        Cell::new(format!("{name:^width$}"))
    }));
    for row in rows {
        table.add_row(row.into_iter().map(|text| Cell::new(text).set_alignment(CellAlignment::Right)));
    }
    format!("{table}\n")
}
