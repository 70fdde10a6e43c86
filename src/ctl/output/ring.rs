//! Proxies, in all formats but protobuf.

use super::{json::Object, json::list, json::string, size, took};
use crate::{
    go::quote,
    pb::henge::ring::{Copy, Duty, Identity, Listed, Proxy, State},
    types::prefix_end,
};
use std::time::Duration;

/// What `ring` lists.
#[derive(Clone, Debug)]
pub struct RingList {
    /// In the order to print them.
    pub proxies: Vec<Listed>,
    /// A line for each copy, not for each proxy.
    pub by_copy: bool,
}

/// How far a revision came before `ring wait` was content.
#[derive(Clone, Copy, Debug)]
pub struct RingReached {
    pub revision: i64,
    pub reached: usize,
    pub total: usize,
}

/// What is known of one proxy, without holes.
struct Parts {
    proxy: Proxy,
    identity: Identity,
    state: State,
    heard: Duration,
}

fn parts(listed: &Listed) -> Parts {
    let proxy = listed.proxy.clone().unwrap_or_default();
    let (identity, state) = (proxy.identity.clone().unwrap_or_default(), proxy.state.clone().unwrap_or_default());
    Parts { proxy, identity, state, heard: Duration::from_millis(listed.heard_ms) }
}

pub fn columns(all: &RingList) -> &'static [&'static str] {
    match all.by_copy {
        false => &[
            "NAME", "ADDRS", "TIER", "UPSTREAM", "STATE", "REVISION", "LAG", "AGE", "CLIENTS", "WATCHES", "RENEWALS",
            "COPIES", "SIZE", "HIT RATE", "UP", "HEARD", "VERSION", "STANDBY",
        ],
        true => &["NAME", "ADDRS", "STATE", "KEYS", "REVISION", "LAG", "AGE", "SIZE", "HITS", "MISSES"],
    }
}

pub fn rows(all: &RingList) -> Vec<Vec<String>> {
    let parts = all.proxies.iter().map(parts);
    match all.by_copy {
        false => parts.map(|parts| row(&parts)).collect(),
        true => parts
            .flat_map(|parts| parts.state.copies.iter().map(|copy| copy_row(&parts, copy)).collect::<Vec<_>>())
            .collect(),
    }
}

fn row(Parts { proxy, identity, state, heard }: &Parts) -> Vec<String> {
    let oldest = state.copies.iter().map(|copy| copy.age_ms).max();
    // Nothing that is copied is nothing that could be old.
    let none = || "-".to_owned();
    let reads = state.hits + state.misses;
    vec![
        identity.name.clone(),
        identity.urls.join(" "),
        identity.tier.to_string(),
        identity.upstream.clone(),
        condition(proxy).to_owned(),
        state.copies.iter().map(|copy| copy.revision).min().map_or_else(none, |revision| revision.to_string()),
        state.copies.iter().map(|copy| copy.lag).max().map_or_else(none, |lag| lag.to_string()),
        oldest.map_or_else(none, |ms| about(Duration::from_millis(ms))),
        state.clients.to_string(),
        state.watches.to_string(),
        state.renewals.to_string(),
        (state.copies.len() + state.copies_left_out as usize).to_string(),
        size(i64::try_from(state.bytes).unwrap_or(i64::MAX)),
        (state.hits * 100).checked_div(reads).map_or_else(none, |percent| format!("{percent}%")),
        about(Duration::from_millis(state.uptime_ms.saturating_add(state.told_ms))),
        about(*heard),
        identity.version.clone(),
        match identity.standby_peer_url.as_str() {
            "" => none(),
            url => format!("{url} {}", duty(state)),
        },
    ]
}

fn duty(state: &State) -> &'static str {
    match state.duty() {
        Duty::None | Duty::StandsBy => "stands by",
        Duty::Serves => "serves",
        Duty::Fails => "fails",
    }
}

fn copy_row(Parts { proxy, identity, .. }: &Parts, copy: &Copy) -> Vec<String> {
    vec![
        identity.name.clone(),
        identity.urls.join(" "),
        condition(proxy).to_owned(),
        keys(copy),
        copy.revision.to_string(),
        copy.lag.to_string(),
        about(Duration::from_millis(copy.age_ms)),
        size(i64::try_from(copy.bytes).unwrap_or(i64::MAX)),
        copy.hits.to_string(),
        copy.misses.to_string(),
    ]
}

fn condition(proxy: &Proxy) -> &'static str {
    if proxy.is_lost { "lost" } else { "ok" }
}

