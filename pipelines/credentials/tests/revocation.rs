//! Revocation lists that are fetched from a server of HTTP, and files that change.

use super::{pki::*, *};
use crate::credentials::revocation::Publications;
use rcgen::{
    CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, KeyIdMethod, RevokedCertParams,
    SerialNumber,
};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant, SystemTime},
};
use time::OffsetDateTime;
use wayfarer_mobility::crypto::{
    PeerCertificates, PeerSignature, SignatureHashes, Signer, Verifier, VerifyError, VerifyErrorKind,
};

/// A server of HTTP that counts its requests. It runs until the test's program ends.
pub(super) struct Server {
    address: SocketAddr,
    content: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    requests: Arc<Mutex<Vec<String>>>,
    responder: Arc<Mutex<Option<Answer>>>,
}

/// Makes the answer to the body of a request.
type Answer = Box<dyn Fn(&[u8]) -> Vec<u8> + Send>;

impl Server {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self {
            address: listener.local_addr().unwrap(),
            content: Arc::default(),
            requests: Arc::default(),
            responder: Arc::default(),
        };
        let (content, requests) = (this.content.clone(), this.requests.clone());
        let responder = this.responder.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let lines = reader.by_ref().lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let length = head
                    .iter()
                    .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                reader.read_exact(&mut body).unwrap();
                let path = head[0].split(' ').nth(1).unwrap().to_owned();
                let found = match (&*responder.lock().unwrap(), &body[..]) {
                    (Some(answer), [_, ..]) => Some(answer(&body)),
                    _ => content.lock().unwrap().get(&path).cloned(),
                };
                requests.lock().unwrap().push(head.join("\n"));
                let (status, body) = match found {
                    Some(body) if body.starts_with(b"http://") => {
                        let to = String::from_utf8(body).unwrap();
                        (format!("302 Found\r\nLocation: {to}"), vec![])
                    }
                    Some(body) => ("200 OK".to_owned(), body),
                    None => ("404 Not Found".to_owned(), vec![]),
                };
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(&[head.as_bytes(), &body].concat());
            }
        });
        this
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers all requests that have a body.
    pub(super) fn answer(&self, answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) {
        *self.responder.lock().unwrap() = Some(Box::new(answer));
    }

    pub(super) fn put(&self, path: &str, content: Vec<u8>) {
        self.content.lock().unwrap().insert(path.into(), content);
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// Waits until so many requests have come. Whoever sent them may not wait for all answers.
    fn wait_for(&self, requests: usize) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.requests() < requests {
            assert!(Instant::now() < end, "{} of {requests} requests", self.requests());
            thread::yield_now();
        }
    }
}

/// Returns the parameters of a list that is valid from some days ago for nine days from now.
pub(super) fn list_params(days: u64, serials: &[u64]) -> CertificateRevocationListParams {
    let now = OffsetDateTime::now_utc();
    let ago = Duration::from_secs(86_400 * days);
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: now - ago,
        reason_code: None,
        invalidity_date: None,
    };
    CertificateRevocationListParams {
        this_update: now - ago,
        next_update: now + 9 * time::Duration::DAY,
        crl_number: SerialNumber::from(1u64),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

/// Returns a list of `ca` in DER that is valid from a day ago for nine days from now.
pub(super) fn list(ca: &Ca, serials: &[u64]) -> Vec<u8> {
    list_of(ca, 1, serials)
}

fn list_of(ca: &Ca, days: u64, serials: &[u64]) -> Vec<u8> {
    list_params(days, serials).signed_by(&ca.issuer).unwrap().der().to_vec()
}

pub(super) fn with_point(url: &str, serial: u64) -> CertificateParams {
    let mut params = params(NAME, serial);
    params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![url.to_owned()] }];
    params
}

/// A peer with a certificate, and how it proves that it has its key.
pub(super) struct Peer {
    certificates: PeerCertificates,
    signature: PeerSignature,
}

impl Peer {
    pub(super) fn new(ca: &Ca, params: &CertificateParams) -> Self {
        let key = key_pair(&rcgen::PKCS_ECDSA_P256_SHA256);
        Self::of(&Folder::new().signer_of(ca, params, &key).0)
    }

