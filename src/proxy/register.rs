//! How etcd's proxies make themselves known: a key for each under one prefix, which lives as long as a lease that its proxy renews.
//!
//! It works with whatever stands upstream, and clients that resolve names by such keys find the proxies. Only who asks for it gets it: it
//! is a write, and a lease to renew, for each proxy.
//!
//! Follows etcd's `grpc-proxy --resolver-prefix`: key `PREFIX/ADDRESS`, and as its value the JSON of etcd's naming `Update`.

use super::{Own, Upstream, pass::told};
use crate::{
    client::{Client, Error, GetOptions, Keeper, PutOptions},
    pb::etcdserverpb::Member,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;

/// Between two attempts, by chance down to half of it; etcd's proxies try once a second.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest wait for the lease's end when the proxy stops.
const REVOKE_MAX: Duration = Duration::from_millis(500);
/// Proxies that are listed at most.
const LISTED_MAX: i64 = 1_000;

/// Where proxies make themselves known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// What the keys begin with, without the slash that follows.
    pub prefix: String,
    /// Time to live of a key whose proxy is gone, in seconds.
    pub ttl_s: i64,
}

impl Resolver {
    fn key(&self, address: &str) -> String {
        format!("{}/{address}", self.prefix)
    }
}

/// An address as keys have it, which is what gRPC dials.
fn bare(url: &str) -> &str {
    url.strip_prefix("http://").unwrap_or(url)
}

fn value(name: &str, address: &str) -> String {
    let metadata = json!({ "name": name }).to_string();
    // In the order of Go's fields.
    format!(r#"{{"Op":0,"Addr":{},"Metadata":{}}}"#, Value::from(address), Value::from(metadata))
}

/// A registered proxy, if it is one.
fn member(value: &[u8]) -> Option<Member> {
    let update: Value = serde_json::from_slice(value).ok()?;
    let address = update["Addr"].as_str().filter(|address| !address.is_empty())?;
    let metadata = update["Metadata"].as_str().unwrap_or_default();
    let metadata: Value = serde_json::from_str(metadata).unwrap_or_default();
    let name = metadata["name"].as_str().unwrap_or_default().to_owned();
    Some(Member { name, client_ur_ls: vec![address.to_owned()], ..Member::default() })
}

async fn client(upstream: &Upstream) -> Result<Client, Error> {
    Client::connect(upstream.addresses(), upstream.options().clone()).await
}

/// Keeps `own` registered until `stopping`.
pub(super) async fn keep(upstream: Upstream, own: Own, resolver: Resolver, mut stopping: watch::Receiver<bool>) {
    loop {
        match begin(&upstream, &own, &resolver).await {
            Ok((client, lease, mut keeper)) => {
                tracing::info!(prefix = resolver.prefix, ttl_s = resolver.ttl_s, "registered session with lease");
                tokio::select! {
                    biased;
                    () = told(&mut stopping) => {
                        drop(keeper);
                        // If upstream is away the lease runs out.
                        let _ = tokio::time::timeout(REVOKE_MAX, client.lease_revoke(lease)).await;
                        return;
                    }
                    why = keeper.lost() => tracing::warn!(?why, "session expired; registering again"),
                }
            }
            Err(error) => tracing::warn!(%error, "failed to create a session"),
        }
        tokio::time::sleep(PAUSE.mul_f64(rand::random_range(0.5..1.0))).await;
    }
}

async fn begin(upstream: &Upstream, own: &Own, resolver: &Resolver) -> Result<(Client, i64, Keeper), Error> {
    let client = client(upstream).await?;
    let lease = client.lease_grant(resolver.ttl_s, 0).await?.id;
    for address in own.urls.iter().map(|url| bare(url)) {
        let options = PutOptions { lease, ..PutOptions::default() };
        client.put(resolver.key(address), value(&own.name, address), options).await?;
    }
    let keeper = client.lease_keeper(lease).await?;
    Ok((client, lease, keeper))
}

/// All that are registered, as members without ids. None if upstream cannot be asked.
pub(super) async fn all(upstream: &Upstream, resolver: &Resolver) -> Vec<Member> {
    let read = async {
        let prefix = resolver.key("");
        let options = GetOptions { serializable: true, limit: LISTED_MAX, ..GetOptions::prefix(prefix.clone()) };
        client(upstream).await?.get(prefix, options).await
    };
    match read.await {
        Ok(answer) => answer.kvs.iter().filter_map(|kv| member(&kv.value)).collect(),
        Err(error) => {
            tracing::debug!(%error, "registered proxies are not known");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_written_as_etcds_proxy_writes_it_and_read_again() {
        let resolver = Resolver { prefix: "___grpc_proxy_endpoint".to_owned(), ttl_s: 60 };
        let address = bare("http://127.0.0.1:23790");
        assert_eq!(resolver.key(address), "___grpc_proxy_endpoint/127.0.0.1:23790");
        let text = value("host \"1\"", address);
        assert_eq!(text, r#"{"Op":0,"Addr":"127.0.0.1:23790","Metadata":"{\"name\":\"host \\\"1\\\"\"}"}"#);
        let read = member(text.as_bytes()).expect("a member");
        assert_eq!((read.name.as_str(), read.client_ur_ls), ("host \"1\"", vec!["127.0.0.1:23790".to_owned()]));
        for other in ["", "{}", r#"{"Op":0,"Addr":""}"#, "[1]"] {
            assert_eq!(member(other.as_bytes()), None, "{other}");
        }
        let nameless = member(br#"{"Op":0,"Addr":"a:1","Metadata":null}"#).expect("a member");
        assert_eq!(nameless.name, "");
    }
}
