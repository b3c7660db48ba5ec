//! What is known of a peer that began to connect, until it is established.

use super::{choose::Candidates, transcript::Transcript};
use crate::{
    aaa::eap::Conversation,
    crypto::{Kex, Secret, SignatureHashes},
    ike::{
        exchange::auth::message::{AuthRequest, Proof},
        nat::NatDetection,
        proposal::Chosen,
        suite::IkeSuite,
    },
    rate::Rate,
};
use alloc::boxed::Box;

/// A handshake that the peer began.
#[derive(Debug)]
pub(in crate::ike) struct Responder {
    pub(in crate::ike) handshake: ResponderHandshake,
    pub(in crate::ike) state: ResponderState,
}

/// What all states of such a handshake know.
#[derive(Debug)]
pub(in crate::ike) struct ResponderHandshake {
    /// The connections that its first message fits.
    pub(in crate::ike) candidates: Candidates,
    /// Its first message and our answer, nonces, and what RFC 9242 adds.
    pub(in crate::ike) transcript: Transcript,
    pub(in crate::ike) hashes: SignatureHashes,
    /// What its first message says of its path, if no NAT was on it.
    pub(in crate::ike) nat: Option<Box<NatDetection>>,
    pub(in crate::ike) fragments: bool,
    /// Whether both sides mix in a post-quantum key, if they know the same one.
    pub(in crate::ike) ppk: bool,
    /// Repetitions of its first message that are answered.
    pub(in crate::ike) repeats: Rate,
}

/// What such a handshake waits for. Each state is consumed by what comes, and gives the next one.
#[derive(Debug)]
pub(in crate::ike) enum ResponderState {
    InitKex(InitKex),
    Ready(Ready),
    IntermediateKex(IntermediateKex),
    Verification(Verification),
    Signature(Signature),
    EapStart(Box<EapStart>),
    EapMethod(EapMethod),
    EapTurn(EapTurn),
    EapProof(EapProof),
}

/// The key exchange of IKE_SA_INIT is being answered.
#[derive(Debug)]
pub(in crate::ike) struct InitKex {
    pub(in crate::ike) chosen: Box<Chosen<IkeSuite>>,
}

/// The peer's next message has another key exchange, or is to prove who it is.
#[derive(Debug)]
pub(in crate::ike) struct Ready {
    /// How many of the suite's further key exchanges are done.
    pub(in crate::ike) kex_done: usize,
}

/// The key exchange of an IKE_INTERMEDIATE is being answered.
#[derive(Debug)]
pub(in crate::ike) struct IntermediateKex {
    pub(in crate::ike) kex: Kex,
    pub(in crate::ike) kex_done: usize,
}

/// The peer's certificate and signature are being checked.
#[derive(Debug)]
pub(in crate::ike) struct Verification {
    pub(in crate::ike) claim: Box<Claim>,
}

/// Our signature is being made.
#[derive(Debug)]
pub(in crate::ike) struct Signature {
    pub(in crate::ike) claim: Box<Claim>,
}

/// The EAP method makes its first packet, which goes with our proof.
#[derive(Debug)]
pub(in crate::ike) struct EapStart {
    pub(in crate::ike) claim: Box<Claim>,
    pub(in crate::ike) proof: Proof,
}

/// The EAP method works on the peer's packet.
#[derive(Debug)]
pub(in crate::ike) struct EapMethod {
    pub(in crate::ike) claim: Box<Claim>,
}

/// It is the peer's turn in the EAP conversation.
#[derive(Debug)]
pub(in crate::ike) struct EapTurn {
    pub(in crate::ike) claim: Box<Claim>,
    pub(in crate::ike) conversation: Box<dyn Conversation>,
}

/// The EAP conversation is over: the peer proves that it has its key.
#[derive(Debug)]
pub(in crate::ike) struct EapProof {
    pub(in crate::ike) claim: Box<Claim>,
    pub(in crate::ike) key: Secret,
}

/// Who the peer says it is, and what it asks for.
#[derive(Debug)]
pub(in crate::ike) struct Claim {
    pub(in crate::ike) connection: usize,
    /// Its first IKE_AUTH request, without the proof.
    pub(in crate::ike) request: AuthRequest,
    /// Whether the post-quantum key was mixed in.
    pub(in crate::ike) ppk: bool,
    /// Whether it showed that nothing on the way changed its addresses.
    pub(in crate::ike) is_unchanged: bool,
}

impl Responder {
    /// Returns the bytes of memory beside the peer's own.
    pub(in crate::ike) fn memory(&self) -> usize {
        let Self { handshake, .. } = self;
        let claim = self.state.claim().map_or(0, |claim| size_of::<Claim>() + claim.request.memory());
        let nat = handshake.nat.as_ref().map_or(0, |nat| size_of::<NatDetection>() + nat.memory());
        size_of::<Self>() + handshake.candidates.memory() + handshake.transcript.memory() + nat + claim
    }
}

impl ResponderState {
    fn claim(&self) -> Option<&Claim> {
        match self {
            Self::InitKex(_) | Self::Ready(_) | Self::IntermediateKex(_) => None,
            Self::EapStart(start) => Some(&start.claim),
            Self::Verification(Verification { claim })
            | Self::Signature(Signature { claim })
            | Self::EapMethod(EapMethod { claim })
            | Self::EapTurn(EapTurn { claim, .. })
            | Self::EapProof(EapProof { claim, .. }) => Some(claim),
        }
    }
}
