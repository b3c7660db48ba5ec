//! What is known of a peer that we began to connect to, until it is established.

use super::transcript::Transcript;
use crate::{
    aaa::eap::Conversation,
    crypto::{Kex, KexSecret, Secret, SignatureHashes},
    ike::{exchange::auth::message::Terms, suite::IkeSuite},
};
use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

/// A handshake that we began.
#[derive(Debug)]
pub(in crate::ike) struct Initiator {
    pub(in crate::ike) handshake: InitiatorHandshake,
    pub(in crate::ike) state: InitiatorState,
}

/// What all states of such a handshake know.
#[derive(Debug)]
pub(in crate::ike) struct InitiatorHandshake {
    pub(in crate::ike) transcript: Transcript,
    /// The hashes that the peer takes signatures over.
    pub(in crate::ike) hashes: SignatureHashes,
    /// Whether the post-quantum key is mixed in.
    pub(in crate::ike) ppk: bool,
    /// The SPI of the first child SA.
    pub(in crate::ike) child_spi: u32,
}

/// What such a handshake waits for. Each state is consumed by what comes, and gives the next one.
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

/// The key exchange of IKE_SA_INIT is being begun.
#[derive(Debug)]
pub(in crate::ike) struct InitKexBegin {
    pub(in crate::ike) kex: Kex,
    /// The cookie that the peer gave us; empty: none.
    pub(in crate::ike) cookie: Vec<u8>,
    /// How often the peer sent us back to the start.
    pub(in crate::ike) restarts: u32,
}

/// The peer is to answer IKE_SA_INIT.
#[derive(Debug)]
pub(in crate::ike) struct InitSent {
    pub(in crate::ike) begin: InitKexBegin,
    pub(in crate::ike) secret: Box<dyn KexSecret>,
    /// Our public value.
    pub(in crate::ike) data: Vec<u8>,
    pub(in crate::ike) tries: u32,
    pub(in crate::ike) resend_at: Duration,
}

/// The key exchange of IKE_SA_INIT is being finished.
#[derive(Debug)]
pub(in crate::ike) struct InitKexFinish {
    pub(in crate::ike) suite: IkeSuite,
    /// Whether the peer takes fragments.
    pub(in crate::ike) fragments: bool,
}

/// The key exchange of an IKE_INTERMEDIATE is being begun.
#[derive(Debug)]
pub(in crate::ike) struct IntermediateKexBegin {
    pub(in crate::ike) kex: Kex,
    /// How many of the suite's further key exchanges are done.
    pub(in crate::ike) kex_done: usize,
}

/// The peer is to answer IKE_INTERMEDIATE.
#[derive(Debug)]
pub(in crate::ike) struct IntermediateSent {
    pub(in crate::ike) kex: Kex,
    pub(in crate::ike) kex_done: usize,
    pub(in crate::ike) secret: Box<dyn KexSecret>,
}

/// The key exchange of an IKE_INTERMEDIATE is being finished.
#[derive(Debug)]
pub(in crate::ike) struct IntermediateKexFinish {
    pub(in crate::ike) kex_done: usize,
}

/// Our signature is being made.
#[derive(Debug)]
pub(in crate::ike) struct Signature;

/// The peer is to prove who it is.
#[derive(Debug)]
pub(in crate::ike) struct AuthSent;

/// The peer's certificate and signature are being checked.
#[derive(Debug)]
pub(in crate::ike) struct Verification {
    pub(in crate::ike) terms: Terms,
    /// The first EAP packet, which came with the proof.
    pub(in crate::ike) eap: Option<Vec<u8>>,
}

/// The EAP method works on the gateway's packet.
#[derive(Debug)]
pub(in crate::ike) struct EapMethod;

/// It is the gateway's turn in the EAP conversation.
#[derive(Debug)]
pub(in crate::ike) struct EapSent {
    pub(in crate::ike) conversation: Box<dyn Conversation>,
}

/// The EAP conversation is over: the gateway proves that it has its key.
#[derive(Debug)]
pub(in crate::ike) struct EapProofSent {
    pub(in crate::ike) key: Secret,
}
