//! The status of certificates by OCSP, with `openssl` as the responder.

use super::{pki::*, revocation::*, *};
use crate::credentials::revocation::{Issuer, list::FetchedList, ocsp};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint,
    CrlScope, CustomExtension, ExtendedKeyUsagePurpose, KeyPair,
};
use std::{fs, sync::Arc, time::SystemTime};
use wayfarer_mobility::crypto::VerifyErrorKind;

/// The files of `openssl ocsp` for an authority whose certificate 3 is revoked.
pub(super) struct Responder(Folder);

impl Responder {
    pub(super) fn new(ca: &Ca) -> Self {
        let folder = Folder::new();
        folder.write("ca.pem", &ca.pem);
        folder.write("ca.key", ca.issuer.key().serialize_pem());
        let line =
            |kind, revoked, serial| format!("{kind}\t491231000000Z\t{revoked}\t{serial}\tunknown\t/CN=x\n");
        let index = [line("V", "", "02"), line("R", "250101000000Z", "03")].concat();
        folder.write("index", index);
        Self(folder)
    }

    /// Returns the answer to a request, signed with the key of the files `signer`.
    pub(super) fn answer(&self, request: &[u8], signer: &str) -> Vec<u8> {
        self.0.write("request", request);
        let command = format!(
            "ocsp -index index -CA ca.pem -rsigner {signer}.pem -rkey {signer}.key -ndays 1 -reqin request -respout answer"
        );
        openssl(&self.0.path(""), &command).unwrap();
        fs::read(self.0.path("answer")).unwrap()
    }

    /// Writes the files of another signer that the authority has certified.
    pub(super) fn certify(&self, ca: &Ca, name: &str, usages: &[ExtendedKeyUsagePurpose]) {
        let mut params = params(name, 100);
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate().unwrap();
        self.0.write(&format!("{name}.pem"), params.signed_by(&key, &ca.issuer).unwrap().pem());
        self.0.write(&format!("{name}.key"), key.serialize_pem());
    }
}

/// Returns the parameters of a certificate that names a responder.
pub(super) fn with_responder(url: &str, serial: u64) -> CertificateParams {
    let tlv = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
    let ocsp = hex("0608 2b06010505073001");
    let access = tlv(0x30, &tlv(0x30, &[ocsp, tlv(0x86, url.as_bytes())].concat()));
    let mut params = params(NAME, serial);
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access)];
    params
}

/// Starts a server whose answers have this signer.
fn serve(responder: &Arc<Responder>, signer: &'static str) -> String {
    let server = Server::start();
    let responder = responder.clone();
    server.answer(move |request| responder.answer(request, signer));
    server.url("/")
}

#[test]
fn responder_says_which_certificate_is_revoked() {
    let root = Ca::root("root");
    let responder = Arc::new(Responder::new(&root));
    responder.certify(&root, "delegate", &[ExtendedKeyUsagePurpose::OcspSigning]);
    for signer in ["ca", "delegate"] {
        let url = serve(&responder, signer);
        for revocation in BOTH {
            let authorities = trusting(&root, revocation);
            let verify = |serial| Peer::new(&root, &with_responder(&url, serial)).verify(&authorities);
            assert_eq!(verify(2), Ok(()), "{signer}");
            let why = verify(3).unwrap_err();
            let words = "\"CN=gw.example.org\" was revoked on 2025-01-01T00:00:00Z";
            assert_eq!((why.kind, &why.words[..]), (VerifyErrorKind::Revoked, words), "{signer}");
        }
    }
}

#[test]
fn nobody_else_may_answer() {
    let (root, other) = (Ca::root("root"), Ca::root("other"));
    let responder = Arc::new(Responder::new(&root));
    responder.certify(&root, "peer", &[ExtendedKeyUsagePurpose::ClientAuth]);
    responder.certify(&other, "stranger", &[ExtendedKeyUsagePurpose::OcspSigning]);
    for signer in ["peer", "stranger"] {
        let url = serve(&responder, signer);
        // It would say that this one is revoked.
        let peer = Peer::new(&root, &with_responder(&url, 3));
        assert_eq!(peer.verify(&trusting(&root, Revocation::IfAvailable)), Ok(()), "{signer}");
        let why = peer.verify(&trusting(&root, Revocation::Required)).unwrap_err();
        assert!(why.words.contains("of somebody who may not answer"), "{signer}: {why}");
    }
    // The answer about another certificate says nothing of this one.
    let url = serve(&responder, "ca");
    let unknown = Peer::new(&root, &with_responder(&url, 77));
    assert!(unknown.verify(&trusting(&root, Revocation::Required)).is_err());
    assert_eq!(unknown.verify(&trusting(&root, Revocation::IfAvailable)), Ok(()));
}

