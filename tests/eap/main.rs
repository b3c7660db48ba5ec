//! Tests of EAP methods, with FreeRADIUS behind our side.
//!
//! Needs the Debian package freeradius.

mod accounting;
mod free_radius;
mod radius;
mod refusals;
mod revocation;
mod tls_client;

use free_radius::{FreeRadius, SECRET};
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, crypto::aws_lc_rs, version};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};
use tls_client::TlsClient;
use wayfarer::{
    credentials::{Authorities, CrlPolicy, EapTlsServer, RadiusSockets, certificate},
    primitives::OsRandom,
};
use wayfarer_mobility::{
    aaa::{
        eap::{
            Authenticator, Conversation, Step,
            mschapv2::{Mschapv2Client, Mschapv2Server, NtHash},
        },
        grant::{Grant, Ip6Prefix},
        origin::Origin,
        radius::{
            Radius,
            question::{Realm, Server},
        },
    },
    crypto::Secret,
};

/// Lets a conversation handle a packet, asks the RADIUS server if it wants to, and returns the
/// resulting step.
fn handle(conversation: &mut dyn Conversation, packet: &[u8]) -> Step {
    match conversation.handle(packet) {
        Step::Ask => {
            let (start, mut sockets) = (Instant::now(), RadiusSockets::default());
            let question = conversation.question().expect("a conversation that asks has a question");
            sockets.ask(start.elapsed(), 0, [192, 0, 2, 7].into(), question);
            loop {
                sockets.turn(start.elapsed());
                match sockets.poll() {
                    Some((0, reply)) => return conversation.answered(reply),
                    _ => std::thread::yield_now(),
                }
            }
        }
        Step::Wait(number) => {
            while conversation.is_pending(number) {
                std::thread::yield_now();
            }
            handle(conversation, packet)
        }
        step => step,
    }
}

/// Lets server and client talk until the server ends; returns both last steps.
fn talk(server: &mut dyn Conversation, client: &mut dyn Conversation) -> (Step, Step) {
    talk_with_changes(server, client, |_, _| ())
}

/// Does the same as [`talk`], but passes each packet of the client and its number to `change`.
fn talk_with_changes(
    server: &mut dyn Conversation,
    client: &mut dyn Conversation,
    change: impl Fn(usize, &mut Vec<u8>),
) -> (Step, Step) {
    let mut packet = vec![];
    for number in 0..200 {
        let step = handle(server, &packet);
        let (Step::Send(request)
        | Step::Success(request, _)
        | Step::Failure(request)
        | Step::Unanswered(request)) = &step
        else {
            panic!("unexpected question to a server")
        };
        match (&step, client.handle(request)) {
            (Step::Send(_), Step::Send(response)) => packet = response,
            // A client that gave up sends nothing more.
            (Step::Send(_), _) => packet = vec![],
            (_, end) => return (step, end),
        }
        change(number, &mut packet);
    }
    panic!("the conversation does not end");
}

fn assert_same_key((server, client): (Step, Step)) {
    let (Step::Success(_, Some(ours)), Step::Success(_, Some(theirs))) = (&server, &client) else {
        panic!("{server:?} {client:?}")
    };
    assert_eq!(ours, theirs);
    assert_eq!(ours.len(), 64);
}

fn assert_refused((server, client): (Step, Step)) {
    assert!(matches!(&server, Step::Failure(packet) if packet[0] == 4), "{server:?}");
    assert_eq!(client, Step::Failure(vec![]));
}

fn assert_unanswered((server, client): (Step, Step)) {
    assert!(matches!(&server, Step::Unanswered(packet) if packet[0] == 4), "{server:?}");
    assert_eq!(client, Step::Failure(vec![]));
}

fn alice(password: &str) -> Box<dyn Conversation> {
    Mschapv2Client::new(Arc::new(OsRandom), b"alice", NtHash::of(password)).begin(origin())
}

fn origin() -> Origin {
    Origin { connection: "people".into(), local: [203, 0, 113, 1].into(), remote: [192, 0, 2, 7].into() }
}

fn free_radius(tls_version: &str) -> FreeRadius {
    let Pki { ca, server, .. } = pki();
    let files = [("ca.pem", &ca[..]), ("server.pem", &server.certificate), ("server.key", &server.key)];
    FreeRadius::start(files, tls_version)
}

fn by_radius(servers: &[(SocketAddr, &str)]) -> Radius {
    realm(servers, false)
}

fn realm(servers: &[(SocketAddr, &str)], trust_identity: bool) -> Radius {
    let server = |(address, secret): &(SocketAddr, &str)| Server {
        address: *address,
        secret: Secret::new(secret.as_bytes().to_vec()),
        tries: 2,
        timeout: Duration::from_millis(300),
        trust_identity,
    };
    Radius::new(Realm::new(servers.iter().map(server).collect(), "gateway.example"))
}

