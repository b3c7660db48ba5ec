//! Chains, revocation, purposes and names.

use super::{pki::*, *};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData,
};
use std::{
    slice,
    time::{Duration, SystemTime},
};
use wayfarer_mobility::{
    crypto::{Crypto, PeerSignature, SignatureHashes, Signer, Verifier, VerifyError, VerifyErrorKind},
    identity::{Identity, kind},
};

/// Verifies a valid signature by the owner of a certificate that `ca` issued, sent with more
/// certificates.
fn verified_as(
    identity: &Identity,
    authorities: &Authorities,
    ca: &Ca,
    params: &CertificateParams,
    more: &[&Ca],
) -> Result<(), VerifyError> {
    let key = key_pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let (signer, _) = Folder::new().signer_of(ca, params, &key);
    let more = more.iter().map(|ca| ca.der.clone());
    let certificates: Vec<Vec<u8>> = signer.certificates().iter().cloned().chain(more).collect();
    authorities.verify(identity, &sent(&certificates), &signature_of(&signer))
}

fn verify_as(
    identity: &Identity,
    authorities: &Authorities,
    ca: &Ca,
    params: &CertificateParams,
    more: &[&Ca],
) -> Result<(), VerifyErrorKind> {
    verified_as(identity, authorities, ca, params, more).map_err(|why| why.kind)
}

fn verify(
    authorities: &Authorities,
    ca: &Ca,
    params: &CertificateParams,
    more: &[&Ca],
) -> Result<(), VerifyErrorKind> {
    verify_as(&fqdn(NAME), authorities, ca, params, more)
}

/// Returns a valid signature.
fn signature_of(signer: &CertificateSigner) -> PeerSignature {
    let hashes = SignatureHashes::ALL;
    let (method, data) = signer.sign(b"octets", hashes).unwrap();
    PeerSignature { method, data, octets: b"octets".to_vec(), hashes }
}

#[test]
fn a_chain_leads_to_an_authority() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    let sub = root.sub(ca_params("sub"));
    let subsub = sub.sub(ca_params("subsub"));
    let own = params(NAME, 2);
    let trusting = |cas: &[&Ca]| folder.authorities(cas, &[], CrlPolicy::Relaxed, NOW);
    let authorities = trusting(&[&root]);
    assert_eq!(verify(&authorities, &root, &own, &[]), Ok(()));
    assert_eq!(verify(&authorities, &sub, &own, &[&sub]), Ok(()));
    assert_eq!(verify(&authorities, &subsub, &own, &[&root, &sub, &subsub]), Ok(()), "in any order");
    assert_eq!(verify(&authorities, &subsub, &own, &[&subsub]), Err(VerifyErrorKind::Issuer));
    assert_eq!(verify(&authorities, &sub, &own, &[]), Err(VerifyErrorKind::Issuer));
    assert_eq!(verify(&trusting(&[&sub]), &sub, &own, &[]), Ok(()), "an authority need not be a root");
    let stranger = Ca::root("stranger");
    assert_eq!(verify(&authorities, &stranger, &own, &[&stranger]), Err(VerifyErrorKind::Issuer));
    let namesake = Ca::root("root");
    assert_eq!(verify(&authorities, &namesake, &own, &[&namesake]), Err(VerifyErrorKind::Issuer));
    assert_eq!(verify(&trusting(&[&namesake, &stranger, &root]), &root, &own, &[]), Ok(()), "any of several");
    assert_eq!(verify(&trusting(&[]), &root, &own, &[&root]), Err(VerifyErrorKind::Issuer));
}

#[test]
fn issuers_names_say_whose_certificates_may_be_trusted() {
    let (folder, root, stranger) = (Folder::new(), Ca::root("root"), Ca::root("stranger"));
    let sub = root.sub(ca_params("sub"));
    let peer = sub.sub(params(NAME, 2));
    let may = |trusted: &[&Ca], sent: &[&Ca]| {
        let sent: Vec<Vec<u8>> = sent.iter().map(|ca| ca.der.clone()).collect();
        folder.authorities(trusted, &[], CrlPolicy::Relaxed, NOW).may_trust(&sent)
    };
    assert!(may(&[&root], &[&peer, &sub]) && may(&[&sub], &[&peer]));
    assert!(may(&[&stranger, &root], &[&peer, &stranger, &sub]), "in any order");
    assert!(may(&[&peer], &[&peer]), "its own certificate");
    assert!(!may(&[&root], &[&peer]) && !may(&[&stranger], &[&peer, &sub, &root]) && !may(&[&root], &[]));
    assert!(!folder.authorities(&[&root], &[], CrlPolicy::Relaxed, NOW).may_trust(&[b"no DER".to_vec()]));
}