    /// Returns the peer that has this key.
    pub(super) fn of(signer: &CertificateSigner) -> Self {
        let hashes = SignatureHashes::ALL;
        let (method, data) = signer.sign(b"octets", hashes).unwrap();
        let signature = PeerSignature { method, data, octets: b"octets".to_vec(), hashes };
        Self { certificates: sent(signer.certificates()), signature }
    }

    /// Lets the peer send an intermediate authority.
    pub(super) fn add(&mut self, ca: &Ca) {
        self.add_der(ca.der.clone());
    }

    pub(super) fn add_der(&mut self, der: Vec<u8>) {
        self.certificates.chain.push(der);
    }

    /// Lets the peer bring along what responders say.
    pub(super) fn bring(&mut self, answers: &[Vec<u8>]) {
        self.certificates.ocsp = answers.to_vec();
    }

    /// Verifies the peer once.
    pub(super) fn verify_once(&self, authorities: &Authorities) -> Result<(), VerifyError> {
        authorities.verify(&fqdn(NAME), &self.certificates, &self.signature)
    }

    /// Verifies the peer without waiting for what is being fetched.
    fn verify_now(&self, authorities: &Authorities) -> Result<(), VerifyError> {
        authorities.verify_now(&fqdn(NAME), &self.certificates, &self.signature)
    }

    /// Verifies the peer, again until the result is known.
    pub(super) fn verify(&self, authorities: &Authorities) -> Result<(), VerifyError> {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            match self.verify_once(authorities) {
                Err(VerifyError { kind: VerifyErrorKind::Pending(number), .. }) => {
                    while authorities.is_pending(number) && Instant::now() < until {
                        thread::yield_now();
                    }
                }
                result => return result,
            }
        }
        panic!("it is pending for ever");
    }
}

pub(super) fn trusting(ca: &Ca, revocation: Revocation) -> Authorities {
    let folder = Folder::new();
    let file = folder.write("ca.pem", &ca.pem);
    Authorities::load(&[file], &[], CrlPolicy::Relaxed, SystemTime::now).unwrap().fetch(revocation)
}

pub(super) const BOTH: [Revocation; 2] = [Revocation::IfAvailable, Revocation::Required];

#[test]
fn list_is_fetched_once_and_decides() {
    let (server, root) = (Server::start(), Ca::root("root"));
    let url = server.url("/list");
    let [good, revoked] = [2, 3].map(|serial| Peer::new(&root, &with_point(&url, serial)));
    server.put("/list", list(&root, &[3]));
    for revocation in BOTH {
        let authorities = trusting(&root, revocation);
        assert_eq!(good.verify(&authorities), Ok(()));
        let why = revoked.verify(&authorities).unwrap_err();
        assert_eq!(why.kind, VerifyErrorKind::Revoked);
        assert!(why.words.starts_with("\"CN=gw.example.org\" was revoked on "), "{why}");
    }
    assert_eq!(server.requests(), 1, "all share it");
    let said = server.requests.lock().unwrap()[0].to_lowercase();
    for word in ["user-agent", "wayfarer", "ureq", "cookie", "referer"] {
        assert!(!said.contains(word), "{said}");
    }
    assert_eq!(revoked.verify(&trusting(&root, Revocation::Off)), Ok(()));
}

/// Waits until the server has had so many requests, and nothing is fetched from `url` any more.
pub(super) fn settle(server: &Server, requests: usize, url: &str) {
    let until = Instant::now() + Duration::from_secs(60);
    while server.requests() < requests || Publications::shared().is_fetching(url) {
        assert!(Instant::now() < until);
        thread::yield_now();
    }
}

#[test]
fn list_is_fetched_anew_before_it_expires() {
    let later = || SystemTime::now() + Duration::from_secs(8 * 86_400 + 43_200);
    for (case, next) in ["newer", "of another", "older"].into_iter().enumerate() {
        let (server, root) = (Server::start(), Ca::root("root"));
        let url = server.url("/list");
        let peer = Peer::new(&root, &with_point(&url, 2));
        server.put("/list", list(&root, &[]));
        assert_eq!(peer.verify(&trusting(&root, Revocation::Required)), Ok(()));
        let folder = Folder::new();
        let file = folder.write("ca.pem", &root.pem);
        let late =
            Authorities::load(&[file], &[], CrlPolicy::Relaxed, later).unwrap().fetch(Revocation::Required);
        server.put(
            "/list",
            match case {
                0 => list_of(&root, 0, &[2]),
                1 => list_of(&Ca::root("root"), 0, &[2]),
                _ => list_of(&root, 2, &[2]),
            },
        );
        assert_eq!(peer.verify(&late), Ok(()), "nobody waits for it");
        settle(&server, 2, &url);
        let kind = peer.verify(&late).map_err(|why| why.kind);
        let expected = if case == 0 { Err(VerifyErrorKind::Revoked) } else { Ok(()) };
        assert_eq!(kind, expected, "a list that is {next}");
    }
}

