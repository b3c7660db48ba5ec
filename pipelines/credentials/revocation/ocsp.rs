//! Answers of an authority's responder about one certificate (OCSP, RFC 6960).

use super::{
    issuer::Issuer,
    signed::{Signed, key},
};
use crate::{
    credentials::{certificate::sequence, facts::CertificateFacts},
    primitives::Primitives,
};
use std::{
    iter,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use wayfarer_mobility::crypto::Crypto;
use x509_cert::{
    Certificate,
    der::{
        Decode, Encode, Reader, SliceReader, Tag, Tagged,
        asn1::{AnyRef, ObjectIdentifier},
    },
    ext::pkix::ExtendedKeyUsage,
    time::Time,
};

/// The type of a request's body.
pub(super) const REQUEST_TYPE: &str = "application/ocsp-request";

/// Time for which an answer without a next update counts.
const DEFAULT_TIME: Duration = Duration::from_secs(3600);
/// Most that the responder's clock may differ from ours.
pub(super) const SKEW: Duration = Duration::from_secs(300);

/// Most certificates in an answer that are looked at.
const MOST_DELEGATES: usize = 4;

const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");

/// Tags of certStatus (RFC 6960 §4.2.1).
const GOOD: u8 = 0x80;
const REVOKED: u8 = 0xa1;
/// The explicit tag [0].
const EXPLICIT_0: u8 = 0xa0;

/// What a responder says of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::credentials) struct Status {
    /// When it was revoked; `None` if it is good.
    pub(in crate::credentials) revoked_at: Option<SystemTime>,
    /// The time of which this is.
    pub(super) this_update: SystemTime,
    /// The time until which this counts.
    pub(super) next_update: SystemTime,
}

/// Returns the request for the status of a certificate (RFC 6960 §4.1.1).
pub(in crate::credentials) fn request(issuer: &Issuer, serial: &[u8]) -> Option<Vec<u8>> {
    let one = sequence(&sequence(&id(issuer, serial)?)?)?;
    // OCSPRequest, TBSRequest, requestList.
    sequence(&sequence(&sequence(&one)?)?)
}

/// Returns the content of the CertID for a certificate of `issuer`.
fn id(issuer: &Issuer, serial: &[u8]) -> Option<Vec<u8>> {
    let name = Primitives.sha1(&[&sequence(&issuer.name)?]);
    let (_, key) = key(&issuer.key)?;
    let key = Primitives.sha1(&[key]);
    let algorithm = sequence(&[SHA1.to_der().ok()?, vec![0x05, 0]].concat())?;
    let tlv = |tag, content: &[u8]| AnyRef::new(tag, content).ok()?.to_der().ok();
    let (name, key) = (tlv(Tag::OctetString, &name)?, tlv(Tag::OctetString, &key)?);
    Some([algorithm, name, key, tlv(Tag::Integer, serial)?].concat())
}

impl Status {
    /// Parses the answer of a responder about the certificate of `issuer` with this serial number.
    ///
    /// # Errors
    /// Returns why it cannot be used.
    pub(in crate::credentials) fn parse(
        der: &[u8],
        issuer: &Issuer,
        serial: &[u8],
        now: SystemTime,
    ) -> Result<Self, &'static str> {
        let basic = basic(der).ok_or("the responder refuses, or answers in no way that is supported")?;
        let signed = Signed::parse(basic).ok_or("it is not an answer of OCSP")?;
        let wanted = id(issuer, serial).ok_or("the certificate cannot be named")?;
        let status = find(signed.data, &wanted, now);
        let status = status.ok_or("it does not say anything that holds now about the certificate")?;
        match signed.is_by(&issuer.key) || is_by_delegate(&signed, issuer, now) {
            true => Ok(status),
            false => Err("its signature is wrong, or of somebody who may not answer"),
        }
    }
}

/// Returns the BasicOCSPResponse of a successful OCSPResponse.
fn basic(der: &[u8]) -> Option<&[u8]> {
    let mut inside = SliceReader::new(AnyRef::from_der(der).ok()?.value()).ok()?;
    // Successful is 0.
    if inside.tlv_bytes().ok()? != [0x0a, 1, 0] {
        return None;
    }
    let bytes = explicit(&mut inside, EXPLICIT_0)?;
    let mut bytes = SliceReader::new(AnyRef::from_der(bytes).ok()?.value()).ok()?;
    if ObjectIdentifier::decode(&mut bytes).ok()? != BASIC {
        return None;
    }
    let response = AnyRef::decode(&mut bytes).ok()?;
    (response.tag() == Tag::OctetString).then(|| response.value())
}

