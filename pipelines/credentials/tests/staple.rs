//! Answers of responders that go along with certificates (RFC 4806), with `openssl` as the responder.

use super::{ocsp::*, pki::*, revocation::*, *};
use crate::credentials::revocation::{
    Issuer,
    ocsp::{Status, request},
};
use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};
use wayfarer_mobility::crypto::{Signer, VerifyErrorKind};

fn issuer_of(ca: &Ca) -> Issuer {
    let der = rustls_pki_types::CertificateDer::from(&ca.der[..]);
    let certificate = webpki::EndEntityCert::try_from(&der).unwrap();
    let key = certificate.subject_public_key_info().to_vec();
    Issuer { name: certificate.subject().to_vec(), key }
}

/// Returns the request about a certificate of `ca`.
pub(super) fn about(ca: &Ca, serial: u8) -> Vec<u8> {
    request(&issuer_of(ca), &[serial]).unwrap()
}

#[test]
fn what_the_peer_brings_along_spares_the_question() {
    let (root, server) = (Ca::root("root"), Server::start());
    let responder = Responder::new(&root);
    let [good, revoked] = [2, 3].map(|serial| responder.answer(&about(&root, serial), "ca"));
    // The last one is in a certificate that names no responder.
    for (case, named) in [with_responder(&server.url("/"), 2), params(NAME, 2)].iter().enumerate() {
        let mut peer = Peer::new(&root, named);
        for revocation in BOTH {
            peer.bring(&[b"what is this".to_vec(), revoked.clone(), good.clone()]);
            assert_eq!(peer.verify(&trusting(&root, revocation)), Ok(()), "{case}");
        }
    }
    assert_eq!(server.requests(), 0);
    let mut peer = Peer::new(&root, &with_responder(&server.url("/"), 3));
    for revocation in BOTH {
        peer.bring(&[good.clone(), revoked.clone()]);
        let why = peer.verify(&trusting(&root, revocation)).unwrap_err();
        assert_eq!(why.kind, VerifyErrorKind::Revoked);
    }
    assert_eq!(server.requests(), 0);
    // Without `revocation`, only lists in files count.
    assert_eq!(peer.verify(&trusting(&root, Revocation::Off)), Ok(()));
}

#[test]
fn an_answer_of_somebody_else_or_about_another_does_not_count() {
    let (root, other) = (Ca::root("root"), Ca::root("root"));
    let [responder, stranger] = [&root, &other].map(Responder::new);
    let mut peer = Peer::new(&root, &params(NAME, 2));
    let forged = stranger.answer(&about(&root, 2), "ca");
    let of_another = stranger.answer(&about(&other, 2), "ca");
    let about_another = responder.answer(&about(&root, 3), "ca");
    for answer in [forged, of_another, about_another] {
        peer.bring(&[answer]);
        assert!(peer.verify(&trusting(&root, Revocation::Required)).is_err());
        assert_eq!(peer.verify(&trusting(&root, Revocation::IfAvailable)), Ok(()));
    }
}

#[test]
fn an_answer_from_before_the_revocation_does_not_hide_it() {
    let (root, server) = (Ca::root("root"), Server::start());
    let mut peer = Peer::new(&root, &with_point(&server.url("/list"), 2));
    peer.bring(&[Responder::new(&root).answer(&about(&root, 2), "ca")]);
    let authorities = trusting(&root, Revocation::Required);
    assert_eq!(peer.verify(&authorities), Ok(()));

    server.put("/list", list(&root, &[2]));
    let revoked = Peer::new(&root, &with_point(&server.url("/list"), 2)).verify(&authorities);
    assert_eq!(revoked.unwrap_err().kind, VerifyErrorKind::Revoked);
    assert_eq!(peer.verify(&authorities).unwrap_err().kind, VerifyErrorKind::Revoked);
}

/// Returns what goes along with our certificate, once it has come.
fn stapled(signer: &CertificateSigner, count: usize) -> Vec<Vec<u8>> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match signer.ocsp() {
            Ok(answers) => {
                assert_eq!(answers.len(), count);
                return answers;
            }
            Err(number) => {
                while signer.is_pending(number) {
                    assert!(Instant::now() < until);
                    thread::yield_now();
                }
            }
        }
    }
}

#[test]
fn our_own_answers_are_about_each_of_our_certificates() {
    let root = Ca::root("root");
    let responder = Arc::new(Responder::new(&root));
    let server = Server::start();
    let answering = responder.clone();
    server.answer(move |request| answering.answer(request, "ca"));
    // The authority that issued ours has the number 2.
    let mut middle = with_responder(&server.url("/"), 2);
    let (basics, usages) = (ca_params("middle").is_ca, ca_params("middle").key_usages);
    (middle.is_ca, middle.key_usages) = (basics, usages);
    let middle = root.sub(middle);
    let lower = Arc::new(Responder::new(&middle));
    let (second, answering) = (Server::start(), lower.clone());
    second.answer(move |request| answering.answer(request, "ca"));

    let key = key_pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let own = with_responder(&second.url("/"), 2).signed_by(&key, &middle.issuer).unwrap();
    let chain = [own.der().to_vec(), middle.der.clone()].map(rustls_pki_types::CertificateDer::from);
    let private = rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let signer = || CertificateSigner::new(&chain, &private).unwrap();
    assert_eq!(signer().ocsp(), Ok(vec![]), "only if it is wanted");

    let trusted = trusting(&root, Revocation::Required);
    let signer = signer().staple(trusted.certificates()).unwrap();
    let answers = stapled(&signer, 2);
    for (answer, issuer) in answers.iter().zip([&middle, &root]) {
        let status = Status::parse(answer, &issuer_of(issuer), &[2], SystemTime::now());
        assert_eq!(status.map(|status| status.revoked_at), Ok(None));
    }
}

#[test]
fn a_certificate_without_issuer_or_responder_cannot_have_answers() {
    let root = Ca::root("root");
    let key = key_pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let of = |params: &rcgen::CertificateParams| Folder::new().signer_of(&root, params, &key).0;
    let root_der = [rustls_pki_types::CertificateDer::from(root.der.clone())];
    let named = with_responder("http://127.0.0.1:9/", 2);
    assert_eq!(of(&named).staple(&[]).unwrap_err(), CredentialProblem::NoIssuer);
    assert_eq!(of(&params(NAME, 2)).staple(&root_der).unwrap_err(), CredentialProblem::NoResponder);
    assert!(of(&named).staple(&root_der).is_ok());
}
