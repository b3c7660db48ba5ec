//! EAP methods of both sides, and FreeRADIUS behind us.
//!
//! Needs the Debian package freeradius.

mod free_radius;
mod radius;
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
        radius::{
            Radius,
            question::{Realm, Server},
        },
    },
    crypto::Secret,
};

/// What a conversation says to a packet; servers that it wants to be asked are asked.
fn handle(conversation: &mut dyn Conversation, packet: &[u8]) -> Step {
    match conversation.handle(packet) {
        Step::Ask => {
            let (start, mut sockets) = (Instant::now(), RadiusSockets::default());
            let question = conversation.question().expect("what is to be asked");
            sockets.ask(start.elapsed(), 0, [192, 0, 2, 7].into(), question);
            loop {
                sockets.turn(start.elapsed());
                match sockets.poll() {
                    Some((0, reply)) => return conversation.answered(reply),
                    _ => std::thread::yield_now(),
                }
            }
        }
        step => step,
    }
}

/// Lets both talk until the server has an end: what each ends with.
fn talk(server: &mut dyn Conversation, client: &mut dyn Conversation) -> (Step, Step) {
    meddled(server, client, |_, _| ())
}

/// The same, where `meddle` changes the client's packet of this number.
fn meddled(
    server: &mut dyn Conversation,
    client: &mut dyn Conversation,
    meddle: impl Fn(usize, &mut Vec<u8>),
) -> (Step, Step) {
    let mut packet = vec![];
    for number in 0..200 {
        let step = handle(server, &packet);
        let (Step::Send(request) | Step::Success(request, _) | Step::Failure(request)) = &step else {
            panic!("nobody else is asked")
        };
        match (&step, client.handle(request)) {
            (Step::Send(_), Step::Send(response)) => packet = response,
            // A client that gave up says nothing more.
            (Step::Send(_), _) => packet = vec![],
            (_, end) => return (step, end),
        }
        meddle(number, &mut packet);
    }
    panic!("no end");
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

fn alice(password: &str) -> Box<dyn Conversation> {
    Mschapv2Client::new(Arc::new(OsRandom), b"alice", NtHash::of(password)).begin(b"")
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
fn each_conversation_has_challenges_of_its_own() {
    let users = [(b"alice".to_vec(), NtHash::of("secret"))];
    let server = Mschapv2Server::new(Arc::new(OsRandom), b"gateway", users);
    let keys = [(); 2].map(|()| {
        let mut conversation = server.begin(b"");
        let (ours, theirs) = talk(&mut *conversation, &mut *alice("secret"));
        assert_eq!(conversation.identity(), Some(&b"alice"[..]));
        let Step::Success(_, Some(key)) = &ours else { panic!("{ours:?}") };
        let key = key.clone();
        assert_same_key((ours, theirs));
        key
    });
    assert_ne!(keys[0], keys[1]);
    assert_refused(talk(&mut *server.begin(b""), &mut *alice("Secret")));
}

#[test]
fn free_radius_judges_passwords() {
    let server = free_radius("1.3");
    let radius = by_radius(&[(server.address, SECRET)]);
    let mut conversation = radius.begin(b"");
    assert_same_key(talk(&mut *conversation, &mut *alice("secret")));
    assert_eq!(conversation.identity(), Some(&b"alice"[..]));
    let mut conversation = radius.begin(b"");
    assert_refused(talk(&mut *conversation, &mut *alice("wrong")));
    assert_eq!(conversation.identity(), None);
    // This server takes every realm and repeats it.
    let claimed = b"alice@elsewhere";
    for trust_identity in [false, true] {
        let mut conversation = realm(&[(server.address, SECRET)], trust_identity).begin(b"");
        let client = Mschapv2Client::new(Arc::new(OsRandom), claimed, NtHash::of("secret"));
        assert_same_key(talk(&mut *conversation, &mut *client.begin(b"")));
        assert_eq!(conversation.identity(), trust_identity.then_some(&claimed[..]));
    }
}

#[test]
fn a_wrong_secret_is_no_answer() {
    let server = free_radius("1.3");
    assert_refused(talk(&mut *by_radius(&[(server.address, "other")]).begin(b""), &mut *alice("secret")));
}

#[test]
fn where_a_server_is_silent_or_gone_the_next_one_is_asked_and_kept() {
    let server = free_radius("1.3");
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let gone = UdpSocket::bind("127.0.0.1:0").and_then(|s| s.local_addr()).unwrap();
    let radius =
        by_radius(&[(silent.local_addr().unwrap(), SECRET), (gone, SECRET), (server.address, SECRET)]);
    assert_same_key(talk(&mut *radius.begin(b""), &mut *alice("secret")));
    assert_same_key(talk(&mut *radius.begin(b""), &mut *alice("secret")));
    // Both tries of the first conversation, and nothing of the second.
    silent.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    let asked = std::iter::from_fn(|| silent.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec()));
    let asked: Vec<Vec<u8>> = asked.collect();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], asked[1], "a request that is sent again is the same");
}

#[test]
fn where_nobody_answers_there_is_an_end() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let radius = by_radius(&[(silent.local_addr().unwrap(), SECRET)]);
    assert_refused(talk(&mut *radius.begin(b""), &mut *alice("secret")));
    assert_refused(talk(&mut *by_radius(&[]).begin(b""), &mut *alice("secret")));
}

