//! Lists about a part of an issuer's certificates.

use super::{expiry::*, ocsp::with_responder, pki::*, revocation::*, *};
use crate::{
    credentials::revocation::Publications,
    log::{Format, recorded},
};
use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope,
    KeyUsagePurpose,
};
use std::time::SystemTime;
use time::OffsetDateTime;

/// The point of a list that comes in a file.
const POINT: &str = "http://point.test/list";

/// Returns a list in DER that was made some days ago, for this point and this kind of certificates.
fn part(ca: &Ca, days: u64, point: &str, scope: Option<CrlScope>, serials: &[u64]) -> Vec<u8> {
    let distribution_point = CrlDistributionPoint { uris: vec![point.to_owned()] };
    let params = CertificateRevocationListParams {
        issuing_distribution_point: Some(CrlIssuingDistributionPoint { distribution_point, scope }),
        ..list_params(days, serials)
    };
    params.signed_by(&ca.issuer).unwrap().der().to_vec()
}

/// Whoever is on the way can exchange an authority's lists.
#[test]
fn newer_list_that_leaves_a_certificate_out_does_not_replace_one_that_has_it() {
    for (case, scope) in [Some(CrlScope::CaCertsOnly), None].into_iter().enumerate() {
        let (server, root) = (Server::start(), Ca::root("root"));
        let url = server.url("/list");
        let point = if case == 0 { &url } else { POINT };
        let peer = Peer::new(&root, &with_point(&url, 2));
        let verify = |hours| peer.verify(&with_files(&root, &[], hours, Revocation::IfAvailable));
        server.put("/list", list(&root, &[2]));
        assert_revoked(verify(0));
        server.put("/list", part(&root, 0, point, scope, &[]));
        // In the last tenth of the time for which the first one counts, and after that.
        assert_revoked(verify(24 * 8 + 12));
        settle(&server, 2, &url);
        assert_revoked(verify(24 * 8 + 12));
        assert!(!Publications::shared().is_fetching(&url), "not again in the same minute");
        server.put("/list", b"<html>".to_vec());
        assert_revoked(verify(24 * 10));
    }
}

#[test]
fn next_address_is_asked_if_a_list_leaves_the_certificate_out() {
    for (case, scope) in [Some(CrlScope::CaCertsOnly), None].into_iter().enumerate() {
        let (server, root) = (Server::start(), Ca::root("root"));
        let [part_url, whole_url] = ["/part", "/whole"].map(|path| server.url(path));
        let point = if case == 0 { &part_url } else { POINT };
        server.put("/part", part(&root, 1, point, scope, &[]));
        server.put("/whole", list(&root, &[2]));
        let peer = |serial| {
            // The responder knows nothing.
            let mut params = with_responder(&server.url("/nothing"), serial);
            let points = [&part_url, &whole_url].map(|url| CrlDistributionPoint { uris: vec![url.clone()] });
            params.crl_distribution_points = points.to_vec();
            Peer::new(&root, &params)
        };
        for revocation in BOTH {
            assert_eq!(peer(3).verify(&trusting(&root, revocation)), Ok(()));
            assert_revoked(peer(2).verify(&trusting(&root, revocation)));
        }
    }
}

/// The same list may be for an authority and not for its peers.
#[test]
fn list_about_authorities_counts_only_for_these() {
    let (server, root) = (Server::start(), Ca::root("root"));
    let url = server.url("/list");
    server.put("/list", part(&root, 1, &url, Some(CrlScope::CaCertsOnly), &[]));
    let mut middle = ca_params("middle");
    middle.crl_distribution_points = with_point(&url, 0).crl_distribution_points;
    let middle = root.sub(middle);
    let lower = server.url("/lower");
    server.put("/lower", list(&middle, &[]));
    let mut below = Peer::new(&middle, &with_point(&lower, 2));
    below.add(&middle);
    let beside = Peer::new(&root, &with_point(&url, 2));
    let authorities = trusting(&root, Revocation::Required);
    for _ in 0..2 {
        assert_eq!(below.verify(&authorities), Ok(()));
        let why = beside.verify(&authorities).unwrap_err();
        assert!(why.words.contains("its scope leaves out such certificates"), "{why}");
    }
    assert_eq!(server.requests(), 2, "each list is fetched once");
}