#[test]
fn each_conversation_has_its_own_challenges() {
    let users = [(b"alice".to_vec(), NtHash::of("secret"))];
    let server = Mschapv2Server::new(Arc::new(OsRandom), b"gateway", users);
    let keys = [(); 2].map(|()| {
        let mut conversation = server.begin(origin());
        let (ours, theirs) = talk(&mut *conversation, &mut *alice("secret"));
        assert_eq!(conversation.identity(), Some(&b"alice"[..]));
        let Step::Success(_, Some(key)) = &ours else { panic!("{ours:?}") };
        let key = key.clone();
        assert_same_key((ours, theirs));
        key
    });
    assert_ne!(keys[0], keys[1]);
    assert_refused(talk(&mut *server.begin(origin()), &mut *alice("Secret")));
}

#[test]
fn free_radius_judges_passwords() {
    let server = free_radius("1.3");
    let radius = by_radius(&[(server.address, SECRET)]);
    let mut conversation = radius.begin(origin());
    assert_same_key(talk(&mut *conversation, &mut *alice("secret")));
    assert_eq!(conversation.identity(), Some(&b"alice"[..]));
    let grant = Grant {
        ip4: Some([10, 98, 0, 200].into()),
        ip6: Some("2001:db8:98::200".parse().unwrap()),
        pools: vec![b"staff".to_vec()],
        session_timeout: Some(15),
        user_name: b"alice".to_vec(),
        origin: Some(origin()),
        class: vec![b"gold".to_vec(), b"blue".to_vec()],
        filters: vec![b"net".to_vec()],
        interim_interval: Some(600),
        ..Grant::default()
    };
    assert_eq!(conversation.grant(), Some(&grant));
    let mut conversation = radius.begin(origin());
    assert_refused(talk(&mut *conversation, &mut *alice("wrong")));
    assert_eq!(conversation.grant(), None);
    assert_eq!(conversation.identity(), None);
    // This server accepts every realm, and repeats it.
    let claimed = b"alice@elsewhere";
    for trust_identity in [false, true] {
        let mut conversation = realm(&[(server.address, SECRET)], trust_identity).begin(origin());
        let client = Mschapv2Client::new(Arc::new(OsRandom), claimed, NtHash::of("secret"));
        assert_same_key(talk(&mut *conversation, &mut *client.begin(origin())));
        assert_eq!(conversation.identity(), trust_identity.then_some(&claimed[..]));
        let grant = conversation.grant().unwrap();
        let prefix = Ip6Prefix::new("2001:db8:98:7::".parse().unwrap(), 64);
        assert_eq!((grant.ip6, grant.ip6_prefix), (None, prefix));
    }
}

#[test]
fn answer_with_a_wrong_secret_is_ignored() {
    let server = free_radius("1.3");
    assert_unanswered(talk(
        &mut *by_radius(&[(server.address, "other")]).begin(origin()),
        &mut *alice("secret"),
    ));
}

#[test]
fn asks_and_keeps_the_next_server_if_one_is_silent_or_gone() {
    let server = free_radius("1.3");
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let gone = UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).unwrap();
    let radius =
        by_radius(&[(silent.local_addr().unwrap(), SECRET), (gone, SECRET), (server.address, SECRET)]);
    assert_same_key(talk(&mut *radius.begin(origin()), &mut *alice("secret")));
    assert_same_key(talk(&mut *radius.begin(origin()), &mut *alice("secret")));
    // The silent server got both tries of the first conversation, and none of the second.
    silent.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    let requests = std::iter::from_fn(|| silent.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec()));
    let requests: Vec<Vec<u8>> = requests.collect();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1], "a retransmitted request is the same");
}

#[test]
fn conversation_fails_if_no_server_answers() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let radius = by_radius(&[(silent.local_addr().unwrap(), SECRET)]);
    assert_unanswered(talk(&mut *radius.begin(origin()), &mut *alice("secret")));
    assert_unanswered(talk(&mut *by_radius(&[]).begin(origin()), &mut *alice("secret")));
}

/// A certificate with its key, in PEM.
struct Credential {
    certificate: String,
    key: String,
}

/// An authority, a server and peers.
struct Pki {
    ca: String,
    server: Credential,
    alice: Credential,
    /// A certificate with only a common name.
    bob: Credential,
    /// A certificate of another authority with the same name.
    untrusted: Credential,
}

fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(|| {
        let authority = || {
            let mut ca = CertificateParams::default();
            ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            ca.distinguished_name.push(DnType::CommonName, "Test CA");
            CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap()
        };
        let credential = |ca: &CertifiedIssuer<'_, KeyPair>, name: &str, san: Option<SanType>| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.subject_alt_names.extend(san);
            Credential { certificate: params.signed_by(&key, ca).unwrap().pem(), key: key.serialize_pem() }
        };
        let mail = || Some(SanType::Rfc822Name("alice@example.org".try_into().unwrap()));
        let domain = SanType::DnsName("radius.example".try_into().unwrap());
        let (ca, other) = (authority(), authority());
        Pki {
            ca: ca.pem(),
            server: credential(&ca, "radius.example", Some(domain)),
            alice: credential(&ca, "Alice", mail()),
            bob: credential(&ca, "bob", None),
            untrusted: credential(&other, "Alice", mail()),
        }
    })
}

