//! Plain HTTP on the ports of clients: `enable-grpc-gateway`, and who may use what is there.

use super::reader::Reader;

/// The flags of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpFlags {
    /// `enable-grpc-gateway`: whether the API is there as JSON.
    pub serves_json: bool,
    /// `cors`: origins whose pages may read answers; none, or `*`, is all.
    pub origins: Vec<String>,
    /// `host-whitelist`: names that requests without TLS may be for; none, or `*`, is all.
    pub hosts: Vec<String>,
}

impl HttpFlags {
    pub(super) fn of(read: &mut Reader<'_>) -> HttpFlags {
        let origins = names(&read.text("cors"));
        for origin in origins.iter().filter(|origin| !is_origin(origin)) {
            read.wrong(format!("--cors: {origin:?} is no origin, as http://example.com:8080"));
        }
        HttpFlags { serves_json: read.bool("enable-grpc-gateway"), origins, hosts: names(&read.text("host-whitelist")) }
    }
}

fn names(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// As browsers say it: a scheme, a host and perhaps a port.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    text == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains('/'))
}