#[test]
fn any_file_of_an_issuer_revokes() {
    let root = Ca::root("root");
    let whole =
        |days, serials: &[u64]| list_params(days, serials).signed_by(&root.issuer).unwrap().der().to_vec();
    let of_point = |days, serials: &[u64]| part(&root, days, POINT, None, serials);
    let hidden_whole = [whole(2, &[2]), of_point(1, &[])];
    let hidden_part = [whole(1, &[]), of_point(2, &[2])];
    for lists in [hidden_whole, hidden_part] {
        for revocation in [Revocation::Off, Revocation::IfAvailable, Revocation::Required] {
            for params in [params(NAME, 2), with_point(POINT, 2)] {
                assert_revoked(Peer::new(&root, &params).verify(&with_files(&root, &lists, 0, revocation)));
            }
            let other = Peer::new(&root, &params(NAME, 3));
            assert_eq!(other.verify(&with_files(&root, &lists, 0, revocation)), Ok(()));
        }
    }
}

#[test]
fn any_file_of_an_issuer_revokes_authorities_too() {
    let root = Ca::root("root");
    let mut middle = ca_params("middle");
    middle.serial_number = Some(9u64.into());
    let middle = root.sub(middle);
    let mut peer = Peer::new(&middle, &params(NAME, 9));
    peer.add(&middle);
    let verify = |serial| {
        let whole = list_params(2, &[serial]).signed_by(&root.issuer).unwrap().der().to_vec();
        let lists = [whole, part(&root, 1, POINT, None, &[])];
        peer.verify(&with_files(&root, &lists, 0, Revocation::Off))
    };
    assert_eq!(verify(8), Ok(()));
    let why = verify(9).unwrap_err();
    assert!(why.words.starts_with("\"CN=middle\" was revoked on "), "{why}");
}

#[test]
fn newest_file_of_a_part_decides() {
    let root = Ca::root("root");
    let peer = Peer::new(&root, &params(NAME, 2));
    let of = |days, serials: &[u64]| part(&root, days, POINT, Some(CrlScope::UserCertsOnly), serials);
    let verify = |lists: &[Vec<u8>]| peer.verify(&with_files(&root, lists, 0, Revocation::Off));
    assert_eq!(verify(&[of(2, &[2]), of(1, &[])]), Ok(()));
    assert_revoked(verify(&[of(1, &[2]), of(2, &[])]));
}

/// Returns authorities that have these lists in files and want each certificate covered.
fn strict(ca: &Ca, lists: &[Vec<u8>]) -> Authorities {
    let folder = Folder::new();
    let files: Vec<_> =
        lists.iter().enumerate().map(|(n, list)| folder.write(&format!("{n}.crl"), list)).collect();
    Authorities::load(&[folder.write("ca.pem", &ca.pem)], &files, CrlPolicy::Strict, SystemTime::now).unwrap()
}

#[test]
fn list_of_a_point_covers_only_certificates_that_name_it() {
    let (server, root) = (Server::start(), Ca::root("root"));
    let point = server.url("/none");
    let lists = [expired(&root, &[]), part(&root, 1, &point, None, &[])];
    let beside = Peer::new(&root, &params(NAME, 2));
    let why = beside.verify(&strict(&root, &lists)).unwrap_err();
    assert!(why.words.starts_with("the revocation list of its issuer expired on "), "{why}");
    let why = beside.verify(&with_files(&root, &lists, 0, Revocation::Required)).unwrap_err();
    assert!(why.words.starts_with("nothing that is up to date says that "), "{why}");
    assert_eq!(beside.verify(&with_files(&root, &lists, 0, Revocation::IfAvailable)), Ok(()));
    let why = beside.verify(&strict(&root, &lists[1..])).unwrap_err();
    assert!(why.words.starts_with("nothing that is up to date says that "), "{why}");
    let within = Peer::new(&root, &with_point(&point, 2));
    assert_eq!(within.verify(&strict(&root, &lists)), Ok(()));
    assert_eq!(within.verify(&with_files(&root, &lists, 0, Revocation::Required)), Ok(()));
}

