//! EAP-TLS waits for what an authority publishes about a peer's certificate.

use super::*;
use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, KeyIdMethod, KeyUsagePurpose, RevokedCertParams,
    SerialNumber,
};
use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    thread,
};
use time::OffsetDateTime;
use wayfarer::credentials::Revocation;
use wayfarer_mobility::crypto::VerifyErrorKind;

/// The number of a certificate that is revoked.
const REVOKED: u64 = 3;

/// An authority that publishes a list.
struct Publisher {
    ca: CertifiedIssuer<'static, KeyPair>,
    url: String,
}

impl Publisher {
    /// Starts its server of HTTP, which answers nothing if it is not to be had.
    fn start(is_to_be_had: bool) -> Self {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.distinguished_name.push(DnType::CommonName, "People");
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let now = OffsetDateTime::now_utc();
        let list = CertificateRevocationListParams {
            this_update: now - time::Duration::DAY,
            next_update: now + time::Duration::DAY,
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(REVOKED),
                revocation_time: now - time::Duration::HOUR,
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&ca).unwrap().der().to_vec();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/list", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().filter(|_| is_to_be_had) {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", list.len());
                stream.write_all(&[head.as_bytes(), &list].concat()).unwrap();
            }
        });
        Self { ca, url }
    }

    fn server(&self, revocation: Revocation) -> EapTlsServer {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| {
            let file = folder.path().join(name);
            fs::write(&file, content).unwrap();
            file
        };
        let people = [write("people.pem", &self.ca.pem())];
        let authorities = Authorities::load(&people, &[], CrlPolicy::Relaxed, SystemTime::now).unwrap();
        let server = &pki().server;
        let (certificate, key) = (write("own.pem", &server.certificate), write("own.key", &server.key));
        EapTlsServer::load(&certificate, &key, Arc::new(authorities.fetch(revocation))).unwrap()
    }

    fn issue(&self, serial: u64) -> Credential {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "carol");
        params.serial_number = Some(SerialNumber::from(serial));
        params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![self.url.clone()] }];
        Credential { certificate: params.signed_by(&key, &self.ca).unwrap().pem(), key: key.serialize_pem() }
    }
}

#[test]
fn the_first_peer_waits_for_the_list_of_its_authority() {
    for version in VERSIONS {
        for revocation in [Revocation::IfAvailable, Revocation::Required] {
            let publisher = Publisher::start(true);
            let server = publisher.server(revocation);
            let mut conversation = server.begin(origin());
            let revoked = publisher.issue(REVOKED);
            assert_refused(talk(&mut *conversation, &mut tls_client("carol", Some(&revoked), version)));
            let why = conversation.refusal().unwrap();
            assert_eq!(why.kind, VerifyErrorKind::Revoked);
            assert!(why.words.starts_with("\"CN=carol\" was revoked on "), "{why}");
            let good = publisher.issue(2);
            let mut client = tls_client("carol", Some(&good), version);
            assert_same_key(talk(&mut *server.begin(origin()), &mut client));
        }
    }
}

/// A server that waits for nothing.
#[derive(Debug)]
struct Impatient {
    server: Box<dyn Conversation>,
    /// The certificate that it would wait for.
    certificate: Option<Vec<u8>>,
}

impl Conversation for Impatient {
    fn handle(&mut self, packet: &[u8]) -> Step {
        match self.server.handle(packet) {
            Step::Wait(_) => {
                self.certificate = self.server.certificate().map(<[u8]>::to_vec);
                self.server.stop_waiting();
                self.server.handle(packet)
            }
            step => step,
        }
    }

    fn identity(&self) -> Option<&[u8]> {
        self.server.identity()
    }
}

#[test]
fn a_list_that_is_not_waited_for_counts_as_one_that_cannot_be_had() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/list", silent.local_addr().unwrap());
    let publisher = Publisher { url, ..Publisher::start(false) };
    let carol = publisher.issue(2);
    let der = CertificateDer::from_pem_slice(carol.certificate.as_bytes()).unwrap();
    for (revocation, is_accepted) in [(Revocation::IfAvailable, true), (Revocation::Required, false)] {
        let server = publisher.server(revocation).begin(origin());
        let mut conversation = Impatient { server, certificate: None };
        let steps = talk(&mut conversation, &mut tls_client("carol", Some(&carol), &version::TLS13));
        assert_eq!(conversation.certificate.as_deref(), Some(&*der));
        if is_accepted {
            assert_same_key(steps);
        } else {
            assert_refused(steps);
            let why = conversation.server.refusal().unwrap().words;
            assert!(why.ends_with("it has not come in time"), "{why}");
        }
    }
}

#[test]
fn a_list_that_cannot_be_had_counts_as_the_policy_says() {
    let publisher = Publisher::start(false);
    let carol = publisher.issue(2);
    for (revocation, is_accepted) in [(Revocation::IfAvailable, true), (Revocation::Required, false)] {
        let server = publisher.server(revocation);
        let mut conversation = server.begin(origin());
        let steps = talk(&mut *conversation, &mut tls_client("carol", Some(&carol), &version::TLS13));
        if is_accepted {
            assert_same_key(steps);
        } else {
            assert_refused(steps);
            let why = conversation.refusal().unwrap().words;
            assert!(why.contains(&publisher.url), "{why}");
        }
    }
}