/// As after a restart of the gateway, when all come back.
#[test]
fn nobody_is_refused_because_many_are_asked_about() {
    let (server, root) = (Server::start(), Ca::root("root"));
    let authorities = trusting(&root, Revocation::Required);
    let peers: Vec<_> = (0..200)
        .map(|n| {
            server.put(&format!("/list{n}"), list(&root, &[3]));
            Peer::new(&root, &with_point(&server.url(&format!("/list{n}")), 2))
        })
        .collect();
    for peer in &peers {
        let at_first = peer.verify_once(&authorities);
        let is_pending = |why: &VerifyError| matches!(why.kind, VerifyErrorKind::Pending(_));
        assert!(at_first.as_ref().is_ok() || at_first.as_ref().is_err_and(is_pending), "{at_first:?}");
    }
    for peer in &peers {
        assert_eq!(peer.verify(&authorities), Ok(()));
    }
}

#[test]
fn redirections_are_not_followed() {
    let (server, other, root) = (Server::start(), Server::start(), Ca::root("root"));
    other.put("/list", list(&root, &[]));
    server.put("/list", other.url("/list").into_bytes());
    let peer = Peer::new(&root, &with_point(&server.url("/list"), 2));
    let refused = peer.verify(&trusting(&root, Revocation::Required)).unwrap_err();
    assert!(refused.words.contains("elsewhere"), "{refused}");
    assert_eq!((server.requests(), other.requests()), (1, 0));
}

#[test]
fn list_that_cannot_be_had_or_used_refuses_only_if_it_is_required() {
    let (server, root) = (Server::start(), Ca::root("root"));
    server.put("/namesake", list(&Ca::root("root"), &[2]));
    server.put("/other", list(&Ca::root("other"), &[2]));
    server.put("/junk", b"<html>".to_vec());
    let mut old = list(&root, &[2]);
    server.put("/cut", old.split_off(20));
    for (path, why) in [
        ("/namesake", "its signature is wrong"),
        ("/other", "it is a list of another issuer"),
        ("/junk", "it is not a revocation list"),
        ("/cut", "it is not a revocation list"),
        ("/none", "404"),
    ] {
        let peer = Peer::new(&root, &with_point(&server.url(path), 2));
        assert_eq!(peer.verify(&trusting(&root, Revocation::IfAvailable)), Ok(()), "{path}");
        let refused = peer.verify(&trusting(&root, Revocation::Required)).unwrap_err();
        assert_eq!(refused.kind, VerifyErrorKind::Revoked);
        assert!(refused.words.contains(path) && refused.words.contains(why), "{refused}");
    }
    // Without an address there is nothing to fetch.
    let peer = Peer::new(&root, &params(NAME, 2));
    assert_eq!(peer.verify(&trusting(&root, Revocation::IfAvailable)), Ok(()));
    assert!(peer.verify(&trusting(&root, Revocation::Required)).is_err());
    let peer = Peer::new(&root, &with_point("ldap://127.0.0.1/cn=root", 2));
    assert_eq!(peer.verify(&trusting(&root, Revocation::IfAvailable)), Ok(()));
}

/// Otherwise anybody could make the gateway send requests to anybody.
#[test]
fn nothing_is_fetched_for_a_peer_that_proved_nothing() {
    let (server, root) = (Server::start(), Ca::root("root"));
    let url = server.url("/list");
    let stranger = Peer::new(&Ca::root("stranger"), &with_point(&url, 2));
    let mut thief = Peer::new(&root, &with_point(&url, 2));
    thief.signature.octets = b"others".to_vec();
    let authorities = trusting(&root, Revocation::Required);
    assert_eq!(stranger.verify(&authorities).unwrap_err().kind, VerifyErrorKind::Issuer);
    assert_eq!(thief.verify(&authorities).unwrap_err().kind, VerifyErrorKind::Signature);
    assert_eq!(server.requests(), 0);
}