#[test]
fn expired_list_of_a_point_does_not_count_against_one_of_all() {
    let root = Ca::root("root");
    let now = OffsetDateTime::now_utc();
    let distribution_point = CrlDistributionPoint { uris: vec![POINT.to_owned()] };
    let params_of_part = CertificateRevocationListParams {
        issuing_distribution_point: Some(CrlIssuingDistributionPoint { distribution_point, scope: None }),
        next_update: now - time::Duration::HOUR,
        ..list_params(1, &[])
    };
    let expired_part = params_of_part.signed_by(&root.issuer).unwrap().der().to_vec();
    let whole = list_params(2, &[3]).signed_by(&root.issuer).unwrap().der().to_vec();
    let lists = [whole, expired_part];
    for authorities in [strict(&root, &lists), with_files(&root, &lists, 0, Revocation::Required)] {
        assert_eq!(Peer::new(&root, &params(NAME, 2)).verify(&authorities), Ok(()));
        assert_revoked(Peer::new(&root, &params(NAME, 3)).verify(&authorities));
    }
}

#[test]
fn list_that_cannot_be_believed_does_not_hide_behind_an_older_one() {
    let root = Ca::root("root");
    let peer = Peer::new(&root, &params(NAME, 3));
    let mut forged = list_by_openssl(&root, 2);
    *forged.last_mut().unwrap() ^= 1;
    for lists in [vec![forged.clone()], vec![list(&root, &[]), forged]] {
        for authorities in [strict(&root, &lists), with_files(&root, &lists, 0, Revocation::Off)] {
            let why = peer.verify(&authorities).unwrap_err();
            assert!(why.words.contains("wrong signature"), "{why}");
        }
    }
}

/// Returns a list that revokes one certificate, as `openssl ca` makes it by default: it does not name the
/// key that signed it.
fn list_by_openssl(ca: &Ca, revoked: u64) -> Vec<u8> {
    let folder = Folder::new();
    let entry = format!("R\t400101000000Z\t250101000000Z\t{revoked:02X}\tunknown\t/CN=x\n");
    let config = "[ca]\ndefault_ca = all\n[all]\ndatabase = index\ncrlnumber = number\ndefault_md = sha256\n";
    let key = ca.issuer.key().serialize_pem();
    let files =
        [("ca.pem", &ca.pem[..]), ("ca.key", &key), ("index", &entry), ("number", "01\n"), ("conf", config)];
    files.into_iter().for_each(|(name, content)| _ = folder.write(name, content));
    let make = "ca -config conf -gencrl -cert ca.pem -keyfile ca.key -crldays 30 -out list.pem";
    openssl(&folder.path(""), make).unwrap();
    openssl(&folder.path(""), "crl -in list.pem -outform DER").unwrap()
}

/// As after an authority has got another key.
#[test]
fn lists_of_two_keys_of_an_issuer_count_each_for_its_own_certificates() {
    let cas = [Ca::root("root"), Ca::root("root")];
    let both = Ca { pem: cas.each_ref().map(|ca| &ca.pem[..]).concat(), ..Ca::root("unused") };
    let list = |at: usize, days, serial| {
        list_params(days, &[serial]).signed_by(&cas[at].issuer).unwrap().der().to_vec()
    };
    let unnamed = || [list_by_openssl(&cas[0], 3), list_by_openssl(&cas[1], 2)];
    let [one, other] = unnamed();
    let pairs = [[list(0, 1, 3), list(1, 2, 2)], [list(0, 2, 3), list(1, 1, 2)], unnamed(), [other, one]];
    for lists in pairs {
        let fetching = [Revocation::Off, Revocation::IfAvailable, Revocation::Required];
        let fetching = fetching.map(|revocation| with_files(&both, &lists, 0, revocation));
        for authorities in fetching.iter().chain([&strict(&both, &lists)]) {
            for (ca, good, revoked) in [(&cas[0], 2, 3), (&cas[1], 3, 2)] {
                assert_eq!(Peer::new(ca, &params(NAME, good)).verify(authorities), Ok(()));
                assert_revoked(Peer::new(ca, &params(NAME, revoked)).verify(authorities));
            }
        }
    }
}

