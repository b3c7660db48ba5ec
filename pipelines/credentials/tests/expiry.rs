//! What counts of lists and answers that have expired, or that are older than others.

use super::{ocsp::*, pki::*, revocation::*, staple::about, *};
use rcgen::CertificateRevocationListParams;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use wayfarer_mobility::crypto::{VerifyError, VerifyErrorKind};

const MINUTE: time::Duration = time::Duration::MINUTE;

/// Returns a list in DER: made so long ago, and expired so long ago.
fn list_between(ca: &Ca, made: time::Duration, expired: time::Duration, serials: &[u64]) -> Vec<u8> {
    let now = OffsetDateTime::now_utc();
    let times = (now - made, now - expired);
    let params = CertificateRevocationListParams {
        this_update: times.0,
        next_update: times.1,
        ..list_params(2, serials)
    };
    params.signed_by(&ca.issuer).unwrap().der().to_vec()
}

/// Returns a list that was made two days ago and expired yesterday.
pub(super) fn expired(ca: &Ca, serials: &[u64]) -> Vec<u8> {
    list_between(ca, 2 * time::Duration::DAY, time::Duration::DAY, serials)
}

/// Returns authorities that have these lists in files, so many hours from now.
pub(super) fn with_files(ca: &Ca, lists: &[Vec<u8>], hours: u64, revocation: Revocation) -> Authorities {
    let folder = Folder::new();
    let files: Vec<_> =
        lists.iter().enumerate().map(|(n, list)| folder.write(&format!("{n}.crl"), list)).collect();
    let now = move || SystemTime::now() + Duration::from_secs(3600 * hours);
    let ca = folder.write("ca.pem", &ca.pem);
    Authorities::load(&[ca], &files, CrlPolicy::Relaxed, now).unwrap().fetch(revocation)
}

pub(super) fn assert_revoked(verified: Result<(), VerifyError>) {
    let why = verified.unwrap_err();
    assert_eq!(why.kind, VerifyErrorKind::Revoked);
    assert!(why.words.contains("was revoked on "), "{why}");
}

/// Returns a peer whose certificate names a list that revokes nothing, and one whose certificate names
/// a responder; each with the server.
fn peers(root: &Ca, serial: u64) -> [(Peer, Server); 2] {
    let by_list = Server::start();
    by_list.put("/list", list(root, &[]));
    let by_responder = Server::start();
    let responder = Responder::new(root);
    by_responder.answer(move |request| responder.answer(request, "ca"));
    [
        (Peer::new(root, &with_point(&by_list.url("/list"), serial)), by_list),
        (Peer::new(root, &with_responder(&by_responder.url("/"), serial)), by_responder),
    ]
}

#[test]
fn expired_file_does_not_overrule_what_was_fetched() {
    let root = Ca::root("root");
    for (peer, server) in peers(&root, 2) {
        for revocation in BOTH {
            let authorities = with_files(&root, &[expired(&root, &[7])], 0, revocation);
            assert_eq!(peer.verify(&authorities), Ok(()));
        }
        assert_eq!(server.requests(), 1);
    }
}

/// What was revoked once stays so. The operator can remove the file.
#[test]
fn expired_file_still_refuses_what_it_revokes() {
    let root = Ca::root("root");
    for (peer, _) in peers(&root, 2) {
        for revocation in BOTH {
            assert_revoked(peer.verify(&with_files(&root, &[expired(&root, &[2])], 0, revocation)));
        }
    }
}

#[test]
fn expired_file_is_no_word_about_the_others_if_one_is_required() {
    let (root, server) = (Ca::root("root"), Server::start());
    let peer = Peer::new(&root, &with_point(&server.url("/none"), 2));
    let why = peer.verify(&with_files(&root, &[expired(&root, &[])], 0, Revocation::Required)).unwrap_err();
    let reasons = ["nothing that is up to date", "404", "its issuer's list in a file expired on 20"];
    assert!(reasons.iter().all(|reason| why.words.contains(reason)), "{why}");
    let if_available = with_files(&root, &[expired(&root, &[])], 0, Revocation::IfAvailable);
    assert_eq!(peer.verify(&if_available), Ok(()));
}

/// An answer about the peer does not make up for an expired file about its issuer.
#[test]
fn expired_file_covers_no_authority_of_a_chain() {
    let root = Ca::root("root");
    let middle = root.sub(ca_params("middle"));
    let [(mut by_list, _lists), (mut by_responder, _responder)] = peers(&middle, 2);
    for peer in [&mut by_list, &mut by_responder] {
        peer.add(&middle);
        let verify = |file| peer.verify(&with_files(&root, &[file], 0, Revocation::Required));
        let why = verify(expired(&root, &[])).unwrap_err();
        for reason in ["\"CN=middle\" is not revoked", "its issuer's list in a file expired on 20"] {
            assert!(why.words.contains(reason), "{why}");
        }
        assert_eq!(verify(list(&root, &[])), Ok(()));
    }
}

