//! Revocation lists that were fetched (RFC 5280 §5).

use super::{issuer::Issuer, ocsp::SKEW, signed::Signed};
use std::time::{SystemTime, UNIX_EPOCH};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_cert::{
    der::{Decode, Reader, SliceReader, Tag, Tagged, asn1::AnyRef},
    ext::pkix::{
        IssuingDistributionPoint,
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
    scope: Scope,
}

/// The certificates that a list is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Scope {
    peers: bool,
    authorities: bool,
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
        let scope = scope(&list, url);
        Ok(Self { list, this_update, next_update, scope })
    }

    /// Returns true if it is about all certificates of its issuer that are, or are not, authorities.
    pub(in crate::credentials) fn is_about(&self, is_authority: bool) -> bool {
        if is_authority { self.scope.authorities } else { self.scope.peers }
    }
}

/// Returns the certificates that a list from `url` is about: all, or those of its issuing distribution
/// point (RFC 5280 §5.2.5, §6.3.3 b).
fn scope(list: &CertRevocationList<'_>, url: &str) -> Scope {
    let Some(point) = list.issuing_distribution_point() else {
        return Scope { peers: true, authorities: true };
    };
    let Ok(point) = IssuingDistributionPoint::from_der(point) else { return Scope::default() };
    let is_here = match &point.distribution_point {
        None => true,
        Some(DistributionPointName::FullName(names)) => names
            .iter()
            .any(|name| matches!(name, GeneralName::UniformResourceIdentifier(name) if name.as_str() == url)),
        Some(DistributionPointName::NameRelativeToCRLIssuer(_)) => false,
    };
    let is_whole = is_here
        && !point.indirect_crl
        && point.only_some_reasons.is_none()
        && !point.only_contains_attribute_certs;
    Scope {
        peers: is_whole && !point.only_contains_ca_certs,
        authorities: is_whole && !point.only_contains_user_certs,
    }
}

/// Returns when a list in DER was made, and when the next one comes.
pub(in crate::credentials) fn times(der: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (_, this_update, next_update) = facts(Signed::parse(der)?.data)?;
    Some((this_update, next_update?))
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
