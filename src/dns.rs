//! What is asked of DNS: which hosts offer a service under a domain (SRV records).
//!
//! **Promises.** Answers come in the order in which they should be tried, and in bounded time. **May not know** what the services are
//! for: members look for members, `hengectl` looks for endpoints.

use hickory_resolver::{
    TokioResolver,
    config::ResolverConfig,
    net::runtime::TokioRuntimeProvider,
    proto::rr::{RData, RecordType},
};
use std::time::Duration;

/// Longest time for one question, with all its repeats.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a service is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the host, without the dot at the end.
    pub host: String,
    /// Port there.
    pub port: u16,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Asks name servers.
pub struct Dns(TokioResolver);

impl Dns {
    /// Asks the name servers of this machine.
    ///
    /// # Errors
    /// A sentence, if the machine's settings can't be read.
    pub fn system() -> Result<Dns, String> {
        let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        resolver.map(Dns).map_err(|error| format!("cannot read the settings of DNS: {error}"))
    }

    /// Asks the name servers that `config` names.
    ///
    /// # Errors
    /// A sentence, if `config` is not sound.
    pub fn with(config: ResolverConfig) -> Result<Dns, String> {
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.build().map(Dns).map_err(|error| error.to_string())
    }

    /// The URLs at which a cluster serves clients, by `etcd-client-ssl` and `etcd-client` of `domain` (with `-name` if that is not
    /// empty), in the order to try them.
    ///
    /// # Errors
    /// A sentence: nothing was found.
    pub async fn client_urls(&self, domain: &str, name: &str) -> Result<Vec<String>, String> {
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for (service, scheme) in [("etcd-client-ssl", "https"), ("etcd-client", "http")] {
            let service = if name.is_empty() { service.to_owned() } else { format!("{service}-{name}") };
            match self.srv(&service, domain).await {
                Ok(targets) => found.extend(targets.into_iter().map(|target| format!("{scheme}://{target}"))),
                Err(error) => errors.push(error),
            }
        }
        if found.is_empty() { Err(format!("dns lookup errors: {}", errors.join(" and "))) } else { Ok(found) }
    }

    /// The targets of `_service._tcp.domain`, best first.
    ///
    /// # Errors
    /// A sentence that names what was looked up.
    pub async fn srv(&self, service: &str, domain: &str) -> Result<Vec<Target>, String> {
        // With the dot at the end no search domain is tried.
        let name = format!("_{service}._tcp.{}.", domain.trim_end_matches('.'));
        let failed = |why: String| format!("lookup {}: {why}", name.trim_end_matches('.'));
        let answer = tokio::time::timeout(PATIENCE, self.0.lookup(name.as_str(), RecordType::SRV)).await;
        let answer = answer.map_err(|_| failed("no answer".to_owned()))?.map_err(|error| failed(error.to_string()))?;
        let mut found = Vec::new();
        for record in answer.answers() {
            if let RData::SRV(srv) = &record.data {
                let host = srv.target.to_utf8().trim_end_matches('.').to_owned();
                found.push((srv.priority, std::cmp::Reverse(srv.weight), Target { host, port: srv.port }));
            }
        }
        // Low priorities first, heavy ones first among them; a tie is as the server had it.
        found.sort_by_key(|(priority, weight, _)| (*priority, *weight));
        match found.is_empty() {
            true => Err(failed("no such host".to_owned())),
            false => Ok(found.into_iter().map(|(_, _, target)| target).collect()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use hickory_resolver::{
        config::{ConnectionConfig, NameServerConfig},
        proto::{
            op::{Message, ResponseCode},
            rr::{Name, Record, rdata::SRV},
        },
    };

    /// A record: service, priority, weight, port, host.
    pub(crate) type Row = (&'static str, u16, u16, u16, &'static str);

    /// A name server that knows `rows` of example.com, and a [`Dns`] that asks it.
    pub(crate) async fn example(rows: &'static [Row]) -> Dns {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("a bound address");
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let answer = answer(&buffer[..length], rows).to_vec().expect("an answer");
                socket.send_to(&answer, from).await.expect("sent");
            }
        });
        let mut connection = ConnectionConfig::udp();
        connection.port = address.port();
        let server = NameServerConfig::new(address.ip(), true, vec![connection]);
        Dns::with(ResolverConfig::from_parts(None, Vec::new(), vec![server])).expect("a sound configuration")
    }

    fn answer(question: &[u8], rows: &[Row]) -> Message {
        let question = Message::from_vec(question).expect("a question");
        let asked = question.queries[0].clone();
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        for (service, priority, weight, port, host) in rows {
            let name = Name::from_ascii(format!("_{service}._tcp.example.com.")).expect("a name");
            if *asked.name() == name {
                let target = Name::from_ascii(host).expect("a name");
                let data = RData::SRV(SRV::new(*priority, *weight, *port, target));
                answer.add_answer(Record::from_rdata(name, 60, data));
            }
        }
        if answer.answers.is_empty() {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        answer.add_query(asked);
        answer
    }

    #[tokio::test]
    async fn targets_come_in_the_order_to_try_them() {
        let dns =
            example(&[("x", 2, 0, 1, "c."), ("x", 1, 5, 2, "b."), ("x", 1, 9, 3, "a."), ("y", 0, 0, 4, "z.")]).await;
        let found = dns.srv("x", "example.com").await.unwrap();
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:3", "b:2", "c:1"]);
        let missing = dns.srv("z", "example.com").await.unwrap_err();
        assert!(missing.starts_with("lookup _z._tcp.example.com: "), "{missing}");
    }
}
