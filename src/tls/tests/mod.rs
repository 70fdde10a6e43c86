//! Both sides, over loopback.

pub(crate) mod authority;

use super::{ClientSettings, ClientTls, Http, Protocol, ServerSettings, ServerTls, Spoken, TlsVersion, dial};
use authority::Authority;
use std::{
    fs,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Serves everybody with an echo, until the test ends; its address.
async fn echo(tls: ServerTls) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let turn = tls.enter().await;
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(stream) = tls.accept(stream, turn).await else { return };
                let (mut from, mut to) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

fn server(ours: &Authority) -> ServerSettings {
    ServerSettings {
        identity: ours.sign("server", &["127.0.0.1"], 1),
        client_cert_auth: false,
        trusted_ca_file: None,
        crl_file: None,
        allowed_cn: Vec::new(),
        allowed_hostname: Vec::new(),
        protocol: Protocol::default(),
        alpn: &["h2", "http/1.1"],
    }
}

fn client(ours: &Authority) -> ClientSettings {
    ClientSettings { trusted_ca_file: Some(ours.ca()), ..ClientSettings::default() }
}

/// Says one word and hears it again; or why not.
async fn talk(address: &str, settings: &ClientSettings) -> Result<(), String> {
    let tls = ClientTls::new(settings.clone()).expect("usable files");
    let mut stream = dial(address, Some(&tls), Http::Two).await.map_err(|error| error.to_string())?;
    let mut heard = [0; 4];
    stream.write_all(b"word").await.map_err(|error| error.to_string())?;
    stream.flush().await.map_err(|error| error.to_string())?;
    stream.read_exact(&mut heard).await.map_err(|error| error.to_string())?;
    assert_eq!(&heard, b"word");
    Ok(())
}

/// The same through a server with these settings; what failed, without the address.
async fn talks(to: ServerSettings, from: ClientSettings) -> Result<(), String> {
    let address = echo(ServerTls::new(to).expect("usable files")).await;
    talk(&address, &from).await.map_err(|text| text.replace(&format!("TLS with {address}: "), ""))
}

#[tokio::test]
async fn who_dials_is_told_what_is_wrong_with_the_server() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    assert_eq!(talks(server(&ours), client(&ours)).await, Ok(()));
    let stranger = format!("its certificate is signed by none of the authorities in {}", theirs.ca().display());
    assert_eq!(talks(server(&ours), client(&theirs)).await, Err(stranger));
    let nobody = talks(server(&ours), ClientSettings::default()).await.unwrap_err();
    assert!(nobody.contains("no authority that this system trusts") || nobody.contains("the system's"), "{nobody}");
    let elsewhere = ServerSettings { identity: ours.sign("elsewhere", &["db.example.com"], 2), ..server(&ours) };
    let text = talks(elsewhere.clone(), client(&ours)).await.unwrap_err();
    assert!(text.starts_with("its certificate is made out to ") && text.contains("db.example.com"), "{text}");
    assert!(text.ends_with("not to 127.0.0.1"), "{text}");
    let named = ClientSettings { server_name: Some("db.example.com".to_owned()), ..client(&ours) };
    assert_eq!(talks(elsewhere.clone(), named).await, Ok(()));
    let blind = ClientSettings { skip_verify: true, ..ClientSettings::default() };
    assert_eq!(talks(elsewhere, blind).await, Ok(()));
    let expired = ServerSettings { identity: ours.sign_expired("old", &["127.0.0.1"], 3), ..server(&ours) };
    let text = talks(expired, client(&ours)).await.unwrap_err();
    assert!(text.starts_with("its certificate is not good: ") && text.contains("expired"), "{text}");
}

#[tokio::test]
async fn who_dials_is_told_what_the_server_does_not_like() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let asks = || ServerSettings { client_cert_auth: true, trusted_ca_file: Some(ours.ca()), ..server(&ours) };
    let shows = |identity| ClientSettings { identity: Some(identity), ..client(&ours) };
    // In TLS 1.3 the server says so when the client believes that all is well.
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let protocol = Protocol { versions: (None, Some(version)), ..Protocol::default() };
        let asks = || ServerSettings { protocol: protocol.clone(), ..asks() };
        assert_eq!(talks(asks(), shows(ours.sign("good", &[], 2))).await, Ok(()), "{version:?}");
        let none = "it asks for a client certificate, and got none";
        assert_eq!(talks(asks(), client(&ours)).await, Err(none.to_owned()), "{version:?}");
        let (cert, key) = theirs.sign("stranger", &[], 3);
        let text = talks(asks(), shows((cert.clone(), key))).await.unwrap_err();
        let refused = format!("it does not accept the client certificate {} (UnknownCA)", cert.display());
        assert_eq!(text, refused, "{version:?}");
        let crl = ServerSettings { crl_file: Some(ours.revoke(&[4])), ..asks() };
        let text = talks(crl.clone(), shows(ours.sign("revoked", &[], 4))).await.unwrap_err();
        assert!(text.ends_with("(CertificateRevoked)"), "{version:?}: {text}");
        assert_eq!(talks(crl, shows(ours.sign("other", &[], 5))).await, Ok(()), "{version:?}");
        let text = talks(asks(), shows(ours.sign_expired("old", &[], 6))).await.unwrap_err();
        assert!(text.ends_with("(CertificateExpired)"), "{version:?}: {text}");
    }
    let named = ServerSettings { allowed_hostname: vec!["good.example.com".to_owned()], ..asks() };
    assert_eq!(talks(named.clone(), shows(ours.sign("named", &["good.example.com"], 7))).await, Ok(()));
    assert!(talks(named, shows(ours.sign("other", &["bad.example.com"], 8))).await.is_err());
    let named = ServerSettings { allowed_cn: vec!["good".to_owned()], ..asks() };
    assert_eq!(talks(named.clone(), shows(ours.sign("good", &[], 9))).await, Ok(()));
    assert!(talks(named, shows(ours.sign("bad", &[], 10))).await.is_err());
}