fn eap_tls(folder: &Path) -> EapTlsServer {
    let pki = pki();
    let write = |name: &str, content: &str| {
        let file = folder.join(name);
        fs::write(&file, content).unwrap();
        file
    };
    let authorities =
        Authorities::load(&[write("ca.pem", &pki.ca)], &[], CrlPolicy::Relaxed, SystemTime::now).unwrap();
    let (certificate, key) =
        (write("credential.pem", &pki.server.certificate), write("credential.key", &pki.server.key));
    EapTlsServer::load(&certificate, &key, Arc::new(authorities)).unwrap()
}

fn tls_client(
    name: impl AsRef<[u8]>,
    credential: Option<&Credential>,
    version: &'static SupportedProtocolVersion,
) -> TlsClient {
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(der(&pki().ca)).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let config = match credential {
        None => config.with_no_client_auth(),
        Some(credential) => {
            let key = PrivateKeyDer::from_pem_slice(credential.key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![der(&credential.certificate)], key).unwrap()
        }
    };
    TlsClient::new(name, config)
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

#[test]
fn certificates_prove_peers_with_both_versions_of_tls() {
    let folder = tempfile::tempdir().unwrap();
    let server = eap_tls(folder.path());
    for version in VERSIONS {
        for (name, credential) in [("alice@example.org", &pki().alice), ("bob", &pki().bob)] {
            let mut conversation = server.begin(origin());
            assert_same_key(talk(&mut *conversation, &mut tls_client(name, Some(credential), version)));
            assert_eq!(conversation.identity(), Some(name.as_bytes()));
        }
    }
}

#[test]
fn identity_is_the_same_under_every_name_of_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let server = eap_tls(folder.path());
    for (credential, name) in [(&pki().alice, &b"alice@example.org"[..]), (&pki().bob, b"bob")] {
        let der = CertificateDer::from_pem_slice(credential.certificate.as_bytes()).unwrap();
        let subject = certificate::subject(&der).unwrap().data;
        for claimed in [name, &subject] {
            let mut conversation = server.begin(origin());
            let mut client = tls_client(claimed, Some(credential), &version::TLS13);
            assert_same_key(talk(&mut *conversation, &mut client));
            assert_eq!(conversation.identity(), Some(name));
            assert_eq!(conversation.other_names(), [name]);
        }
    }
}

#[test]
fn refuses_a_peer_without_a_certificate_of_the_claimed_identity() {
    let folder = tempfile::tempdir().unwrap();
    let server = eap_tls(folder.path());
    for version in VERSIONS {
        for (name, credential) in [
            ("alice@example.org", None),
            ("alice@example.org", Some(&pki().untrusted)),
            ("bob@example.org", Some(&pki().alice)),
            // The certificate has alternative names, so its common name does not count.
            ("Alice", Some(&pki().alice)),
            ("", Some(&pki().alice)),
        ] {
            let mut conversation = server.begin(origin());
            assert_refused(talk(&mut *conversation, &mut tls_client(name, credential, version)));
            assert_eq!(conversation.identity(), None);
        }
    }
}

#[test]
fn free_radius_judges_certificates() {
    for (version, name) in [(&version::TLS12, "1.2"), (&version::TLS13, "1.3")] {
        let server = free_radius(name);
        let radius = by_radius(&[(server.address, SECRET)]);
        // By default, FreeRADIUS does not compare the claimed identity with the certificate, and
        // repeats it.
        for (claimed, trust_identity) in [("alice@example.org", false), ("bob", false), ("bob", true)] {
            let radius = realm(&[(server.address, SECRET)], trust_identity);
            let mut conversation = radius.begin(origin());
            let mut client = tls_client(claimed, Some(&pki().alice), version);
            assert_same_key(talk(&mut *conversation, &mut client));
            let name = trust_identity.then_some(claimed.as_bytes());
            assert_eq!(conversation.identity(), name, "{claimed}, {trust_identity}");
        }
        let mut client = tls_client("alice@example.org", Some(&pki().untrusted), version);
        assert_refused(talk(&mut *radius.begin(origin()), &mut client));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Checks that the conversation ends in the same way on both sides after a packet is truncated
    /// or changed.
    #[test]
    fn changed_tls_packets_end_the_conversation(number in 0usize..12, at: prop::sample::Index, value: u8, cut: bool) {
        static SERVER: OnceLock<EapTlsServer> = OnceLock::new();
        let server = SERVER.get_or_init(|| eap_tls(tempfile::tempdir().unwrap().path()));
        let mut client = tls_client("alice@example.org", Some(&pki().alice), &version::TLS13);
        let steps = talk_with_changes(&mut *server.begin(origin()), &mut client, |n, packet| {
            if n != number || packet.is_empty() {
                return;
            }
            let at = at.index(packet.len());
            if cut { packet.truncate(at) } else { packet[at] = value }
        });
        match steps.0 {
            Step::Success(..) => assert_same_key(steps),
            _ => assert_refused(steps),
        }
    }
}
