//! Revocation lists that were fetched (RFC 5280 §5).

use super::{issuer::Issuer, signed::Signed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_cert::{
    der::{Decode, Reader, SliceReader, Tag, Tagged, asn1::AnyRef},
    time::Time,
};

/// A list whose issuer and signature are right.
#[derive(Debug)]
pub(in crate::credentials) struct FetchedList {
    pub(in crate::credentials) list: CertRevocationList<'static>,
    /// The time of its next update.
    pub(super) next_update: SystemTime,
}

impl FetchedList {
    /// Parses the list of `issuer`.
    ///
    /// # Errors
    /// Returns why it cannot be used.
    pub(in crate::credentials) fn parse(
        der: &[u8],
        issuer: &Issuer,
        now: SystemTime,
    ) -> Result<Self, &'static str> {
        let signed = Signed::parse(der).ok_or("it is not a revocation list")?;
        let (name, next_update) = facts(signed.data).ok_or("it is not a revocation list")?;
        if name != issuer.name {
            return Err("it is a list of another issuer");
        }
        if !signed.is_by(&issuer.key) {
            return Err("its signature is wrong");
        }
        let next_update = next_update.ok_or("it does not say when the next one comes")?;
        if next_update <= now {
            return Err("it has expired");
        }
        let list =
            OwnedCertRevocationList::from_der(der).map_err(|_| "it has a part that is not supported")?;
        Ok(Self { list: list.into(), next_update })
    }
}

/// Returns the issuer of a TBSCertList, and when the next one comes.
fn facts(tbs: &[u8]) -> Option<(&[u8], Option<SystemTime>)> {
    let mut inside = SliceReader::new(AnyRef::from_der(tbs).ok()?.value()).ok()?;
    let first = AnyRef::decode(&mut inside).ok()?;
    // The version is optional, the signature's algorithm is not.
    if first.tag() == Tag::Integer {
        AnyRef::decode(&mut inside).ok()?;
    }
    let issuer = AnyRef::decode(&mut inside).ok()?.value();
    Time::decode(&mut inside).ok()?;
    let is_time = matches!(inside.peek_byte(), Some(0x17 | 0x18));
    let next = if is_time { Some(Time::decode(&mut inside).ok()?) } else { None };
    Some((issuer, next.map(|time| UNIX_EPOCH + Duration::from_secs(time.to_unix_duration().as_secs()))))
}