#[test]
fn newest_file_of_an_issuer_decides() {
    let root = Ca::root("root");
    let peer = Peer::new(&root, &params(NAME, 2));
    let verify = |lists: &[Vec<u8>]| peer.verify(&with_files(&root, lists, 0, Revocation::Required));
    let (old, new) = (expired(&root, &[]), list(&root, &[2]));
    assert_revoked(verify(&[old.clone(), new.clone()]));
    assert_revoked(verify(&[new, old]));
    let (old, new) = (expired(&root, &[2]), list(&root, &[]));
    assert_eq!(verify(&[old, new]), Ok(()));
}

/// Otherwise a peer could come back with an answer from before its revocation.
#[test]
fn answer_from_before_a_revocation_does_not_count_once_the_list_has_expired() {
    for revocation in BOTH {
        let (root, server) = (Ca::root("root"), Server::start());
        // The peer's answer counts for a day from now, and the list for an hour from the next minute.
        let list = list_between(&root, -MINUTE, -60 * MINUTE, &[2]);
        server.put("/list", list);
        let mut peer = Peer::new(&root, &with_point(&server.url("/list"), 2));
        assert_revoked(peer.verify(&with_files(&root, &[], 0, revocation)));
        peer.bring(&[Responder::new(&root).answer(&about(&root, 2), "ca")]);
        assert_revoked(peer.verify(&with_files(&root, &[], 0, revocation)));
        server.put("/list", b"<html>".to_vec());
        let later = with_files(&root, &[], 2, revocation);
        assert_revoked(peer.verify(&later));
        assert_eq!(server.requests(), 2, "it was asked for anew");
    }
}

/// The same peer, once its authority says something newer.
#[test]
fn certificate_that_is_on_the_list_no_more_is_valid() {
    let (root, server) = (Ca::root("root"), Server::start());
    server.put("/list", list_between(&root, MINUTE, -60 * MINUTE, &[2]));
    let peer = Peer::new(&root, &with_point(&server.url("/list"), 2));
    assert_revoked(peer.verify(&with_files(&root, &[], 0, Revocation::Required)));
    server.put("/list", list_between(&root, time::Duration::ZERO, -600 * MINUTE, &[]));
    assert_eq!(peer.verify(&with_files(&root, &[], 2, Revocation::Required)), Ok(()));
}

/// A good answer that is newer than a list that has expired counts: the authority knew of the list.
#[test]
fn answer_that_is_newer_than_an_expired_list_counts() {
    let (root, server) = (Ca::root("root"), Server::start());
    server.put("/list", list_between(&root, MINUTE, -60 * MINUTE, &[2]));
    let mut peer = Peer::new(&root, &with_point(&server.url("/list"), 2));
    peer.bring(&[Responder::new(&root).answer(&about(&root, 2), "ca")]);
    let at = |hours| with_files(&root, &[], hours, Revocation::Required);
    assert_eq!(peer.verify(&at(0)), Ok(()), "nothing else is known");
    let without = Peer::new(&root, &with_point(&server.url("/list"), 2));
    assert_revoked(without.verify(&at(0)));
    assert_revoked(peer.verify(&at(0)));
    server.put("/list", b"<html>".to_vec());
    assert_eq!(peer.verify(&at(2)), Ok(()));
    assert_revoked(without.verify(&at(2)));
}

/// A list that an authority has replaced may still be had from another of its addresses.
#[test]
fn later_word_of_one_address_counts_against_an_earlier_one_of_another() {
    for revocation in BOTH {
        let (root, server) = (Ca::root("root"), Server::start());
        server.put("/old", list_between(&root, MINUTE, -60 * MINUTE, &[]));
        server.put("/new", list_between(&root, time::Duration::ZERO, -60 * MINUTE, &[2]));
        let [old, new] = ["/old", "/new"].map(|path| with_point(&server.url(path), 2));
        let by_new = Peer::new(&root, &new);
        let mut both = old;
        both.crl_distribution_points.extend(new.crl_distribution_points);
        let by_both = Peer::new(&root, &both);
        let authorities = with_files(&root, &[], 0, revocation);
        assert_eq!(by_both.verify(&authorities), Ok(()), "nothing later is known");
        assert_revoked(by_new.verify(&authorities));
        assert_revoked(by_both.verify(&authorities));
    }
}

/// What one certificate of an authority's key may not do, another one for the same key may not do either.
#[test]
fn all_certificates_of_the_chain_that_passes_are_looked_up() {
    let (root, server, answers) = (Ca::root("root"), Server::start(), Server::start());
    let middle = |serial: u64| {
        let mut params = ca_params("middle");
        params.serial_number = Some(serial.into());
        params
    };
    let first = root.sub(middle(21));
    let mut second = middle(22);
    second.crl_distribution_points = with_point(&server.url("/list"), 0).crl_distribution_points;
    let second = first.again(&root, &second);
    server.put("/list", list(&root, &[21, 22]));
    let responder = Responder::new(&first);
    answers.answer(move |request| responder.answer(request, "ca"));
    let mut peer = Peer::new(&first, &with_responder(&answers.url("/"), 2));
    peer.add(&first);
    peer.add_der(second);
    // The file passes by the second one.
    assert_revoked(peer.verify(&with_files(&root, &[list(&root, &[21])], 0, Revocation::Required)));
}
