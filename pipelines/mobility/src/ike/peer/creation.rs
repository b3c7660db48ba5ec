//! CREATE_CHILD_SA exchanges in progress, from both sides, with the IKE_FOLLOWUP_KE exchanges that
//! complete them (RFC 9370 §2.2.4): the state of each between two steps. Each step consumes the
//! previous one.
//!
//! Our own goes from [`KexBegin`] to [`CreateSent`] to [`KexFinish`]; for each further key exchange,
//! it goes on to [`FollowupBegin`], [`FollowupSent`] and again [`KexFinish`]. The peer's goes from
//! [`PeerCreate`] to [`FollowupTurn`] and [`FollowupKex`], and back to the turn.

use super::child::AgreedChild;
use crate::{
    crypto::{Kex, KexSecret, Secret},
    ike::{
        context::Context, crash::CrashToken, event::ChildId,
        exchange::create_child::followup_message::Ticket, proposal::Offer, suite::IkeSuite,
    },
    path::Addresses,
};
use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

/// The SA that CREATE_CHILD_SA creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) enum Target {
    /// A child SA with this policy.
    Child(usize),
    /// A successor of this child SA.
    Rekey(ChildId),
    /// A successor of our IKE SA.
    IkeSa,
}

/// An exchange that we began, at any step.
#[derive(Debug)]
pub(in crate::ike) struct OwnCreate {
    pub(in crate::ike) target: Target,
    /// Index of the child SA's policy in the connection; `None` for an IKE SA.
    pub(in crate::ike) policy: Option<usize>,
    /// Our nonce.
    pub(in crate::ike) nonce: Vec<u8>,
    /// Our SPI, of 4 or 8 bytes.
    pub(in crate::ike) spi: u64,
    /// The algorithms that we offer.
    pub(in crate::ike) offers: Vec<Offer>,
    /// True if a peer that refuses these is offered no others: they are all that the connection allows,
    /// or better than those in use.
    pub(in crate::ike) is_final: bool,
    /// True if the peer has already asked for another key exchange.
    pub(in crate::ike) retried: bool,
    /// The exchange by which the peer creates the same SA meanwhile.
    pub(in crate::ike) collision: Option<Collision>,
}

/// An exchange of ours whose key pair is being generated.
#[derive(Debug)]
pub(in crate::ike) struct KexBegin {
    pub(in crate::ike) create: OwnCreate,
    pub(in crate::ike) kex: Kex,
}

/// An exchange of ours whose request has been sent.
#[derive(Debug)]
pub(in crate::ike) struct CreateSent {
    pub(in crate::ike) create: OwnCreate,
    /// Our key exchange and its private part.
    pub(in crate::ike) kex: Option<(Kex, Box<dyn KexSecret>)>,
}

/// An exchange of ours that the peer has agreed to.
#[derive(Debug)]
pub(in crate::ike) struct OwnAgreed {
    pub(in crate::ike) create: OwnCreate,
    /// The peer's nonce.
    pub(in crate::ike) nonce: Vec<u8>,
    pub(in crate::ike) sa: AgreedSa,
    /// The shared secrets of the key exchanges that are done.
    pub(in crate::ike) shared: Vec<Secret>,
    /// The peer's token for the new IKE SA.
    pub(in crate::ike) crash_token: Option<CrashToken>,
}

/// A key exchange of ours that the peer has answered; its shared secret is being computed.
#[derive(Debug)]
pub(in crate::ike) struct KexFinish {
    pub(in crate::ike) agreed: OwnAgreed,
    /// The peer's ticket for the next key exchange.
    pub(in crate::ike) ticket: Option<Ticket>,
}

/// An exchange of ours that another key exchange must complete; its key pair is being generated.
#[derive(Debug)]
pub(in crate::ike) struct FollowupBegin {
    pub(in crate::ike) agreed: OwnAgreed,
    pub(in crate::ike) kex: Kex,
    pub(in crate::ike) ticket: Ticket,
}

/// An exchange of ours whose IKE_FOLLOWUP_KE request has been sent.
#[derive(Debug)]
pub(in crate::ike) struct FollowupSent {
    pub(in crate::ike) agreed: OwnAgreed,
    pub(in crate::ike) kex: Kex,
    pub(in crate::ike) secret: Box<dyn KexSecret>,
}

/// An exchange by which the peer creates the same SA at the same time (RFC 7296 §2.25).
#[derive(Debug)]
pub(in crate::ike) struct Collision {
    /// The lower of its two nonces.
    pub(in crate::ike) nonce: Vec<u8>,
    /// The SA that it created; `None` while further key exchanges are awaited.
    pub(in crate::ike) sa: Option<NewSa>,
}