#[test]
fn only_authorities_issue_and_no_authority_is_a_peer() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    let authorities = folder.authorities(&[&root], &[], CrlPolicy::Relaxed, NOW);
    let mere_peer = root.sub(params("peer.example.org", 3));
    assert_eq!(
        verify(&authorities, &mere_peer, &params(NAME, 2), &[&mere_peer]),
        Err(VerifyErrorKind::Issuer)
    );
    let mut short = ca_params("short");
    short.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let short = root.sub(short);
    let below = short.sub(ca_params("below"));
    assert_eq!(
        verify(&authorities, &below, &params(NAME, 2), &[&below, &short]),
        Err(VerifyErrorKind::Issuer)
    );
    let mut authority = params(NAME, 2);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(verify(&authorities, &root, &authority, &[]), Err(VerifyErrorKind::Certificate));
}

#[test]
fn a_peers_own_certificate_is_trusted_by_itself() {
    let folder = Folder::new();
    let key = key_pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    // As many tools make it: self-signed, and marked as an authority's.
    let mut peer = params(NAME, 2);
    peer.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = peer.self_signed(&key).unwrap();
    let file = folder.write("peer.pem", certificate.pem());
    let signer = CertificateSigner::load(&file, &folder.write("peer.key", key.serialize_pem())).unwrap();
    let signature = signature_of(&signer);
    let as_peer = |policy, now: u64, name: &str| {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now);
        let authorities = Authorities::load(&[&file], &[], policy, move || now).unwrap();
        authorities.verify(&fqdn(name), &sent(signer.certificates()), &signature).map_err(|why| why.kind)
    };
    assert_eq!(as_peer(CrlPolicy::Relaxed, NOW, NAME), Ok(()));
    assert_eq!(as_peer(CrlPolicy::Relaxed, NOW, "other.example.org"), Err(VerifyErrorKind::Identity));
    assert_eq!(as_peer(CrlPolicy::Relaxed, 2_208_988_801, NAME), Err(VerifyErrorKind::Expired));
    assert!(as_peer(CrlPolicy::Strict, NOW, NAME).is_err());
}

#[test]
fn certificates_are_valid_only_in_their_period() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    let at = |now| folder.authorities(&[&root], &[], CrlPolicy::Relaxed, now);
    let own = params(NAME, 2);
    // 2020-01-01 and 2040-01-01: the validity includes both seconds.
    for (now, expected) in [
        (0, Err(VerifyErrorKind::Expired)),
        (1_577_836_799, Err(VerifyErrorKind::Expired)),
        (1_577_836_800, Ok(())),
        (2_208_988_800, Ok(())),
        (2_208_988_801, Err(VerifyErrorKind::Expired)),
    ] {
        assert_eq!(verify(&at(now), &root, &own, &[]), expected, "at {now}");
    }
    let mut old = ca_params("sub");
    old.not_after = rcgen::date_time_ymd(2025, 1, 1);
    let old = root.sub(old);
    assert_eq!(verify(&at(NOW), &old, &own, &[&old]), Err(VerifyErrorKind::Expired));
}

#[test]
fn refuses_certificates_that_a_list_revokes() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    let mut sub = ca_params("sub");
    sub.serial_number = Some(9.into());
    let sub = root.sub(sub);
    let own = params(NAME, 2);
    let check = |crls: &[String], policy| {
        verify(&folder.authorities(&[&root], crls, policy, NOW), &sub, &own, &[&sub])
    };
    let (good_root, good_sub) = (root.crl(&[7]), sub.crl(&[8]));
    assert_eq!(check(&[], CrlPolicy::Relaxed), Ok(()));
    assert_eq!(check(&[], CrlPolicy::Strict), Err(VerifyErrorKind::Revoked));
    for policy in [CrlPolicy::Relaxed, CrlPolicy::Strict] {
        assert_eq!(check(&[good_root.clone(), good_sub.clone()], policy), Ok(()));
        assert_eq!(check(&[good_root.clone(), sub.crl(&[1, 2])], policy), Err(VerifyErrorKind::Revoked));
        assert_eq!(check(&[root.crl(&[9]), good_sub.clone()], policy), Err(VerifyErrorKind::Revoked));
    }
    assert_eq!(
        check(slice::from_ref(&good_sub), CrlPolicy::Relaxed),
        Ok(()),
        "nothing is known of the one between"
    );
    assert_eq!(check(slice::from_ref(&good_sub), CrlPolicy::Strict), Err(VerifyErrorKind::Revoked));
    // A list of another authority with the same name has a wrong signature.
    let namesake = Ca::root("root");
    assert_eq!(
        check(&[namesake.crl(&[]), good_sub.clone()], CrlPolicy::Relaxed),
        Err(VerifyErrorKind::Revoked)
    );
    // 2028-01-01: after the lists' next update.
    let late =
        |policy| folder.authorities(&[&root], &[good_root.clone(), good_sub.clone()], policy, 1_830_297_600);
    assert_eq!(verify(&late(CrlPolicy::Relaxed), &sub, &own, &[&sub]), Ok(()));
    assert_eq!(verify(&late(CrlPolicy::Strict), &sub, &own, &[&sub]), Err(VerifyErrorKind::Revoked));
}