#[test]
fn whole_chain_is_looked_up() {
    let (server, root) = (Server::start(), Ca::root("root"));
    let mut of_sub = ca_params("sub");
    of_sub.serial_number = Some(9.into());
    of_sub.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![server.url("/root")] }];
    let sub = root.sub(of_sub);
    let mut peer = Peer::new(&sub, &with_point(&server.url("/sub"), 2));
    peer.add(&sub);
    server.put("/root", list(&root, &[9]));
    server.put("/sub", list(&sub, &[]));
    let why = peer.verify(&trusting(&root, Revocation::IfAvailable)).unwrap_err();
    assert!(why.words.starts_with("\"CN=sub\" was revoked on "), "{why}");
    server.wait_for(2);
    assert_eq!(server.requests(), 2);
}

#[test]
fn silent_server_delays_only_its_own_peers_and_only_once() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (server, root) = (Server::start(), Ca::root("root"));
    let authorities = trusting(&root, Revocation::Required);
    let of_silent = |n: u64| {
        let url = format!("http://{}/list{n}", silent.local_addr().unwrap());
        Peer::new(&root, &with_point(&url, 2))
    };
    let waiting: Vec<_> = (0..20).map(of_silent).collect();
    for peer in &waiting {
        let at_first = peer.verify_once(&authorities);
        assert!(matches!(at_first.unwrap_err().kind, VerifyErrorKind::Pending(_)));
    }
    server.put("/list", list(&root, &[]));
    let began = Instant::now();
    assert_eq!(Peer::new(&root, &with_point(&server.url("/list"), 2)).verify(&authorities), Ok(()));
    assert!(began.elapsed() < Duration::from_secs(4), "it does not wait for the silent one");
    for peer in waiting.iter().chain([&of_silent(20)]) {
        let refused = peer.verify(&authorities).unwrap_err();
        assert!(refused.words.contains("timeout"), "{refused}");
    }
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn what_has_not_come_cannot_be_had_if_nobody_may_wait() {
    let (silent, root) = (TcpListener::bind("127.0.0.1:0").unwrap(), Ca::root("root"));
    let url = format!("http://{}/list", silent.local_addr().unwrap());
    let peer = Peer::new(&root, &with_point(&url, 2));
    for revocation in BOTH {
        let authorities = trusting(&root, revocation);
        let at_first = peer.verify_once(&authorities).unwrap_err();
        assert!(matches!(at_first.kind, VerifyErrorKind::Pending(_)));
        let verified = peer.verify_now(&authorities);
        match revocation {
            Revocation::Required => {
                let why = verified.unwrap_err();
                assert_eq!(why.kind, VerifyErrorKind::Revoked);
                assert!(why.words.ends_with(&format!("{url:?}: it has not come in time")), "{why}");
            }
            _ => assert_eq!(verified, Ok(())),
        }
    }
}

#[test]
fn files_are_read_again_when_they_change() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    let peer = Peer::new(&root, &params(NAME, 2));
    let (ca, crl) = (folder.write("ca.pem", &root.pem), folder.write("crl.der", list(&root, &[])));
    let load = |crl| Authorities::load(&[&ca], &[crl], CrlPolicy::Relaxed, SystemTime::now).unwrap();
    let authorities = load(&crl);
    assert_eq!(peer.verify(&authorities), Ok(()));
    folder.write("crl.der", list(&root, &[2, 3]));
    assert_eq!(peer.verify(&authorities).unwrap_err().kind, VerifyErrorKind::Revoked);
    folder.write("crl.der", b"broken");
    assert_eq!(peer.verify(&authorities).unwrap_err().kind, VerifyErrorKind::Revoked, "those before hold");
    fs::remove_file(&crl).unwrap();
    assert_eq!(peer.verify(&authorities).unwrap_err().kind, VerifyErrorKind::Revoked);
    folder.write("crl.der", list(&root, &[3, 4, 5]));
    assert_eq!(peer.verify(&authorities), Ok(()));
}
