//! The messages of IKE_SA_INIT (RFC 7296 §1.2), which are not authenticated yet.

use crate::{
    crypto::SignatureHashes,
    ike::{
        nat::NatDetection,
        wire::{self, Header, Malformed, Payload, Proposal, kind, notify},
    },
};
use alloc::vec::Vec;

/// Our vendor ID: a peer that sends it understands our proprietary notifies.
pub(in crate::ike) const VENDOR_ID: [u8; 16] = *b"Wayfarer peer 1\0";

/// A request, or a response that accepts it.
#[derive(Debug)]
pub(in crate::ike) struct InitMessage {
    pub(in crate::ike) proposals: Vec<Proposal>,
    /// The key exchange method of `kex`, a transform ID of type 4.
    pub(in crate::ike) method: u16,
    /// The sender's public value.
    pub(in crate::ike) kex: Vec<u8>,
    pub(in crate::ike) nonce: Vec<u8>,
    /// The cookie that a request returns.
    pub(in crate::ike) cookie: Option<Vec<u8>>,
    pub(in crate::ike) nat: Option<NatDetection>,
    /// The hashes of the signatures that the sender accepts (RFC 7427 §4).
    pub(in crate::ike) hashes: SignatureHashes,
    /// True if the sender asks for what OCSP responders say of our certificates (RFC 4806).
    pub(in crate::ike) wants_ocsp: bool,
    /// True if the sender supports fragmentation (RFC 7383).
    pub(in crate::ike) fragments: bool,
    /// True if the sender supports IKE_INTERMEDIATE (RFC 9242).
    pub(in crate::ike) intermediate: bool,
    /// True if the sender can mix in a post-quantum key (RFC 8784).
    pub(in crate::ike) ppk: bool,
    /// True if the sender understands our proprietary notifies.
    pub(in crate::ike) is_wayfarer: bool,
}

/// A response.
#[derive(Debug)]
pub(in crate::ike) enum InitResponse {
    /// The request must be repeated with this cookie (RFC 7296 §2.6).
    Cookie(Vec<u8>),
    /// The request must be repeated with this key exchange method (RFC 7296 §1.2).
    OtherKex(u16),
    /// The responder accepts the request.
    Answer(InitMessage),
}

impl InitMessage {
    /// Parses the message with this header.
    ///
    /// # Errors
    /// Fails if it is not a chain of payloads, or lacks the SA, KE or nonce payload.
    pub(in crate::ike) fn parse(header: &Header, message: &[u8]) -> Result<Self, Malformed> {
        Self::read(&payloads(header, message)?)
    }

    fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        let find = |kind| payloads.iter().find(|p| p.kind() == kind);
        let Some(Payload::Sa(proposals)) = find(kind::SA) else { return Err(Malformed::Missing(kind::SA)) };
        let Some(Payload::Ke { method, data }) = find(kind::KE) else {
            return Err(Malformed::Missing(kind::KE));
        };
        let Some(Payload::Nonce(nonce)) = find(kind::NONCE) else {
            return Err(Malformed::Missing(kind::NONCE));
        };
        let has = |kind| wire::notified(payloads, kind).is_some();
        Ok(Self {
            proposals: proposals.clone(),
            method: *method,
            kex: data.to_vec(),
            nonce: nonce.to_vec(),
            cookie: wire::notified(payloads, notify::COOKIE).map(<[u8]>::to_vec),
            nat: NatDetection::read(payloads)?,
            hashes: hashes(payloads)?,
            wants_ocsp: wire::wants_ocsp(payloads),
            fragments: has(notify::IKEV2_FRAGMENTATION_SUPPORTED),
            intermediate: has(notify::INTERMEDIATE_EXCHANGE_SUPPORTED),
            ppk: has(notify::USE_PPK),
            is_wayfarer: payloads.iter().any(|p| matches!(p, Payload::Vendor(id) if *id == VENDOR_ID)),
        })
    }
}

impl InitResponse {
    /// Parses the message with this header.
    ///
    /// # Errors
    /// Fails if it is not a chain of payloads, or none of these responses.
    pub(in crate::ike) fn parse(header: &Header, message: &[u8]) -> Result<Self, Malformed> {
        let payloads = payloads(header, message)?;
        // A cookie has 1 to 64 bytes (RFC 7296 §2.6).
        let cookie =
            wire::notified(&payloads, notify::COOKIE).filter(|cookie| (1..=64).contains(&cookie.len()));
        if let Some(cookie) = cookie {
            return Ok(Self::Cookie(cookie.to_vec()));
        }
        if let Some(method) = wire::wanted_kex(&payloads)? {
            return Ok(Self::OtherKex(method));
        }
        InitMessage::read(&payloads).map(Self::Answer)
    }
}

fn payloads<'a>(header: &Header, message: &'a [u8]) -> Result<Vec<Payload<'a>>, Malformed> {
    wire::parse(header.next, message.get(wire::HEADER..).ok_or(Malformed::Truncated)?)
}

/// Returns the hashes in SIGNATURE_HASH_ALGORITHMS, two octets each (RFC 7427 §4), if there is one.
fn hashes(payloads: &[Payload<'_>]) -> Result<SignatureHashes, Malformed> {
    let Some(data) = wire::notified(payloads, notify::SIGNATURE_HASH_ALGORITHMS) else {
        return Ok(SignatureHashes::default());
    };
    match data.as_chunks() {
        (numbers, []) => {
            let numbers = numbers.iter().map(|number| u16::from_be_bytes(*number));
            Ok(numbers.fold(SignatureHashes::UNKNOWN, SignatureHashes::with))
        }
        _ => Err(Malformed::Length),
    }
}

/// Returns the data of SIGNATURE_HASH_ALGORITHMS.
pub(in crate::ike) fn hash_numbers(hashes: SignatureHashes) -> Vec<u8> {
    hashes.iter().flat_map(u16::to_be_bytes).collect()
}
