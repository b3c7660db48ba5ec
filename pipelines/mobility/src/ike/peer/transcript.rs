//! The messages of a handshake as both sides sign them (RFC 7296 §2.15, §2.16; RFC 9242 §3.3).

use super::ike_sa::IkeSa;
use crate::{
    crypto::Crypto,
    identity::Identity,
    ike::{
        protection::Plaintext,
        schedule::Seed,
        wire::{self, ExchangeType, Header, Payload},
    },
};
use alloc::vec::Vec;

/// One of the two sides of an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) enum Side {
    Initiator,
    Responder,
}

/// The handshake up to IKE_AUTH.
#[derive(Debug, Default)]
pub(in crate::ike) struct Transcript {
    pub(in crate::ike) spi_i: u64,
    pub(in crate::ike) spi_r: u64,
    pub(in crate::ike) nonce_i: Vec<u8>,
    pub(in crate::ike) nonce_r: Vec<u8>,
    /// The IKE_SA_INIT request.
    pub(in crate::ike) first: Vec<u8>,
    /// The IKE_SA_INIT response.
    pub(in crate::ike) second: Vec<u8>,
    /// IntAuth of the initiator's and of the responder's IKE_INTERMEDIATE messages so far; empty if
    /// there are none.
    pub(in crate::ike) intermediate: [Vec<u8>; 2],
    /// The message ID of IKE_AUTH, if there were IKE_INTERMEDIATE messages.
    pub(in crate::ike) auth_message_id: u32,
}

impl Transcript {
    pub(in crate::ike) fn memory(&self) -> usize {
        [&self.nonce_i, &self.nonce_r, &self.first, &self.second].iter().map(|v| v.capacity()).sum()
    }

    pub(in crate::ike) fn seed(&self) -> Seed<'_> {
        Seed { nonce_i: &self.nonce_i, nonce_r: &self.nonce_r, spi_i: self.spi_i, spi_r: self.spi_r }
    }

    /// Adds an IKE_INTERMEDIATE message of `side`, which is protected by the current keys of
    /// `ike_sa`.
    pub(in crate::ike) fn intermediate(
        &mut self,
        crypto: &dyn Crypto,
        ike_sa: &IkeSa,
        side: Side,
        header: &Header,
        message: &Plaintext,
    ) {
        let inner = message.body.len() as u32;
        let header = Header { next: wire::kind::SK, length: wire::HEADER as u32 + 4 + inner, ..*header };
        let mut octets = Vec::new();
        header.emit(&mut octets);
        octets.extend([message.first, 0]);
        octets.extend(((4 + inner) as u16).to_be_bytes());
        let key = match side {
            Side::Initiator => &ike_sa.keys.pi,
            Side::Responder => &ike_sa.keys.pr,
        };
        let so_far = &mut self.intermediate[usize::from(side == Side::Responder)];
        *so_far = crypto.prf(ike_sa.suite.prf, key, &[so_far, &octets, &message.body]).to_vec();
        self.auth_message_id = header.message_id + 1;
    }

    /// Adds an IKE_INTERMEDIATE message that `ike_sa` is about to send.
    pub(in crate::ike) fn intermediate_sent(
        &mut self,
        crypto: &dyn Crypto,
        ike_sa: &IkeSa,
        exchange: ExchangeType,
        is_response: bool,
        payloads: &[Payload<'_>],
    ) {
        let mut body = Vec::new();
        let first = wire::emit(payloads, &mut body);
        let flags = if is_response { wire::flags::RESPONSE } else { wire::flags::INITIATOR };
        let header = Header {
            spi_i: ike_sa.spi_i,
            spi_r: ike_sa.spi_r,
            next: 0,
            version: wire::VERSION,
            exchange: exchange.number(),
            flags,
            message_id: if is_response { ike_sa.expected } else { ike_sa.next },
            length: 0,
        };
        let side = if is_response { Side::Responder } else { Side::Initiator };
        self.intermediate(crypto, ike_sa, side, &header, &Plaintext { first, body, unsupported: None });
    }

    /// Returns the octets that `side`, whose identity is `identity`, signs.
    pub(in crate::ike) fn octets(
        &self,
        crypto: &dyn Crypto,
        ike_sa: &IkeSa,
        side: Side,
        identity: &Identity,
    ) -> Vec<u8> {
        let (message, nonce, key) = match side {
            Side::Initiator => (&self.first, &self.nonce_r, &ike_sa.keys.pi),
            Side::Responder => (&self.second, &self.nonce_i, &ike_sa.keys.pr),
        };
        let id = crypto.prf(ike_sa.suite.prf, key, &[&[identity.kind, 0, 0, 0], &identity.data]);
        let mut octets = [&message[..], nonce, &id].concat();
        if !self.intermediate[0].is_empty() {
            octets.extend_from_slice(&self.intermediate[0]);
            octets.extend_from_slice(&self.intermediate[1]);
            octets.extend_from_slice(&self.auth_message_id.to_be_bytes());
        }
        octets
    }
}
