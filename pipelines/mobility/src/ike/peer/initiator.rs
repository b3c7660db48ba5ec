//! States of a handshake that we began.

use super::transcript::Transcript;
use crate::{
    aaa::eap::Conversation,
    crypto::{Kex, KexSecret, Secret, SignatureHashes},
    ike::{
        exchange::auth::message::{Proof, Terms},
        schedule::IkeSaKeys,
        suite::IkeSuite,
    },
};
use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

/// A handshake that we began.
#[derive(Debug)]
pub(in crate::ike) struct Initiator {
    pub(in crate::ike) handshake: InitiatorHandshake,
    pub(in crate::ike) state: InitiatorState,
}

/// Data shared by all states of the handshake.
#[derive(Debug)]
pub(in crate::ike) struct InitiatorHandshake {
    pub(in crate::ike) transcript: Transcript,
    /// The hashes of the signatures that the peer accepts.
    pub(in crate::ike) hashes: SignatureHashes,
    /// True if the peer asks for what OCSP responders say of our certificates (RFC 4806).
    pub(in crate::ike) wants_ocsp: bool,
    /// True if both sides can mix in a post-quantum key, and we have one.
    pub(in crate::ike) ppk: bool,
    /// The keys before the post-quantum key was mixed in, while the responder may refuse it.
    pub(in crate::ike) keys_without_ppk: Option<IkeSaKeys>,
    /// Our SPI of the first child SA.
    pub(in crate::ike) child_spi: u32,
}

/// A state of the handshake. Each is consumed by the event that it waits for, and returns the next.
#[derive(Debug)]
pub(in crate::ike) enum InitiatorState {
    InitKexBegin(InitKexBegin),
    InitSent(InitSent),
    InitKexFinish(InitKexFinish),
    IntermediateKexBegin(IntermediateKexBegin),
    IntermediateSent(IntermediateSent),
    IntermediateKexFinish(IntermediateKexFinish),
    Signature(Signature),
    AuthSent(AuthSent),
    Verification(Verification),
    EapMethod(EapMethod),
    EapSent(EapSent),
    EapProofSent(EapProofSent),
}

/// The key pair for IKE_SA_INIT is being generated.
#[derive(Debug)]
pub(in crate::ike) struct InitKexBegin {
    pub(in crate::ike) kex: Kex,
    /// The cookie that the peer sent, or empty.
    pub(in crate::ike) cookie: Vec<u8>,
    /// Number of times that the peer made us start over.
    pub(in crate::ike) restarts: u32,
}

/// The response to IKE_SA_INIT is awaited.
#[derive(Debug)]
pub(in crate::ike) struct InitSent {
    pub(in crate::ike) begin: InitKexBegin,
    pub(in crate::ike) secret: Box<dyn KexSecret>,
    /// Our public value.
    pub(in crate::ike) data: Vec<u8>,
    pub(in crate::ike) tries: u32,
    pub(in crate::ike) resend_at: Duration,
}

/// The shared secret of IKE_SA_INIT is being computed.
#[derive(Debug)]
pub(in crate::ike) struct InitKexFinish {
    pub(in crate::ike) suite: IkeSuite,
    /// True if the peer supports fragmentation.
    pub(in crate::ike) fragments: bool,
}

/// The key pair for an IKE_INTERMEDIATE exchange is being generated.
#[derive(Debug)]
pub(in crate::ike) struct IntermediateKexBegin {
    pub(in crate::ike) kex: Kex,
    /// Number of the suite's additional key exchanges that are done.
    pub(in crate::ike) kex_done: usize,
}

/// The response to IKE_INTERMEDIATE is awaited.
#[derive(Debug)]
pub(in crate::ike) struct IntermediateSent {
    pub(in crate::ike) kex: Kex,
    pub(in crate::ike) kex_done: usize,
    pub(in crate::ike) secret: Box<dyn KexSecret>,
}

/// The shared secret of an IKE_INTERMEDIATE exchange is being computed.
#[derive(Debug)]
pub(in crate::ike) struct IntermediateKexFinish {
    pub(in crate::ike) kex_done: usize,
}

/// Our signature is being computed.
#[derive(Debug)]
pub(in crate::ike) struct Signature {
    /// The octets that must also be signed: those that apply without the post-quantum key.
    pub(in crate::ike) without_ppk: Option<Vec<u8>>,
    /// The signature with that key, once it is there.
    pub(in crate::ike) proof: Option<Proof>,
}

/// The peer's proof is awaited.
#[derive(Debug)]
pub(in crate::ike) struct AuthSent;

/// The peer's certificate and signature are being verified.
#[derive(Debug)]
pub(in crate::ike) struct Verification {
    pub(in crate::ike) terms: Terms,
    /// The first EAP packet, which came with the proof.
    pub(in crate::ike) eap: Option<Vec<u8>>,
}

/// The EAP method is processing the gateway's packet.
#[derive(Debug)]
pub(in crate::ike) struct EapMethod;

/// The gateway's next EAP packet is awaited.
#[derive(Debug)]
pub(in crate::ike) struct EapSent {
    pub(in crate::ike) conversation: Box<dyn Conversation>,
}

/// The EAP conversation is over; the proof that the gateway has the key too is awaited.
#[derive(Debug)]
pub(in crate::ike) struct EapProofSent {
    pub(in crate::ike) key: Secret,
}