/// An SA that an exchange created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) enum NewSa {
    /// A child SA.
    Child(ChildId),
    /// An IKE SA, by our SPI.
    IkeSa(u64),
}

/// The peer's request while its key exchange is answered.
#[derive(Debug)]
pub(in crate::ike) struct PeerCreate {
    /// Our SPI of the IKE SA by which the request came.
    pub(in crate::ike) spi: u64,
    /// The addresses by which the request came.
    pub(in crate::ike) addresses: Addresses,
    /// The peer's nonce.
    pub(in crate::ike) nonce: Vec<u8>,
    pub(in crate::ike) sa: AgreedSa,
}

/// An exchange of the peer that we have agreed to.
#[derive(Debug)]
pub(in crate::ike) struct PeerAgreed {
    /// Our SPI of the IKE SA by which the request came.
    pub(in crate::ike) spi: u64,
    /// The nonces, the peer's first.
    pub(in crate::ike) nonces: [Vec<u8>; 2],
    pub(in crate::ike) sa: AgreedSa,
    /// The shared secrets of the key exchanges that are done.
    pub(in crate::ike) shared: Vec<Secret>,
}

/// An exchange of the peer whose next key exchange is awaited.
#[derive(Debug)]
pub(in crate::ike) struct FollowupTurn {
    pub(in crate::ike) agreed: PeerAgreed,
    /// What the peer's request must contain.
    pub(in crate::ike) ticket: Ticket,
    /// When it is given up.
    pub(in crate::ike) until: Duration,
}

/// An exchange of the peer whose next key exchange is being answered.
#[derive(Debug)]
pub(in crate::ike) struct FollowupKex {
    pub(in crate::ike) agreed: PeerAgreed,
    /// The addresses by which the request came.
    pub(in crate::ike) addresses: Addresses,
    pub(in crate::ike) kex: Kex,
}

/// An SA that both sides agreed on, before it has keys.
#[derive(Debug)]
pub(in crate::ike) enum AgreedSa {
    Child(AgreedChild),
    IkeSa(AgreedIkeSa),
}

/// An IKE SA that both sides agreed on.
#[derive(Debug)]
pub(in crate::ike) struct AgreedIkeSa {
    pub(in crate::ike) suite: IkeSuite,
    /// Number of the chosen proposal.
    pub(in crate::ike) number: u8,
    /// Our SPI.
    pub(in crate::ike) spi_in: u64,
    /// The peer's SPI.
    pub(in crate::ike) spi_out: u64,
}

impl AgreedSa {
    /// Returns the key exchange for the new SA that comes after this many others, if there is one.
    pub(in crate::ike) fn kex(&self, done: usize) -> Option<Kex> {
        match self {
            Self::Child(agreed) => agreed.suite.kex.get(done).copied(),
            Self::IkeSa(AgreedIkeSa { suite, .. }) => match done.checked_sub(1) {
                None => Some(suite.kex),
                Some(further) => suite.more_kex.get(further).copied(),
            },
        }
    }

    /// Returns the target of an exchange of ours that would create the same SA. A new child SA is
    /// never the same as another.
    pub(in crate::ike) fn target(&self) -> Option<Target> {
        match self {
            Self::Child(agreed) => agreed.replaces.map(Target::Rekey),
            Self::IkeSa(_) => Some(Target::IkeSa),
        }
    }

    /// Releases our SPI of it.
    pub(in crate::ike) fn withdraw(&self, cx: &mut Context<'_>) {
        match self {
            Self::Child(agreed) => cx.forget_child_spi(agreed.spi_in),
            Self::IkeSa(agreed) => cx.forget_spi(agreed.spi_in),
        }
    }
}

impl OwnCreate {
    /// Releases the SPI that was reserved for it.
    pub(in crate::ike) fn withdraw(&self, cx: &mut Context<'_>) {
        match self.target {
            Target::IkeSa => cx.forget_spi(self.spi),
            Target::Child(_) | Target::Rekey(_) => cx.forget_child_spi(self.spi as u32),
        }
    }

    /// Returns the same SA that the peer created meanwhile.
    pub(in crate::ike) fn rival(&self) -> Option<NewSa> {
        self.collision.as_ref()?.sa
    }
}

impl OwnAgreed {
    /// Returns the next key exchange, if one is left.
    pub(in crate::ike) fn next_kex(&self) -> Option<Kex> {
        self.sa.kex(self.shared.len())
    }
}

impl PeerAgreed {
    /// Returns the next key exchange, if one is left.
    pub(in crate::ike) fn next_kex(&self) -> Option<Kex> {
        self.sa.kex(self.shared.len())
    }
}
