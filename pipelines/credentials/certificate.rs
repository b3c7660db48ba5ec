//! The names in a certificate.

use rustls_pki_types::CertificateDer;
use wayfarer_mobility::identity::{Identity, kind};
use webpki::EndEntityCert;
use x509_cert::{
    Certificate,
    der::{
        Decode, Encode, Tag,
        asn1::{AnyRef, ObjectIdentifier},
    },
    ext::pkix::{SubjectAltName, name::GeneralName},
};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Returns the identities that a DER certificate certifies: the subject alternative names (domain
/// names, mail and IP addresses) in their order, then the subject. Returns none if the certificate
/// cannot be parsed.
pub fn identities(certificate: &[u8]) -> Vec<Identity> {
    alternative_names(certificate).into_iter().flatten().chain(subject(certificate)).collect()
}

/// Returns the subject as an identity, in its original bytes (ID_DER_ASN1_DN). Returns `None` if it
/// is empty or cannot be parsed.
pub fn subject(certificate: &[u8]) -> Option<Identity> {
    let certificate = CertificateDer::from(certificate);
    let certificate = EndEntityCert::try_from(&certificate).ok()?;
    let subject = Some(certificate.subject()).filter(|subject| !subject.is_empty())?;
    Some(Identity { kind: kind::DER_ASN1_DN, data: sequence(subject)? })
}

/// Returns the public key in a DER certificate. Returns `None` if that cannot be parsed.
pub fn public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let certificate = CertificateDer::from(certificate);
    let certificate = EndEntityCert::try_from(&certificate).ok()?;
    Some(certificate.subject_public_key_info().to_vec())
}

/// Returns a DER SEQUENCE with this content.
pub(super) fn sequence(content: &[u8]) -> Option<Vec<u8>> {
    AnyRef::new(Tag::Sequence, content).ok()?.to_der().ok()
}

/// Returns whether an identity of a certificate is the one that a peer claims. Domain names are
/// compared without regard to case (RFC 5280 §7.2, §7.5), and a wildcard matches only itself.
pub(super) fn is_same(own: &Identity, claimed: &Identity) -> bool {
    if own.kind != claimed.kind {
        return false;
    }
    match own.kind {
        kind::FQDN => own.data.eq_ignore_ascii_case(&claimed.data),
        kind::RFC822_ADDR => match (split_mail(&own.data), split_mail(&claimed.data)) {
            (Some((name, domain)), Some((other, same))) => name == other && domain.eq_ignore_ascii_case(same),
            _ => false,
        },
        _ => own.is_same(claimed),
    }
}

/// Returns whether an EAP identity names the certificate's owner: as a mail address or domain name
/// of the alternative names, as the subject's common name if there are none of these, or as the
/// whole subject in DER.
pub(super) fn is_called(certificate: &[u8], name: &[u8]) -> bool {
    let identities = identities(certificate);
    let mut names = identities.iter().filter(|own| own.kind != kind::DER_ASN1_DN).peekable();
    if names.peek().is_none() && common_names(certificate).iter().any(|own| own == name) {
        return true;
    }
    let claimed = |kind| Identity { kind, data: name.to_vec() };
    let kinds = [kind::FQDN, kind::RFC822_ADDR, kind::DER_ASN1_DN].map(claimed);
    identities.iter().any(|own| kinds.iter().any(|claimed| is_same(own, claimed)))
}

/// Returns the names that [`is_called`] accepts, except the subject in DER.
pub(super) fn names(certificate: &[u8]) -> Vec<Vec<u8>> {
    let identities = identities(certificate).into_iter();
    let is_text = |own: &Identity| matches!(own.kind, kind::FQDN | kind::RFC822_ADDR);
    let names: Vec<Vec<u8>> = identities.filter(is_text).map(|own| own.data).collect();
    if names.is_empty() { common_names(certificate) } else { names }
}

fn common_names(certificate: &[u8]) -> Vec<Vec<u8>> {
    let Ok(certificate) = Certificate::from_der(certificate) else { return Vec::new() };
    let attributes = certificate.tbs_certificate().subject().iter();
    attributes.filter(|a| a.oid == COMMON_NAME).map(|a| a.value.value().to_vec()).collect()
}

fn split_mail(address: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = address.iter().rposition(|&c| c == b'@')?;
    Some((address.get(..at)?, address.get(at..)?))
}

fn alternative_names(certificate: &[u8]) -> Option<Vec<Identity>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let (_, names) = certificate.tbs_certificate().get_extension::<SubjectAltName>().ok()??;
    Some(names.0.iter().filter_map(identity).collect())
}

fn identity(name: &GeneralName) -> Option<Identity> {
    let (kind, data) = match name {
        GeneralName::DnsName(name) => (kind::FQDN, name.as_bytes()),
        GeneralName::Rfc822Name(name) => (kind::RFC822_ADDR, name.as_bytes()),
        GeneralName::IpAddress(address) if address.as_bytes().len() == 4 => {
            (kind::IPV4_ADDR, address.as_bytes())
        }
        GeneralName::IpAddress(address) if address.as_bytes().len() == 16 => {
            (kind::IPV6_ADDR, address.as_bytes())
        }
        _ => return None,
    };
    Some(Identity { kind, data: data.to_vec() })
}