#[tokio::test]
async fn versions_and_suites_are_narrowed() {
    let ours = Authority::new();
    let speaks = |versions, cipher_suites: &[&str]| Protocol {
        versions,
        cipher_suites: cipher_suites.iter().map(ToString::to_string).collect(),
    };
    let old = (None, Some(TlsVersion::Tls12));
    let to = |protocol| ServerSettings { protocol, ..server(&ours) };
    let from = |protocol| ClientSettings { protocol, ..client(&ours) };
    let (aes, chacha) = ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305");
    assert_eq!(talks(to(speaks(old, &[aes])), from(speaks(old, &[aes, chacha]))).await, Ok(()));
    let text = talks(to(speaks(old, &[aes])), from(speaks(old, &[chacha]))).await.unwrap_err();
    assert!(text.starts_with("there is no version and cipher suite"), "{text}");
    let new = (Some(TlsVersion::Tls13), None);
    let text = talks(to(speaks(new, &[])), from(speaks(old, &[]))).await.unwrap_err();
    assert!(text.starts_with("there is no version and cipher suite"), "{text}");
    assert_eq!(talks(to(speaks((None, None), &[aes])), from(speaks(new, &[]))).await, Ok(()));
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_one_that_hangs_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let (_stream, _) = (stream, listener.accept().await.unwrap());
    });
    let ours = Authority::new();
    let text = talk(&address, &client(&ours)).await.unwrap_err();
    assert_eq!(text, format!("TLS with {address}: it does not speak TLS; is it meant to be http://?"));
    let text = talk(&address, &client(&ours)).await.unwrap_err();
    assert!(text.starts_with(&format!("TLS with {address}: ")), "{text}");
}

#[tokio::test]
async fn files_are_taken_up_when_they_change_and_bad_ones_are_not() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let ca_of_clients = ours.dir().join("ca-of-clients.pem");
    fs::copy(ours.ca(), &ca_of_clients).unwrap();
    let crl_file = Some(ours.revoke(&[]));
    let settings = ServerSettings { trusted_ca_file: Some(ca_of_clients), crl_file, ..server(&ours) };
    let address = echo(ServerTls::new(settings).unwrap()).await;
    let good = ClientSettings { identity: Some(ours.sign("good", &[], 77)), ..client(&ours) };
    assert_eq!(talk(&address, &good).await, Ok(()));
    ours.revoke(&[77, 78]);
    assert!(talk(&address, &good).await.unwrap_err().ends_with("(CertificateRevoked)"));
    fs::write(ours.dir().join("crl.pem"), "nonsense").unwrap();
    assert!(talk(&address, &good).await.is_err(), "the last good list is used on");
    ours.revoke(&[]);
    assert_eq!(talk(&address, &good).await, Ok(()));
    // Another authority's certificate, first without the key that belongs to it.
    let (cert, key) = theirs.sign("server", &["127.0.0.1"], 1);
    fs::copy(cert, ours.dir().join("server.pem")).unwrap();
    assert_eq!(talk(&address, &good).await, Ok(()), "a certificate without its key is no certificate");
    fs::copy(key, ours.dir().join("server-key.pem")).unwrap();
    let trusts_theirs = ClientSettings { identity: good.identity.clone(), ..client(&theirs) };
    assert_eq!(talk(&address, &trusts_theirs).await, Ok(()));
    assert!(talk(&address, &good).await.is_err());
    // A client that stays takes up its own files as well.
    let tls = ClientTls::new(good).unwrap();
    assert!(dial(&address, Some(&tls), Http::Two).await.is_err());
    fs::write(ours.ca(), fs::read(theirs.ca()).unwrap()).unwrap();
    assert!(dial(&address, Some(&tls), Http::Two).await.is_ok());
}

#[tokio::test]
async fn one_port_may_speak_both() {
    let ours = Authority::new();
    let tls = ServerTls::new(server(&ours)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepting = tokio::spawn(async move {
        let mut spoken = Vec::new();
        while spoken.len() < 2 {
            let (stream, _) = listener.accept().await.unwrap();
            let turn = tls.enter().await;
            spoken.push(match tls.accept_either(stream, turn).await.unwrap() {
                Spoken::Tls(mut stream) => ("tls", stream.read_u8().await.unwrap()),
                Spoken::Plain(mut stream) => ("plain", stream.read_u8().await.unwrap()),
            });
        }
        spoken
    });
    let mut plain = TcpStream::connect(&address).await.unwrap();
    plain.write_all(b"P").await.unwrap();
    let mut secure = dial(&address, Some(&ClientTls::new(client(&ours)).unwrap()), Http::One).await.unwrap();
    secure.write_all(b"T").await.unwrap();
    secure.flush().await.unwrap();
    assert_eq!(accepting.await.unwrap(), [("plain", b'P'), ("tls", b'T')]);
}

#[tokio::test]
async fn garbage_is_refused_at_once() {
    let ours = Authority::new();
    let tls = ServerTls::new(server(&ours)).unwrap();
    for first in [&b"\x16garbage, and more of it"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let (mut near, far) = tokio::io::duplex(1024);
        near.write_all(first).await.unwrap();
        let turn = tls.enter().await;
        let began = Instant::now();
        tls.accept(far, turn).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}