#[test]
fn reads_revocation_lists_in_der() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    folder.write("list.pem", root.crl(&[2]));
    openssl(&folder.path(""), "crl -in list.pem -outform DER -out list.der").unwrap();
    let ca = folder.write("ca.pem", &root.pem);
    let authorities =
        Authorities::load(&[ca], &[folder.path("list.der")], CrlPolicy::Relaxed, std::time::SystemTime::now)
            .unwrap();
    assert_eq!(verify(&authorities, &root, &params(NAME, 2), &[]), Err(VerifyErrorKind::Revoked));
    assert_eq!(verify(&authorities, &root, &params(NAME, 3), &[]), Ok(()));
}

#[test]
fn refuses_certificates_for_other_purposes() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    let authorities = folder.authorities(&[&root], &[], CrlPolicy::Relaxed, NOW);
    let check = |purposes: &[ExtendedKeyUsagePurpose]| {
        let mut params = params(NAME, 2);
        params.extended_key_usages = purposes.to_vec();
        verify(&authorities, &root, &params, &[])
    };
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, Other, ServerAuth, TimeStamping};
    let ipsec_ike = Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]);
    let ike_intermediate = Other(vec![1, 3, 6, 1, 5, 5, 8, 2, 2]);
    assert_eq!(check(&[]), Ok(()));
    for purpose in [Any, ClientAuth, ServerAuth, ipsec_ike, ike_intermediate] {
        assert_eq!(check(&[CodeSigning, purpose.clone()]), Ok(()), "{purpose:?}");
        assert_eq!(check(slice::from_ref(&purpose)), Ok(()), "{purpose:?}");
    }
    assert_eq!(check(&[CodeSigning, TimeStamping]), Err(VerifyErrorKind::Certificate));
}

#[test]
fn refuses_certificates_whose_key_may_not_sign() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    let authorities = folder.authorities(&[&root], &[], CrlPolicy::Relaxed, NOW);
    let check = |usages: &[KeyUsagePurpose]| {
        let mut params = params(NAME, 2);
        params.key_usages = usages.to_vec();
        verify(&authorities, &root, &params, &[])
    };
    use KeyUsagePurpose::{ContentCommitment, DigitalSignature, KeyAgreement, KeyEncipherment};
    assert_eq!(check(&[]), Ok(()));
    assert_eq!(check(&[DigitalSignature, KeyEncipherment]), Ok(()));
    assert_eq!(check(&[ContentCommitment]), Ok(()));
    assert_eq!(check(&[KeyEncipherment, KeyAgreement]), Err(VerifyErrorKind::Certificate));
}

#[test]
fn a_peer_has_the_names_of_its_certificate_and_no_others() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    let authorities = folder.authorities(&[&root], &[], CrlPolicy::Relaxed, NOW);
    let mut own = params(NAME, 2);
    let names = ["gw.example.org", "*.example.com", "Alice@Example.org", "192.0.2.7", "2001:db8::7"];
    own.subject_alt_names = names.map(san).to_vec();
    let key = key_pair(&rcgen::PKCS_ECDSA_P256_SHA256);
    let der = own.signed_by(&key, &root.issuer).unwrap().der().to_vec();
    let subject = certificate::subject(&der).unwrap();
    let common_name = [&hex("3019 3117 3015 0603550403 0c0e")[..], NAME.as_bytes()].concat();
    assert_eq!(subject.data, common_name);
    let of = |text: &str| Identity::from_text(text).unwrap();
    let expected: Vec<Identity> = names.into_iter().map(of).chain([subject.clone()]).collect();
    assert_eq!(certificate::identities(&der), expected);
    let verify = |identity: &Identity| verify_as(identity, &authorities, &root, &own, &[]);
    for identity in expected.iter().chain(&[of("GW.Example.ORG"), of("Alice@example.ORG")]) {
        assert_eq!(verify(identity), Ok(()), "{identity}");
    }
    let mut longer = subject.clone();
    longer.data.push(0);
    let strangers = [
        of("gw2.example.org"),
        of("example.org"),
        of("any.example.com"),
        of("alice@example.org"),
        of("Example.org"),
        of("192.0.2.8"),
        of("2001:db8::8"),
        of("@#0102"),
        fqdn(""),
        fqdn("192.0.2.7"),
        longer,
        Identity { kind: kind::DER_ASN1_DN, data: vec![0x30, 0] },
        Identity { kind: kind::IPV6_ADDR, data: vec![192, 0, 2, 7] },
        Identity { kind: kind::KEY_ID, data: NAME.into() },
        Identity { kind: kind::RFC822_ADDR, data: NAME.into() },
    ];
    for identity in strangers {
        assert_eq!(verify(&identity), Err(VerifyErrorKind::Identity), "{identity}");
    }
}

