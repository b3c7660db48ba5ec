//! What is known of a peer that began to connect, until it is established.

use super::{auth::Transcript, choose::Candidates};
use crate::{
    aaa::eap::Conversation,
    crypto::{Secret, SignatureHashes},
    ike::{proposal::Chosen, protection::Plaintext, suite::IkeSuite},
    rate::Rate,
};
use alloc::boxed::Box;

/// What we know of a peer that began to connect.
#[derive(Debug)]
pub(in crate::ike) struct Responder {
    /// The connections that its first message fits.
    pub(in crate::ike) candidates: Candidates,
    /// Its first message and our answer, nonces, and what RFC 9242 adds.
    pub(in crate::ike) transcript: Transcript,
    pub(in crate::ike) hashes: SignatureHashes,
    pub(in crate::ike) fragments: bool,
    /// Of the suite's further key exchanges, how many are done.
    pub(in crate::ike) kex_done: usize,
    pub(in crate::ike) stage: Stage,
    /// Repetitions of its first message that are answered.
    pub(in crate::ike) repeats: Rate,
}

#[derive(Debug)]
pub(in crate::ike) enum Stage {
    /// The key exchange is being answered.
    Init(Box<Chosen<IkeSuite>>),
    /// Its next message is to prove who it is.
    Ready,
    /// That is being checked.
    Proving(Box<Claim>),
}

/// Who the peer says it is, and what it wants.
#[derive(Debug)]
pub(in crate::ike) struct Claim {
    pub(in crate::ike) connection: usize,
    /// The plaintext of its first IKE_AUTH request.
    pub(in crate::ike) request: Plaintext,
    /// Whether the post-quantum key was mixed in.
    pub(in crate::ike) ppk: bool,
    /// Whether it showed that nothing on the way changed its addresses.
    pub(in crate::ike) is_unchanged: bool,
    pub(in crate::ike) eap: Option<Eap>,
}

#[derive(Debug)]
pub(in crate::ike) enum Eap {
    /// Our proof is being made, which comes before the conversation.
    Signing,
    /// It is the peer's turn.
    Talking(Box<dyn Conversation>),
    /// It is the method's turn.
    Thinking,
    /// It is over: the peer proves that it has this key.
    Over(Secret),
}

impl Responder {
    /// Bytes of memory beside the peer's own.
    pub(in crate::ike) fn memory(&self) -> usize {
        let claim = match &self.stage {
            Stage::Proving(claim) => claim.request.body.capacity() + size_of::<Claim>(),
            _ => 0,
        };
        size_of::<Self>() + self.candidates.memory() + self.transcript.memory() + claim
    }
}