/// The peer's issuer has a responder, and the authority above it a list for other authorities.
#[test]
fn answers_and_lists_cover_a_chain_together() {
    let (root, lists) = (Ca::root("root"), Server::start());
    let (here, elsewhere) = (lists.url("/list"), "http://elsewhere.test/list".to_owned());
    for (of, revoked, point, scope, is_accepted) in [
        (9, 8, &here, CrlScope::CaCertsOnly, true),
        (10, 8, &here, CrlScope::UserCertsOnly, false),
        (11, 8, &elsewhere, CrlScope::CaCertsOnly, false),
        (12, 12, &here, CrlScope::CaCertsOnly, false),
    ] {
        let mut of_middle = ca_params("middle");
        of_middle.serial_number = Some(u64::into(of));
        let url = format!("{here}?{of}");
        let point = if *point == here { url.clone() } else { point.clone() };
        of_middle.crl_distribution_points = vec![CrlDistributionPoint { uris: vec![url.clone()] }];
        let middle = root.sub(of_middle);
        let point = CrlIssuingDistributionPoint {
            distribution_point: CrlDistributionPoint { uris: vec![point] },
            scope: Some(scope),
        };
        let list = CertificateRevocationListParams {
            issuing_distribution_point: Some(point),
            ..list_params(1, &[revoked])
        };
        lists.put(&format!("/list?{of}"), list.signed_by(&root.issuer).unwrap().der().to_vec());
        let responder = serve(&Arc::new(Responder::new(&middle)), "ca");
        let mut peer = Peer::new(&middle, &with_responder(&responder, 2));
        peer.add(&middle);
        let verified = peer.verify(&trusting(&root, Revocation::Required));
        assert_eq!(verified.is_ok(), is_accepted, "{of}: {verified:?}");
    }
}

/// webpki does not read such a list, so it says nothing of anybody.
#[test]
fn list_whose_scope_has_no_name_is_none() {
    let (root, server) = (Ca::root("root"), Server::start());
    let Responder(folder) = Responder::new(&root);
    folder.write("crlnumber", "01\n");
    let config = "[ca]\ndefault_ca=own\n[own]\ndatabase=index\ncrlnumber=crlnumber\ndefault_md=sha256\n\
                  default_crl_days=9\ncrl_extensions=scope\n[scope]\nissuingDistributionPoint=critical,@point\n\
                  [point]\nonlyuser=TRUE\n";
    folder.write("config", config);
    openssl(&folder.path(""), "ca -config config -gencrl -keyfile ca.key -cert ca.pem -out list.pem")
        .unwrap();
    openssl(&folder.path(""), "crl -in list.pem -outform DER -out list").unwrap();
    server.put("/list", fs::read(folder.path("list")).unwrap());
    for serial in [2, 3] {
        let peer = Peer::new(&root, &with_point(&server.url("/list"), serial));
        assert_eq!(peer.verify(&trusting(&root, Revocation::IfAvailable)), Ok(()));
        let why = peer.verify(&trusting(&root, Revocation::Required)).unwrap_err();
        assert!(why.words.contains("it has a part that is not supported"), "{why}");
    }
}

#[test]
fn list_speaks_if_the_responder_does_not() {
    let root = Ca::root("root");
    let server = Server::start();
    server.put("/list", list(&root, &[3]));
    let peer = |serial| {
        let mut params = with_responder(&server.url("/nothing"), serial);
        params.crl_distribution_points = with_point(&server.url("/list"), serial).crl_distribution_points;
        Peer::new(&root, &params)
    };
    let authorities = trusting(&root, Revocation::Required);
    assert_eq!(peer(2).verify(&authorities), Ok(()));
    assert_eq!(peer(3).verify(&authorities).unwrap_err().kind, VerifyErrorKind::Revoked);
}

/// Whoever is on the way can change what comes, and must not change what it says.
#[test]
fn changed_answers_and_lists_never_say_something_else() {
    let root = Ca::root("root");
    let der = rustls_pki_types::CertificateDer::from(root.der.clone());
    let certificate = webpki::EndEntityCert::try_from(&der).unwrap();
    let key = certificate.subject_public_key_info().to_vec();
    let issuer = Issuer { name: certificate.subject().to_vec(), key };
    let (serial, now) = ([3], SystemTime::now());
    let request = ocsp::request(&issuer, &serial).unwrap();
    let answer = Responder::new(&root).answer(&request, "ca");
    let parse = |answer: &[u8]| ocsp::Status::parse(answer, &issuer, &serial, now);
    let status = parse(&answer).unwrap();
    assert!(status.revoked_at.is_some());
    let list = list(&root, &[3]);
    let is_list = |list: &[u8]| FetchedList::parse(list, &issuer, "", now).is_ok();
    assert!(is_list(&list));
    for (whole, is_taken) in [
        (&answer, &(|bytes: &[u8]| parse(bytes).is_ok_and(|said| said != status)) as &dyn Fn(&[u8]) -> bool),
        (&list, &is_list),
    ] {
        for at in 0..whole.len() {
            assert!(!is_taken(&whole[..at]), "{at} bytes");
            for flip in [0x01, 0x20, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] ^= flip;
                assert!(!is_taken(&changed), "byte {at} changed by {flip}");
            }
        }
    }
}