#[test]
fn list_that_names_another_key_is_about_other_certificates() {
    let [root, namesake] = [Ca::root("root"), Ca::root("root")];
    let lists = [list(&namesake, &[2])];
    let relaxed = |lists: &[Vec<u8>]| with_files(&root, lists, 0, Revocation::Off);
    let mut named = params(NAME, 2);
    named.use_authority_key_identifier_extension = true;
    let peer = Peer::new(&root, &named);
    assert_eq!(peer.verify(&relaxed(&lists)), Ok(()));
    let why = peer.verify(&strict(&root, &lists)).unwrap_err();
    assert!(why.words.starts_with("nothing that is up to date says that "), "{why}");
    let log = recorded(Format::Json, || _ = relaxed(&lists));
    assert_eq!(log.matches("\"event\":\"list_of_another_key\"").count(), 1, "{log}");
    assert!(log.contains("CN=root"), "{log}");
    let log = recorded(Format::Json, || _ = relaxed(&[list(&root, &[]), list(&Ca::root("other"), &[])]));
    assert!(!log.contains("list_of_another_key"), "{log}");
    // This one may be meant.
    let why = Peer::new(&root, &params(NAME, 2)).verify(&relaxed(&lists)).unwrap_err();
    assert!(why.words.contains("wrong signature"), "{why}");
    // It says that it is by the key of the certificate's issuer, and hides behind another one of that.
    let mut forged = part(&root, 1, POINT, Some(CrlScope::UserCertsOnly), &[]);
    *forged.last_mut().unwrap() ^= 1;
    let beside = part(&root, 1, POINT, Some(CrlScope::CaCertsOnly), &[]);
    for lists in [vec![forged.clone()], vec![forged, beside]] {
        let why = peer.verify(&relaxed(&lists)).unwrap_err();
        assert!(why.words.contains("wrong signature"), "{why}");
    }
}

#[test]
fn refusal_tells_of_the_list_that_revokes() {
    let cas = [Ca::root("root"), Ca::root("root")];
    let both = Ca { pem: cas.each_ref().map(|ca| &ca.pem[..]).concat(), ..Ca::root("unused") };
    let list = |ca: &Ca, days: u64| list_params(days, &[3]).signed_by(&ca.issuer).unwrap().der().to_vec();
    let lists = [list(&cas[0], 40), list(&cas[1], 2)];
    let day = |days: i32| (OffsetDateTime::now_utc() - days * time::Duration::DAY).date().to_string();
    for (ca, days) in [(&cas[0], 40), (&cas[1], 2)] {
        let why = Peer::new(ca, &params(NAME, 3)).verify(&with_files(&both, &lists, 0, Revocation::Off));
        let why = why.unwrap_err();
        assert!(why.words.contains(&format!("was revoked on {}T", day(days))), "{why}");
    }
}

#[test]
fn list_of_an_authority_that_may_sign_none_covers_nothing() {
    let (server, root) = (Server::start(), Ca::root("root"));
    let middle = root.sub(ca_params("middle"));
    let mut may_not = ca_params("middle");
    may_not.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = middle.again(&root, &may_not);
    let url = server.url("/list");
    server.put("/list", list(&middle, &[3]));
    let peer = |serial| {
        let mut peer = Peer::new(&middle, &with_point(&url, serial));
        peer.add_der(certificate.clone());
        peer
    };
    let reason = "its issuer's key usage does not permit to sign revocation lists";
    let own_list = [list(&middle, &[3])];
    let why = peer(2).verify(&with_files(&root, &own_list, 0, Revocation::Off)).unwrap_err();
    assert_eq!(why.words, reason);
    let of_root = [list(&root, &[])];
    let why = peer(2).verify(&with_files(&root, &of_root, 0, Revocation::Required)).unwrap_err();
    assert!(why.words.contains(reason), "{why}");
    for revocation in BOTH {
        assert_revoked(peer(3).verify(&with_files(&root, &of_root, 0, revocation)));
    }
    assert_revoked(peer(3).verify(&with_files(&root, &own_list, 0, Revocation::Off)));
}

/// Whoever is on the way once could have sent the other list.
#[test]
fn list_of_another_scope_keeps_none_away() {
    let (server, root) = (Server::start(), Ca::root("root"));
    let url = server.url("/list");
    server.put("/list", part(&root, 0, &url, Some(CrlScope::CaCertsOnly), &[]));
    let peer = Peer::new(&root, &with_point(&url, 2));
    let authorities = trusting(&root, Revocation::Required);
    for _ in 0..2 {
        let why = peer.verify(&authorities).unwrap_err();
        assert!(why.words.contains("its scope leaves out such certificates"), "{why}");
        assert!(!Publications::shared().is_fetching(&url));
    }
    server.put("/list", list(&root, &[]));
    Publications::shared().rest(&url);
    assert_eq!(peer.verify(&authorities), Ok(()));
    assert_eq!(server.requests(), 2);
}