/// Reads what is in an explicit tag; `None` if another one follows.
fn explicit<'a>(reader: &mut SliceReader<'a>, tag: u8) -> Option<&'a [u8]> {
    if reader.peek_byte() != Some(tag) {
        return None;
    }
    AnyRef::decode(reader).ok().map(|any| any.value())
}

/// Returns true if a delegate of `issuer` signed the answer: a certificate in the answer that the
/// issuer itself issued for that purpose (RFC 6960 §4.2.2.2).
fn is_by_delegate(signed: &Signed<'_>, issuer: &Issuer, now: SystemTime) -> bool {
    let certificates = || {
        let mut rest = SliceReader::new(signed.rest).ok()?;
        let list = explicit(&mut rest, EXPLICIT_0)?;
        SliceReader::new(AnyRef::from_der(list).ok()?.value()).ok()
    };
    let Some(mut certificates) = certificates() else { return false };
    let all = iter::from_fn(|| certificates.tlv_bytes().ok()).take(MOST_DELEGATES);
    all.filter_map(|der| is_delegate(der, issuer, now)).any(|key| signed.is_by(&key))
}

/// Returns the key of a certificate if it is a delegate's of `issuer`.
fn is_delegate(der: &[u8], issuer: &Issuer, now: SystemTime) -> Option<Vec<u8>> {
    let facts = CertificateFacts::of(der)?;
    let certificate = Certificate::from_der(der).ok()?;
    let about = certificate.tbs_certificate();
    let (_, usage) = about.get_extension::<ExtendedKeyUsage>().ok()??;
    let is_it = facts.issuer == sequence(&issuer.name)?
        && usage.0.contains(&OCSP_SIGNING)
        && (facts.not_before..=facts.not_after).contains(&now)
        && Signed::parse(der)?.is_by(&issuer.key);
    is_it.then(|| about.subject_public_key_info().to_der().ok())?
}

/// Returns what a ResponseData says of the certificate with this CertID.
fn find(data: &[u8], wanted: &[u8], now: SystemTime) -> Option<Status> {
    let mut inside = SliceReader::new(AnyRef::from_der(data).ok()?.value()).ok()?;
    explicit(&mut inside, EXPLICIT_0);
    // The responder's name or key, and the time of the answer.
    inside.tlv_bytes().ok()?;
    inside.tlv_bytes().ok()?;
    let mut responses = SliceReader::new(AnyRef::decode(&mut inside).ok()?.value()).ok()?;
    while let Ok(response) = AnyRef::decode(&mut responses) {
        if let Some(status) = single(response.value(), wanted, now) {
            return Some(status);
        }
    }
    None
}

/// Returns what a SingleResponse says, if it is about this CertID and holds now.
fn single(response: &[u8], wanted: &[u8], now: SystemTime) -> Option<Status> {
    let mut inside = SliceReader::new(response).ok()?;
    if parts(AnyRef::decode(&mut inside).ok()?.value())? != parts(wanted)? {
        return None;
    }
    let tag = inside.peek_byte()?;
    let status = AnyRef::decode(&mut inside).ok()?.value();
    let this_update = time(&mut inside)?;
    let next_update = match explicit(&mut inside, EXPLICIT_0) {
        Some(next) => time(&mut SliceReader::new(next).ok()?)?,
        None => this_update + DEFAULT_TIME,
    };
    let revoked_at = match tag {
        GOOD => None,
        REVOKED => Some(time(&mut SliceReader::new(status).ok()?)?),
        // Unknown.
        _ => return None,
    };
    let holds = this_update <= now + SKEW && now < next_update;
    holds.then_some(Status { revoked_at, this_update, next_update })
}

/// Splits the content of a CertID into the algorithm, whose parameters do not count, and the rest.
fn parts(id: &[u8]) -> Option<(ObjectIdentifier, &[u8])> {
    let mut inside = SliceReader::new(id).ok()?;
    let algorithm = AnyRef::decode(&mut inside).ok()?.value();
    let algorithm = ObjectIdentifier::decode(&mut SliceReader::new(algorithm).ok()?).ok()?;
    Some((algorithm, inside.read_slice(inside.remaining_len()).ok()?))
}

fn time(reader: &mut SliceReader<'_>) -> Option<SystemTime> {
    Some(UNIX_EPOCH + Time::decode(reader).ok()?.to_unix_duration())
}
