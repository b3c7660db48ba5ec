//! The messages of IKE_SA_INIT (RFC 7296 §1.2). Nothing in them is proved yet.

use crate::{
    crypto::SignatureHashes,
    ike::{
        nat::NatDetection,
        wire::{self, Header, Malformed, Payload, Proposal, kind, notify},
    },
};
use alloc::vec::Vec;

/// Our vendor ID: who sends it understands our own notifies.
pub(in crate::ike) const VENDOR_ID: [u8; 16] = *b"Wayfarer peer 1\0";

/// A request, or the answer that goes on.
#[derive(Debug)]
pub(in crate::ike) struct InitMessage {
    pub(in crate::ike) proposals: Vec<Proposal>,
    /// The key exchange method of `kex`, a transform ID of type 4.
    pub(in crate::ike) method: u16,
    /// The sender's public value.
    pub(in crate::ike) kex: Vec<u8>,
    pub(in crate::ike) nonce: Vec<u8>,
    /// The cookie that a request brings back.
    pub(in crate::ike) cookie: Option<Vec<u8>>,
    pub(in crate::ike) nat: Option<NatDetection>,
    /// The hashes that the sender takes signatures over (RFC 7427 §4).
    pub(in crate::ike) hashes: SignatureHashes,
    /// Whether the sender takes fragments (RFC 7383).
    pub(in crate::ike) fragments: bool,
    /// Whether it takes IKE_INTERMEDIATE (RFC 9242).
    pub(in crate::ike) intermediate: bool,
    /// Whether it mixes in a post-quantum key (RFC 8784).
    pub(in crate::ike) ppk: bool,
    /// Whether it understands our own notifies.
    pub(in crate::ike) is_ours: bool,
}

/// An answer.
#[derive(Debug)]
pub(in crate::ike) enum InitResponse {
    /// The request is to come again with this cookie (RFC 7296 §2.6).
    Cookie(Vec<u8>),
    /// The request is to come again with this key exchange method (RFC 7296 §1.2).
    OtherKex(u16),
    /// The responder goes on.
    Answer(InitMessage),
}

impl InitMessage {
    /// Reads the message with this header.
    ///
    /// # Errors
    /// If it is no chain of payloads, or lacks the SA, KE or nonce payload.
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
            fragments: has(notify::IKEV2_FRAGMENTATION_SUPPORTED),
            intermediate: has(notify::INTERMEDIATE_EXCHANGE_SUPPORTED),
            ppk: has(notify::USE_PPK),
            is_ours: payloads.iter().any(|p| matches!(p, Payload::Vendor(id) if *id == VENDOR_ID)),
        })
    }
}

impl InitResponse {
    /// Reads the message with this header.
    ///
    /// # Errors
    /// If it is no chain of payloads, or none of these answers.
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

/// Returns the hashes that SIGNATURE_HASH_ALGORITHMS names, of two octets each (RFC 7427 §4).
fn hashes(payloads: &[Payload<'_>]) -> Result<SignatureHashes, Malformed> {
    match wire::notified(payloads, notify::SIGNATURE_HASH_ALGORITHMS).unwrap_or_default().as_chunks() {
        (numbers, []) => {
            let numbers = numbers.iter().map(|number| u16::from_be_bytes(*number));
            Ok(numbers.fold(SignatureHashes::default(), SignatureHashes::with))
        }
        _ => Err(Malformed::Length),
    }
}

/// Returns the data of SIGNATURE_HASH_ALGORITHMS.
pub(in crate::ike) fn hash_numbers(hashes: SignatureHashes) -> Vec<u8> {
    hashes.iter().flat_map(u16::to_be_bytes).collect()
}
