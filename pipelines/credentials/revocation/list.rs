//! Revocation lists that were fetched (RFC 5280 §5).

use super::{issuer::Issuer, ocsp::SKEW, points, signed::Signed};
use std::time::{SystemTime, UNIX_EPOCH};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_cert::{
    der::{
        Decode, Reader, SliceReader, Tag, Tagged,
        asn1::{AnyRef, ObjectIdentifier},
    },
    ext::pkix::{
        AuthorityKeyIdentifier, IssuingDistributionPoint,
        name::{DistributionPointName, GeneralName},
    },
    time::Time,
};

/// A list whose issuer and signature are right.
#[derive(Debug)]
pub(in crate::credentials) struct FetchedList {
    pub(in crate::credentials) list: CertRevocationList<'static>,
    /// The time of which it is.
    pub(super) this_update: SystemTime,
    /// The time of its next update.
    pub(super) next_update: SystemTime,
    pub(super) scope: Scope,
}

/// The certificates that a list is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    peers: bool,
    authorities: bool,
}

/// Whose certificates a list is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::credentials) enum Holders {
    Peers,
    Authorities,
}

impl Holders {
    /// Returns whose certificate is at this place of a path: the first is the peer's.
    pub(in crate::credentials) fn at(place: usize) -> Self {
        if place == 0 { Self::Peers } else { Self::Authorities }
    }
}

impl FetchedList {
    /// Parses the list of `issuer` that was fetched from `url`.
    ///
    /// # Errors
    /// Returns why it cannot be used.
    pub(in crate::credentials) fn parse(
        der: &[u8],
        issuer: &Issuer,
        url: &str,
        now: SystemTime,
    ) -> Result<Self, &'static str> {
        let signed = Signed::parse(der).ok_or("it is not a revocation list")?;
        let (name, this_update, next_update) = facts(signed.data).ok_or("it is not a revocation list")?;
        if name != issuer.name {
            return Err("it is a list of another issuer");
        }
        if !signed.is_by(&issuer.key) {
            return Err("its signature is wrong");
        }
        let next_update = next_update.ok_or("it does not say when the next one comes")?;
        if this_update > now + SKEW {
            return Err("it is of the future");
        }
        if next_update <= now {
            return Err("it has expired");
        }
        let list =
            OwnedCertRevocationList::from_der(der).map_err(|_| "it has a part that is not supported")?;
        let list: CertRevocationList<'static> = list.into();
        let scope = Scope {
            peers: is_about(&list, url, Holders::Peers),
            authorities: is_about(&list, url, Holders::Authorities),
        };
        match scope {
            // Whoever is on the way could send it, and it would be kept until it expires.
            Scope { peers: false, authorities: false } => Err("it is not a list of this address"),
            _ => Ok(Self { list, this_update, next_update, scope }),
        }
    }

    /// Returns true if it is about the certificates of its issuer that `holders` have.
    pub(super) fn is_about(&self, holders: Holders) -> bool {
        match holders {
            Holders::Peers => self.scope.peers,
            Holders::Authorities => self.scope.authorities,
        }
    }
}

/// The extension with the identifier of the key that signed a list.
const AUTHORITY_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
/// The explicit tag of a list's extensions.
const EXTENSIONS: u8 = 0xa0;

/// Returns true if a list of its issuer is about a certificate of `holders`: about all of them, or those
/// of a point that the certificate names.
pub(in crate::credentials) fn covers(
    list: &CertRevocationList<'_>,
    certificate: &[u8],
    holders: Holders,
) -> bool {
    list.issuing_distribution_point().is_none()
        || points::crl_names(certificate).iter().any(|name| is_about(list, name, holders))
}

/// Returns true if a list from `url` is about those certificates of `holders` that name this address:
/// about all of its issuer, or about those of its issuing distribution point (RFC 5280 §5.2.5, §6.3.3 b).
fn is_about(list: &CertRevocationList<'_>, url: &str, holders: Holders) -> bool {
    let Some(point) = list.issuing_distribution_point() else { return true };
    let Ok(point) = IssuingDistributionPoint::from_der(point) else { return false };
    let is_here = match &point.distribution_point {
        None => true,
        Some(DistributionPointName::FullName(names)) => names
            .iter()
            .any(|name| matches!(name, GeneralName::UniformResourceIdentifier(name) if name.as_str() == url)),
        Some(DistributionPointName::NameRelativeToCRLIssuer(_)) => false,
    };
    let leaves_out = match holders {
        Holders::Peers => point.only_contains_ca_certs,
        Holders::Authorities => point.only_contains_user_certs,
    };
    is_here
        && !leaves_out
        && !point.indirect_crl
        && point.only_some_reasons.is_none()
        && !point.only_contains_attribute_certs
}

/// Returns when a list in DER was made, and when the next one comes.
pub(in crate::credentials) fn times(der: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (_, this_update, next_update) = facts(Signed::parse(der)?.data)?;
    Some((this_update, next_update?))
}

/// Returns the extension of a list in DER that identifies the issuer's key (RFC 5280 §5.2.1).
fn authority_key(der: &[u8]) -> Option<&[u8]> {
    let mut inside = SliceReader::new(AnyRef::from_der(Signed::parse(der)?.data).ok()?.value()).ok()?;
    while inside.peek_byte()? != EXTENSIONS {
        inside.tlv_bytes().ok()?;
    }
    let all = AnyRef::from_der(AnyRef::decode(&mut inside).ok()?.value()).ok()?.value();
    let mut all = SliceReader::new(all).ok()?;
    while let Ok(extension) = AnyRef::decode(&mut all) {
        let mut parts = SliceReader::new(extension.value()).ok()?;
        if ObjectIdentifier::decode(&mut parts).ok()? == AUTHORITY_KEY {
            return parts.read_slice(parts.remaining_len()).ok();
        }
    }
    None
}

/// Returns the identifier of the key that a list in DER says it is signed by.
pub(in crate::credentials) fn key_identifier(der: &[u8]) -> Option<Vec<u8>> {
    let extension = AnyRef::from_der(authority_key(der)?).ok()?;
    let named = AuthorityKeyIdentifier::from_der(extension.value()).ok()?;
    Some(named.key_identifier?.into_bytes().into())
}

/// Returns the issuer of a TBSCertList, when it was made, and when the next one comes.
fn facts(tbs: &[u8]) -> Option<(&[u8], SystemTime, Option<SystemTime>)> {
    let mut inside = SliceReader::new(AnyRef::from_der(tbs).ok()?.value()).ok()?;
    let first = AnyRef::decode(&mut inside).ok()?;
    // The version is optional, the signature's algorithm is not.
    if first.tag() == Tag::Integer {
        AnyRef::decode(&mut inside).ok()?;
    }
    let issuer = AnyRef::decode(&mut inside).ok()?.value();
    let this = time(&mut inside)?;
    let is_time = matches!(inside.peek_byte(), Some(0x17 | 0x18));
    let next = if is_time { Some(time(&mut inside)?) } else { None };
    Some((issuer, this, next))
}

fn time(reader: &mut SliceReader<'_>) -> Option<SystemTime> {
    Some(UNIX_EPOCH + Time::decode(reader).ok()?.to_unix_duration())
}
