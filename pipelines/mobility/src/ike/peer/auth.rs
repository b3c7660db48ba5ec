//! What both sides of IKE_AUTH share: what is signed, and with what (RFC 7296 §2.15, §2.16; RFC 9242 §3.3).

use super::ike_sa::IkeSa;
use crate::{
    crypto::{Crypto, SignatureHashes},
    identity::Identity,
    ike::{
        connection::LocalAuth,
        protection::Plaintext,
        schedule::Seed,
        wire::{self, Configuration, ExchangeType, Header, Payload, Proposal, TrafficSelector, notify},
    },
};
use alloc::{vec, vec::Vec};

/// AUTH method: shared key message integrity code.
pub(in crate::ike) const SHARED_KEY: u8 = 2;
/// Certificate encoding: X.509, signature.
pub(in crate::ike) const X509_SIGNATURE: u8 = 4;
/// Our vendor ID: who sends it understands our own notifications.
pub(in crate::ike) const VENDOR_ID: [u8; 16] = *b"Wayfarer peer 1\0";

/// One of the two sides of an IKE SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) enum Side {
    Initiator,
    Responder,
}

/// What both sides said before IKE_AUTH.
#[derive(Debug, Default)]
pub(in crate::ike) struct Transcript {
    pub(in crate::ike) spi_i: u64,
    pub(in crate::ike) spi_r: u64,
    pub(in crate::ike) nonce_i: Vec<u8>,
    pub(in crate::ike) nonce_r: Vec<u8>,
    /// The IKE_SA_INIT request.
    pub(in crate::ike) first: Vec<u8>,
    /// Its answer.
    pub(in crate::ike) second: Vec<u8>,
    /// IntAuth of the initiator's and the responder's IKE_INTERMEDIATE messages so far; empty: none.
    pub(in crate::ike) intermediate: [Vec<u8>; 2],
    /// The message ID of IKE_AUTH, where there were such.
    pub(in crate::ike) auth_message_id: u32,
}

impl Transcript {
    pub(in crate::ike) fn memory(&self) -> usize {
        [&self.nonce_i, &self.nonce_r, &self.first, &self.second].iter().map(|v| v.capacity()).sum()
    }

    pub(in crate::ike) fn seed(&self) -> Seed<'_> {
        Seed { nonce_i: &self.nonce_i, nonce_r: &self.nonce_r, spi_i: self.spi_i, spi_r: self.spi_r }
    }

    /// Takes in an IKE_INTERMEDIATE message of `side`, that is protected by the keys that `ike_sa` has.
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

    /// [`Transcript::intermediate`] of a message that `ike_sa` is about to send.
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
        self.intermediate(crypto, ike_sa, side, &header, &Plaintext { first, body });
    }

    /// What `side`, who is called `identity`, signs.
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

/// The payloads of an IKE_AUTH message of `side`.
#[derive(Debug, Default)]
pub(in crate::ike) struct AuthPayloads<'a> {
    pub(in crate::ike) identity: Option<&'a Identity>,
    /// Whom it wants to talk to.
    pub(in crate::ike) wanted: Option<&'a Identity>,
    pub(in crate::ike) certificates: Vec<&'a [u8]>,
    pub(in crate::ike) auth: Option<(u8, &'a [u8])>,
    pub(in crate::ike) eap: Option<&'a [u8]>,
    pub(in crate::ike) configuration: Option<&'a Configuration<'a>>,
    pub(in crate::ike) proposals: Option<&'a [Proposal]>,
    pub(in crate::ike) ts_i: &'a [TrafficSelector],
    pub(in crate::ike) ts_r: &'a [TrafficSelector],
    /// The first error among its notifications.
    pub(in crate::ike) error: Option<u16>,
    /// All notifications.
    pub(in crate::ike) notifies: Vec<&'a wire::Notify<'a>>,
}

impl<'a> AuthPayloads<'a> {
    pub(in crate::ike) fn read(payloads: &'a [Payload<'a>], side: Side) -> Self {
        let mut all = Self::default();
        for payload in payloads {
            match (payload, side) {
                (Payload::IdI(id), Side::Initiator) | (Payload::IdR(id), Side::Responder) => {
                    all.identity = Some(id)
                }
                (Payload::IdR(id), Side::Initiator) => all.wanted = Some(id),
                (Payload::Cert { encoding: X509_SIGNATURE, data }, _) => all.certificates.push(data),
                (Payload::Auth { method, data }, _) => all.auth = Some((*method, data)),
                (Payload::Eap(packet), _) => all.eap = Some(packet),
                (Payload::Cp(configuration), _) => all.configuration = Some(configuration),
                (Payload::Sa(proposals), _) => all.proposals = Some(proposals),
                (Payload::TsI(selectors), _) => all.ts_i = selectors,
                (Payload::TsR(selectors), _) => all.ts_r = selectors,
                (Payload::Notify(notify), _) => {
                    if wire::notify::is_error(notify.kind) {
                        all.error = all.error.or(Some(notify.kind));
                    }
                    all.notifies.push(notify);
                }
                _ => {}
            }
        }
        all
    }
}

/// An AUTH payload.
#[derive(Clone, Debug)]
pub(in crate::ike) struct Proof {
    pub(in crate::ike) method: u8,
    pub(in crate::ike) data: Vec<u8>,
}

impl Proof {
    pub(in crate::ike) fn payload(&self) -> Payload<'_> {
        Payload::Auth { method: self.method, data: &self.data }
    }
}

/// Whether the peer has our vendor ID.
pub(in crate::ike) fn is_ours(payloads: &[Payload<'_>]) -> bool {
    payloads.iter().any(|p| matches!(p, Payload::Vendor(id) if *id == VENDOR_ID))
}

/// The hashes that SIGNATURE_HASH_ALGORITHMS names (RFC 7427 §4).
pub(in crate::ike) fn hashes(payloads: &[Payload<'_>]) -> SignatureHashes {
    let data = wire::notified(payloads, notify::SIGNATURE_HASH_ALGORITHMS).unwrap_or_default();
    data.chunks_exact(2).fold(SignatureHashes::default(), |all, pair| match pair {
        [high, low] => all.with(u16::from_be_bytes([*high, *low])),
        _ => all,
    })
}

/// The data of SIGNATURE_HASH_ALGORITHMS.
pub(in crate::ike) fn hash_numbers(hashes: SignatureHashes) -> Vec<u8> {
    hashes.iter().flat_map(u16::to_be_bytes).collect()
}

/// Our CERT payloads.
pub(in crate::ike) fn certificates(auth: &LocalAuth) -> Vec<Payload<'_>> {
    match auth {
        LocalAuth::Key(signer) => {
            let payload = |data| Payload::Cert { encoding: X509_SIGNATURE, data };
            signer.certificates().iter().map(|c| &c[..]).map(payload).collect()
        }
        LocalAuth::Psk(_) | LocalAuth::Eap(_) => vec![],
    }
}

/// Whether two texts are the same, in a time that does not tell where they differ.
pub(in crate::ike) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && !a.is_empty() && a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}