/// A certificate with its key, in PEM.
struct Own {
    certificate: String,
    key: String,
}

/// An authority, a server and peers.
struct Pki {
    ca: String,
    server: Own,
    alice: Own,
    /// With a common name only.
    bob: Own,
    /// By another authority of the same name.
    stranger: Own,
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
        let own = |ca: &CertifiedIssuer<'_, KeyPair>, name: &str, san: Option<SanType>| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.subject_alt_names.extend(san);
            Own { certificate: params.signed_by(&key, ca).unwrap().pem(), key: key.serialize_pem() }
        };
        let mail = || Some(SanType::Rfc822Name("alice@example.org".try_into().unwrap()));
        let domain = SanType::DnsName("radius.example".try_into().unwrap());
        let (ca, other) = (authority(), authority());
        Pki {
            ca: ca.pem(),
            server: own(&ca, "radius.example", Some(domain)),
            alice: own(&ca, "Alice", mail()),
            bob: own(&ca, "bob", None),
            stranger: own(&other, "Alice", mail()),
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
    let (certificate, key) = (write("own.pem", &pki.server.certificate), write("own.key", &pki.server.key));
    EapTlsServer::load(&certificate, &key, Arc::new(authorities)).unwrap()
}

fn tls_client(
    name: impl AsRef<[u8]>,
    own: Option<&Own>,
    version: &'static SupportedProtocolVersion,
) -> TlsClient {
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(der(&pki().ca)).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![der(&own.certificate)], key).unwrap()
        }
    };
    TlsClient::new(name, config)
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

#[test]
fn certificates_prove_peers_by_both_versions_of_tls() {
    let folder = tempfile::tempdir().unwrap();
    let server = eap_tls(folder.path());
    for version in VERSIONS {
        for (name, own) in [("alice@example.org", &pki().alice), ("bob", &pki().bob)] {
            let mut conversation = server.begin(b"");
            assert_same_key(talk(&mut *conversation, &mut tls_client(name, Some(own), version)));
            assert_eq!(conversation.identity(), Some(name.as_bytes()));
        }
    }
}

#[test]
fn a_certificate_is_one_owner_by_whichever_of_its_names_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let server = eap_tls(folder.path());
    for (own, name) in [(&pki().alice, &b"alice@example.org"[..]), (&pki().bob, b"bob")] {
        let der = CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap();
        let subject = certificate::subject(&der).unwrap().data;
        for claimed in [name, &subject] {
            let mut conversation = server.begin(b"");
            let mut client = tls_client(claimed, Some(own), &version::TLS13);
            assert_same_key(talk(&mut *conversation, &mut client));
            assert_eq!(conversation.identity(), Some(name));
            assert_eq!(conversation.other_names(), [name]);
        }
    }
}

#[test]
fn without_the_certificate_of_who_a_peer_claims_to_be_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = eap_tls(folder.path());
    for version in VERSIONS {
        for (name, own) in [
            ("alice@example.org", None),
            ("alice@example.org", Some(&pki().stranger)),
            ("bob@example.org", Some(&pki().alice)),
            // There are alternative names, so the common name is none.
            ("Alice", Some(&pki().alice)),
            ("", Some(&pki().alice)),
        ] {
            let mut conversation = server.begin(b"");
            assert_refused(talk(&mut *conversation, &mut tls_client(name, own, version)));
            assert_eq!(conversation.identity(), None);
        }
    }
}

#[test]
fn free_radius_judges_certificates() {
    for (version, name) in [(&version::TLS12, "1.2"), (&version::TLS13, "1.3")] {
        let server = free_radius(name);
        let radius = by_radius(&[(server.address, SECRET)]);
        // As it comes, it does not look whether the certificate is of who the peer says it is, and
        // repeats that.
        for (claimed, trust_identity) in [("alice@example.org", false), ("bob", false), ("bob", true)] {
            let radius = realm(&[(server.address, SECRET)], trust_identity);
            let mut conversation = radius.begin(b"");
            let mut client = tls_client(claimed, Some(&pki().alice), version);
            assert_same_key(talk(&mut *conversation, &mut client));
            let name = trust_identity.then_some(claimed.as_bytes());
            assert_eq!(conversation.identity(), name, "{claimed}, {trust_identity}");
        }
        let mut client = tls_client("alice@example.org", Some(&pki().stranger), version);
        assert_refused(talk(&mut *radius.begin(b""), &mut client));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A packet cut short or with a byte changed leads to an end, which is the same for both.
    #[test]
    fn meddling_with_tls_ends(number in 0usize..12, at: prop::sample::Index, value: u8, cut: bool) {
        static SERVER: OnceLock<EapTlsServer> = OnceLock::new();
        let server = SERVER.get_or_init(|| eap_tls(tempfile::tempdir().unwrap().path()));
        let mut client = tls_client("alice@example.org", Some(&pki().alice), &version::TLS13);
        let ends = meddled(&mut *server.begin(b""), &mut client, |n, packet| {
            if n != number || packet.is_empty() {
                return;
            }
            let at = at.index(packet.len());
            if cut { packet.truncate(at) } else { packet[at] = value }
        });
        match ends.0 {
            Step::Success(..) => assert_same_key(ends),
            _ => assert_refused(ends),
        }
    }
}