/// A duration for people: two digits or so of it.
fn about(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0..10_000 => took(Duration::from_millis(u64::try_from(ms / 100 * 100).unwrap_or(0))),
        10_000..7_200_000 => took(Duration::from_secs(duration.as_secs())),
        _ => format!("{}h{}m", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// Which keys a copy has: `prefix*`, `key`, or `start..end`.
fn keys(copy: &Copy) -> String {
    let text = |bytes: &[u8]| {
        let quoted = quote(bytes);
        let bare = &quoted[1..quoted.len() - 1];
        if bare.as_bytes() == bytes { bare.to_owned() } else { quoted }
    };
    let (key, end) = (&copy.key[..], &copy.range_end[..]);
    match end {
        [] => text(key),
        [0] if key == [0] => "*".to_owned(),
        [0] => format!("{}..", text(key)),
        _ if prefix_end(key).as_deref() == Some(end) => format!("{}*", text(key)),
        _ => format!("{}..{}", text(key), text(end)),
    }
}

pub fn json(all: &RingList) -> String {
    list(all.proxies.iter().map(|listed| {
        let Parts { proxy, identity, state, heard } = parts(listed);
        Object::new()
            // A string: 64 bits do not survive programs that read numbers as floats.
            .always("id", format!("\"{:016x}\"", proxy.id))
            .always("name", string(&identity.name))
            .always("urls", list(identity.urls.iter().map(|url| string(url))))
            .always("version", string(&identity.version))
            .always("tier", identity.tier)
            .always("upstream", string(&identity.upstream))
            .always("upstreamID", format!("\"{:016x}\"", identity.upstream_id))
            .always("state", string(condition(&proxy)))
            .always("heardMs", heard.as_millis())
            .always("toldMs", state.told_ms)
            .always("uptimeMs", state.uptime_ms)
            .always("upstreamRevision", state.upstream_revision)
            .always("clients", state.clients)
            .always("watches", state.watches)
            .always("renewals", state.renewals)
            .always("hits", state.hits)
            .always("misses", state.misses)
            .always("fences", state.fences)
            .always("bytes", state.bytes)
            .always("bytesMax", state.bytes_max)
            .always("copies", list(state.copies.iter().map(json_copy)))
            .number("copiesLeftOut", state.copies_left_out)
            .text("standbyPeerURL", &identity.standby_peer_url)
            .text("standby", if identity.standby_peer_url.is_empty() { "" } else { duty(&state) })
            .end()
    }))
}

fn json_copy(copy: &Copy) -> String {
    Object::new()
        .always("key", super::json::bytes(&copy.key))
        .always("range_end", super::json::bytes(&copy.range_end))
        .always("revision", copy.revision)
        .always("lag", copy.lag)
        .always("ageMs", copy.age_ms)
        .always("bytes", copy.bytes)
        .always("hits", copy.hits)
        .always("misses", copy.misses)
        .end()
}

/// What the fields format says, one `(name, value)` a line and a list for each proxy.
pub fn fields(all: &RingList) -> Vec<Vec<(&'static str, String)>> {
    let of_one = |listed: &Listed| {
        let Parts { proxy, identity, state, heard } = parts(listed);
        let text = |text: &str| quote(text.as_bytes());
        let mut fields = vec![("Name", text(&identity.name))];
        fields.extend(identity.urls.iter().map(|url| ("ClientURL", text(url))));
        fields.extend([
            ("Version", text(&identity.version)),
            ("Tier", identity.tier.to_string()),
            ("Upstream", text(&identity.upstream)),
            ("State", text(condition(&proxy))),
            ("HeardMs", heard.as_millis().to_string()),
            ("UptimeMs", state.uptime_ms.to_string()),
            ("UpstreamRevision", state.upstream_revision.to_string()),
            ("Clients", state.clients.to_string()),
            ("Watches", state.watches.to_string()),
            ("Renewals", state.renewals.to_string()),
            ("Hits", state.hits.to_string()),
            ("Misses", state.misses.to_string()),
            ("Fences", state.fences.to_string()),
            ("Bytes", state.bytes.to_string()),
        ]);
        if !identity.standby_peer_url.is_empty() {
            fields.extend([("StandbyPeerURL", text(&identity.standby_peer_url)), ("Standby", text(duty(&state)))]);
        }
        for copy in &state.copies {
            fields.extend([
                ("CopyKey", quote(&copy.key)),
                ("CopyRangeEnd", quote(&copy.range_end)),
                ("CopyRevision", copy.revision.to_string()),
                ("CopyLag", copy.lag.to_string()),
                ("CopyAgeMs", copy.age_ms.to_string()),
                ("CopyBytes", copy.bytes.to_string()),
                ("CopyHits", copy.hits.to_string()),
                ("CopyMisses", copy.misses.to_string()),
            ]);
        }
        fields
    };
    all.proxies.iter().map(of_one).collect()
}