/// A certificate with an empty subject has no identity of that kind.
#[test]
fn an_empty_subject_is_no_identity() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    let authorities = folder.authorities(&[&root], &[], CrlPolicy::Relaxed, NOW);
    let mut own = params(NAME, 2);
    own.distinguished_name = rcgen::DistinguishedName::new();
    let empty = Identity { kind: kind::DER_ASN1_DN, data: vec![0x30, 0] };
    assert_eq!(verify_as(&empty, &authorities, &root, &own, &[]), Err(VerifyErrorKind::Identity));
    assert_eq!(verify_as(&fqdn(NAME), &authorities, &root, &own, &[]), Ok(()));
}

/// Changing any byte of a certificate or cutting it anywhere makes it invalid, and never causes a
/// panic.
#[test]
fn tampered_certificates_are_refused() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    let authorities = folder.authorities(&[&root], &[], CrlPolicy::Relaxed, NOW);
    let (signer, _) = folder.signer(&root, &rcgen::PKCS_ECDSA_P256_SHA256);
    let signature = signature_of(&signer);
    let verify = |der: &[u8]| {
        authorities.verify(&fqdn(NAME), &sent(&[der.to_vec()]), &signature).map_err(|why| why.kind)
    };
    let der = &signer.certificates()[0];
    assert_eq!(verify(der), Ok(()));
    let mut seen = Vec::new();
    for byte in 0..der.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut changed = der.clone();
            changed[byte] ^= flip;
            let distrust = verify(&changed).unwrap_err();
            assert!(
                matches!(
                    distrust,
                    VerifyErrorKind::Certificate | VerifyErrorKind::Issuer | VerifyErrorKind::Expired
                ),
                "{byte}"
            );
            certificate::identities(&changed);
            seen.push(distrust);
        }
        assert_eq!(verify(&der[..byte]), Err(VerifyErrorKind::Certificate));
        certificate::identities(&der[..byte]);
    }
    assert!(seen.contains(&VerifyErrorKind::Issuer) && seen.contains(&VerifyErrorKind::Certificate));
}

#[test]
fn too_many_or_too_long_certificates_are_refused() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    let authorities = folder.authorities(&[&root], &[], CrlPolicy::Relaxed, NOW);
    let own = params(NAME, 2);
    let chain = |len| vec![&root; len];
    assert_eq!(verify(&authorities, &root, &own, &chain(15)), Ok(()));
    assert_eq!(verify(&authorities, &root, &own, &chain(16)), Err(VerifyErrorKind::Certificate));
    let mut heavy = Ca::root("heavy");
    heavy.der.resize(65_000, 0);
    assert_eq!(verify(&authorities, &root, &own, &[&heavy]), Ok(()), "what is not needed is not read");
    heavy.der.resize(65_536, 0);
    assert_eq!(verify(&authorities, &root, &own, &[&heavy]), Err(VerifyErrorKind::Certificate));
    let signature = PeerSignature { method: 14, data: vec![], octets: vec![], hashes: SignatureHashes::ALL };
    let why = authorities.verify(&fqdn(NAME), &sent(&[]), &signature).unwrap_err();
    assert_eq!(why.to_string(), "certificate refused: the peer sent none");
}

/// RFC 7296 §3.7.
#[test]
fn authorities_are_named_by_hashes_of_their_keys() {
    let (folder, a, b) = (Folder::new(), Ca::root("a"), Ca::root("b"));
    let authorities = folder.authorities(&[&a, &b], &[], CrlPolicy::Relaxed, NOW);
    let hash = |ca: &Ca| Primitives.sha1(&[&ca.issuer.key().subject_public_key_info()]);
    assert_eq!(authorities.authorities(), [hash(&a), hash(&b)].concat());
}
