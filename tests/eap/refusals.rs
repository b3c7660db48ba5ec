//! EAP-TLS says why it refused a certificate: to us in the words of the authorities, which go into the
//! log, and to the peer by the alert of their kind.

use super::*;
use rcgen::{
    CertificateRevocationListParams, ExtendedKeyUsagePurpose, KeyIdMethod, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::{
    AlertDescription,
    sign::{CertifiedKey, SingleCertAndKey},
};
use wayfarer_mobility::crypto::VerifyErrorKind;

/// The serial number of the peer's certificate.
const SERIAL: u64 = 2;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name.push(DnType::CommonName, "People");
    CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap()
}

/// Returns a list of this authority that revokes these certificates, and has expired.
fn expired_list(ca: &CertifiedIssuer<'_, KeyPair>, serials: &[u64]) -> String {
    let revoked = |serial: &u64| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2024, 6, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2025, 1, 1),
        crl_number: SerialNumber::from(1u64),
        issuing_distribution_point: None,
        revoked_certs: serials.iter().map(revoked).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(ca).unwrap().pem().unwrap()
}

/// Makes a server for the peers of this authority, with its files in this folder.
fn server(
    folder: &Path,
    ca: &CertifiedIssuer<'_, KeyPair>,
    list: Option<&str>,
    policy: CrlPolicy,
) -> EapTlsServer {
    let write = |name: &str, content: &str| {
        let file = folder.join(name);
        fs::write(&file, content).unwrap();
        file
    };
    let lists: Vec<_> = list.map(|list| write("list.pem", list)).into_iter().collect();
    let people = [write("people.pem", &ca.pem())];
    let authorities = Authorities::load(&people, &lists, policy, SystemTime::now).unwrap();
    let own = &pki().server;
    let (certificate, key) = (write("own.pem", &own.certificate), write("own.key", &own.key));
    EapTlsServer::load(&certificate, &key, Arc::new(authorities)).unwrap()
}

/// Makes carol's certificate, changed in this way.
fn carol(ca: &CertifiedIssuer<'_, KeyPair>, change: fn(&mut CertificateParams)) -> Credential {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "carol");
    params.serial_number = Some(SerialNumber::from(SERIAL));
    change(&mut params);
    Credential { certificate: params.signed_by(&key, ca).unwrap().pem(), key: key.serialize_pem() }
}

#[test]
fn words_of_a_refusal_come_through_tls() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), authority());
    let as_it_is: fn(&mut CertificateParams) = |_| {};
    let has_expired: fn(&mut CertificateParams) = |params| params.not_after = date_time_ymd(2025, 1, 1);
    let is_for_code: fn(&mut CertificateParams) =
        |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let (list, revoking) = (expired_list(&ca, &[]), expired_list(&ca, &[SERIAL]));
    for (list, policy, change, kind, words, alert) in [
        (
            Some(&list[..]),
            CrlPolicy::Strict,
            as_it_is,
            VerifyErrorKind::Revoked,
            "the revocation list of its issuer expired on 2025-01-01T00:00:00Z",
            AlertDescription::CertificateRevoked,
        ),
        (
            None,
            CrlPolicy::Strict,
            as_it_is,
            VerifyErrorKind::Revoked,
            "nothing that is up to date says that it and its chain are not revoked",
            AlertDescription::CertificateRevoked,
        ),
        (
            Some(&revoking[..]),
            CrlPolicy::Relaxed,
            as_it_is,
            VerifyErrorKind::Revoked,
            "\"CN=carol\" was revoked on 2024-06-01T00:00:00Z",
            AlertDescription::CertificateRevoked,
        ),
        (
            None,
            CrlPolicy::Relaxed,
            has_expired,
            VerifyErrorKind::Expired,
            "\"CN=carol\" expired on 2025-01-01T00:00:00Z",
            AlertDescription::CertificateExpired,
        ),
        (
            None,
            CrlPolicy::Relaxed,
            is_for_code,
            VerifyErrorKind::Certificate,
            "its extended key usage permits neither IPsec nor TLS",
            AlertDescription::BadCertificate,
        ),
    ] {
        let (server, carol) = (server(folder.path(), &ca, list, policy), carol(&ca, change));
        for version in VERSIONS {
            let mut conversation = server.begin(origin());
            let mut client = tls_client("carol", Some(&carol), version);
            assert_refused(talk(&mut *conversation, &mut client));
            assert_eq!(conversation.refusal(), Some(kind.because(words)));
            assert_eq!(client.alert, Some(alert), "{words}");
        }
    }
}

/// Makes a client that shows this certificate, but signs with a key of its own.
fn client_with_another_key(certificate: &str, version: &'static SupportedProtocolVersion) -> TlsClient {
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from_pem_slice(KeyPair::generate().unwrap().serialize_pem().as_bytes()).unwrap();
    let key = provider.key_provider.load_private_key(key).unwrap();
    let shown = CertifiedKey::new(vec![der(certificate)], key);
    let mut roots = RootCertStore::empty();
    roots.add(der(&pki().ca)).unwrap();
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    TlsClient::new("carol", config)
}

#[test]
fn a_certificate_without_its_key_proves_nothing() {
    let (folder, ca) = (tempfile::tempdir().unwrap(), authority());
    let (server, carol) = (server(folder.path(), &ca, None, CrlPolicy::Relaxed), carol(&ca, |_| {}));
    for version in VERSIONS {
        let mut conversation = server.begin(origin());
        let mut client = client_with_another_key(&carol.certificate, version);
        assert_refused(talk(&mut *conversation, &mut client));
        assert_eq!(conversation.refusal(), Some(VerifyErrorKind::Signature.into()));
        assert_eq!(conversation.identity(), None);
        assert_eq!(client.alert, Some(AlertDescription::DecryptError));
    }
}

#[test]
fn a_refusal_is_about_one_conversation() {
    let (folder, ca, stranger) = (tempfile::tempdir().unwrap(), authority(), authority());
    let server = server(folder.path(), &ca, None, CrlPolicy::Relaxed);
    let (good, unknown) = (carol(&ca, |_| {}), carol(&stranger, |_| {}));
    for version in VERSIONS {
        let mut conversation = server.begin(origin());
        assert_refused(talk(&mut *conversation, &mut tls_client("carol", Some(&unknown), version)));
        assert_eq!(conversation.refusal().unwrap().kind, VerifyErrorKind::Issuer);
        let mut conversation = server.begin(origin());
        assert_same_key(talk(&mut *conversation, &mut tls_client("carol", Some(&good), version)));
        assert_eq!(conversation.refusal(), None);
        let mut conversation = server.begin(origin());
        assert_refused(talk(&mut *conversation, &mut tls_client("carol", None, version)));
        assert_eq!(conversation.refusal().unwrap().words, "the peer sent none");
    }
}
