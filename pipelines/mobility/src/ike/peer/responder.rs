//! States of a handshake that the peer began.

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
use core::time::Duration;

/// A handshake that the peer began.
#[derive(Debug)]
pub(in crate::ike) struct Responder {
    pub(in crate::ike) handshake: ResponderHandshake,
    pub(in crate::ike) state: ResponderState,
}

/// Data shared by all states of the handshake.
#[derive(Debug)]
pub(in crate::ike) struct ResponderHandshake {
    /// The connections that the peer's first message may belong to.
    pub(in crate::ike) candidates: Candidates,
    /// The first message and our response, the nonces, and what RFC 9242 adds.
    pub(in crate::ike) transcript: Transcript,
    pub(in crate::ike) hashes: SignatureHashes,
    /// The NAT detection in the first message, if it showed no NAT.
    pub(in crate::ike) nat: Option<Box<NatDetection>>,
    pub(in crate::ike) fragments: bool,
    /// True if both sides can mix in a post-quantum key, provided that they have the same one.
    pub(in crate::ike) ppk: bool,
    /// Limits how often the first message is answered again.
    pub(in crate::ike) repeats: Rate,
}

/// A state of the handshake. Each is consumed by the event that it waits for, and returns the next.
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

/// Another key exchange or the peer's proof is awaited.
#[derive(Debug)]
pub(in crate::ike) struct Ready {
    /// Number of the suite's additional key exchanges that are done.
    pub(in crate::ike) kex_done: usize,
}

/// The key exchange of an IKE_INTERMEDIATE exchange is being answered.
#[derive(Debug)]
pub(in crate::ike) struct IntermediateKex {
    pub(in crate::ike) kex: Kex,
    pub(in crate::ike) kex_done: usize,
}

/// The peer's certificate and signature are being verified.
#[derive(Debug)]
pub(in crate::ike) struct Verification {
    pub(in crate::ike) claim: Box<Claim>,
}

/// Our signature is being computed.
#[derive(Debug)]
pub(in crate::ike) struct Signature {
    pub(in crate::ike) claim: Box<Claim>,
}

/// The EAP method is preparing its first packet, which is sent together with our proof.
#[derive(Debug)]
pub(in crate::ike) struct EapStart {
    pub(in crate::ike) claim: Box<Claim>,
    pub(in crate::ike) proof: Proof,
}

/// The EAP method is processing the peer's packet.
#[derive(Debug)]
pub(in crate::ike) struct EapMethod {
    pub(in crate::ike) claim: Box<Claim>,
}

/// The peer's next EAP packet is awaited.
#[derive(Debug)]
pub(in crate::ike) struct EapTurn {
    pub(in crate::ike) claim: Box<Claim>,
    pub(in crate::ike) conversation: Box<dyn Conversation>,
}

/// The EAP conversation is over; the proof that the peer has the key too is awaited.
#[derive(Debug)]
pub(in crate::ike) struct EapProof {
    pub(in crate::ike) claim: Box<Claim>,
    pub(in crate::ike) key: Secret,
}

/// The identity that the peer claims, and its request.
#[derive(Debug)]
pub(in crate::ike) struct Claim {
    pub(in crate::ike) connection: usize,
    /// The peer's first IKE_AUTH request, without the proof.
    pub(in crate::ike) request: AuthRequest,
    /// Index of the connection whose post-quantum key was mixed in, if one was.
    pub(in crate::ike) ppk: Option<usize>,
    /// True if the peer showed that nothing on the path changed its addresses.
    pub(in crate::ike) is_unchanged: bool,
    pub(in crate::ike) server_time: ServerTime,
}

/// The time that RADIUS servers take to answer, which does not count against the peer's own.
#[derive(Debug, Default)]
pub(in crate::ike) struct ServerTime {
    taken: Duration,
    /// When the server was asked that has not answered yet.
    asked_at: Option<Duration>,
}

impl ServerTime {
    /// Notes that a server is asked.
    pub(in crate::ike) fn begin(&mut self, now: Duration) {
        self.asked_at = Some(now);
    }

    /// Notes that no server is asked any more.
    pub(in crate::ike) fn end(&mut self, now: Duration) {
        let taken = self.asked_at.take().map(|asked_at| now.saturating_sub(asked_at));
        self.taken += taken.unwrap_or_default();
    }

    /// Returns the time that it adds to the peer's own, up to `most`.
    pub(in crate::ike) fn extension(&self, most: Duration) -> Duration {
        if self.asked_at.is_some() { most } else { self.taken.min(most) }
    }
}

impl Responder {
    /// Returns the heap memory in bytes, including this box.
    pub(in crate::ike) fn memory(&self) -> usize {
        let Self { handshake, .. } = self;
        let claim = self.state.claim().map_or(0, |claim| size_of::<Claim>() + claim.request.memory());
        let nat = handshake.nat.as_ref().map_or(0, |nat| size_of::<NatDetection>() + nat.memory());
        size_of::<Self>() + handshake.candidates.memory() + handshake.transcript.memory() + nat + claim
    }
}

impl ResponderState {
    /// Returns the identity that the peer claims, once it does.
    pub(in crate::ike) fn claim(&self) -> Option<&Claim> {
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
