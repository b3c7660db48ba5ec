//! The words for a refused certificate.

use super::{pki::*, *};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa};
use wayfarer_mobility::{
    crypto::{PeerSignature, SignatureHashes, Signer, Verifier},
    identity::Identity,
};

/// Returns the words for the refusal of a certificate that `ca` issued.
fn words(
    authorities: &Authorities,
    ca: &Ca,
    params: &CertificateParams,
    more: &[&Ca],
    claimed: &Identity,
) -> String {
    let (signer, _) = Folder::new().signer_of(ca, params, &key_pair(&rcgen::PKCS_ECDSA_P256_SHA256));
    let (method, data) = signer.sign(b"octets", SignatureHashes::ALL).unwrap();
    let signature = PeerSignature { method, data, octets: b"octets".to_vec(), hashes: SignatureHashes::ALL };
    let more = more.iter().map(|ca| ca.der.clone());
    let certificates: Vec<Vec<u8>> = signer.certificates().iter().cloned().chain(more).collect();
    authorities.verify(claimed, &sent(&certificates), &signature).unwrap_err().words
}

#[test]
fn reason_is_named_with_what_it_is_about() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    let trusting = |now| folder.authorities(&[&root], &[], CrlPolicy::Relaxed, now);
    let authorities = trusting(NOW);
    let (own, claimed) = (params(NAME, 2), fqdn(NAME));
    let of_own =
        |authorities: &Authorities, ca: &Ca, more: &[&Ca]| words(authorities, ca, &own, more, &claimed);
    let name = "\"CN=gw.example.org\"";

    let late = of_own(&trusting(2_208_988_801), &root, &[]);
    assert_eq!(late, format!("{name} expired on 2040-01-01T00:00:00Z"));
    let early = of_own(&trusting(0), &root, &[]);
    assert_eq!(early, format!("{name} is not valid before 2020-01-01T00:00:00Z"));
    let mut old = ca_params("sub");
    old.not_after = rcgen::date_time_ymd(2025, 1, 1);
    let old = root.sub(old);
    assert_eq!(of_own(&authorities, &old, &[&old]), "\"CN=sub\" expired on 2025-01-01T00:00:00Z");

    let sub = root.sub(ca_params("sub"));
    let subsub = sub.sub(ca_params("subsub"));
    let stranger = Ca::root("stranger");
    for (ca, more, issuer) in
        [(&sub, &[][..], "sub"), (&subsub, &[&subsub][..], "sub"), (&stranger, &[][..], "stranger")]
    {
        let said = of_own(&authorities, ca, more);
        assert!(said.ends_with(&format!("its chain ends with the issuer \"CN={issuer}\"")), "{said}");
    }
    let said = of_own(&authorities, &Ca::root("root"), &[]);
    assert!(said.contains("is not by the issuer that it names (\"CN=root\")"), "{said}");

    let other = words(&authorities, &root, &own, &[], &fqdn("bob.example.org"));
    assert_eq!(other, format!("it is for {NAME} and {name}, not for bob.example.org"));

    let mere_peer = root.sub(params("peer.example.org", 3));
    assert!(of_own(&authorities, &mere_peer, &[&mere_peer]).contains("is not an authority's"));
    let mut short = ca_params("short");
    short.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let short = root.sub(short);
    let below = short.sub(ca_params("below"));
    assert!(of_own(&authorities, &below, &[&below, &short]).contains("path length constraint"));
    let mut authority = params(NAME, 2);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert!(words(&authorities, &root, &authority, &[], &claimed).contains("an authority's own"));
    let mut code = params(NAME, 2);
    code.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    assert!(words(&authorities, &root, &code, &[], &claimed).contains("extended key usage"));
}

#[test]
fn revoked_certificate_is_named_with_its_day() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    let with = |crl, policy, now| {
        let authorities = folder.authorities(&[&root], &[crl], policy, now);
        words(&authorities, &root, &params(NAME, 2), &[], &fqdn(NAME))
    };
    let revoked = with(root.crl(&[7, 2]), CrlPolicy::Relaxed, NOW);
    assert_eq!(revoked, "\"CN=gw.example.org\" was revoked on 2025-01-01T00:00:00Z");
    let late = with(root.crl(&[]), CrlPolicy::Strict, 1_830_297_600);
    assert_eq!(late, "the revocation list of its issuer expired on 2027-01-01T00:00:00Z");
    let namesake = with(Ca::root("root").crl(&[]), CrlPolicy::Relaxed, NOW);
    assert!(namesake.starts_with("the revocation list of its issuer has a wrong signature"), "{namesake}");
    let other = with(Ca::root("other").crl(&[]), CrlPolicy::Strict, NOW);
    assert!(
        other.starts_with("nothing that is up to date says that it and its chain are not revoked"),
        "{other}"
    );
}

/// A peer chooses the names in a certificate that it makes itself.
#[test]
fn names_cannot_forge_a_line_of_the_log_or_fill_it() {
    let (folder, root) = (Folder::new(), Ca::root("root"));
    let authorities = folder.authorities(&[&root], &[], CrlPolicy::Relaxed, NOW);
    let hostile = format!("x\nINFO peer connected\u{1b}[2J\u{202e}{}", "long".repeat(1000));
    let mut issuer = ca_params("unused");
    issuer.distinguished_name = DistinguishedName::new();
    issuer.distinguished_name.push(DnType::CommonName, &hostile[..]);
    let stranger = root.sub(issuer);
    let mut own = params(NAME, 2);
    own.subject_alt_names = (0..40).map(|n| san(&format!("{n}.{}", "a".repeat(200)))).collect();
    let mut expired = own.clone();
    expired.distinguished_name.push(DnType::CommonName, &hostile[..]);
    expired.not_after = rcgen::date_time_ymd(2025, 1, 1);
    for said in [
        words(&authorities, &stranger, &own, &[], &fqdn(NAME)),
        words(&authorities, &root, &own, &[], &fqdn(&hostile)),
        words(&authorities, &root, &expired, &[], &fqdn(NAME)),
    ] {
        assert!(said.len() < 800 && !said.contains(|c: char| c.is_control() || c == '\u{202e}'), "{said}");
    }
}
