//! CREATE_CHILD_SA exchanges under way, from both sides: what is kept of each between two steps.
//! Our own goes from [`KexBegin`] to [`CreateSent`] to [`KexFinish`], and each step takes the one
//! before.

use super::child::AgreedChild;
use crate::{
    crypto::{Kex, KexSecret},
    ike::{context::Context, event::ChildId, suite::IkeSuite},
    path::Addresses,
};
use alloc::{boxed::Box, vec::Vec};

/// What CREATE_CHILD_SA is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) enum Target {
    /// A child SA by this policy.
    Child(usize),
    /// Another in the place of this one.
    Rekey(ChildId),
    /// An IKE SA in the place of ours.
    IkeSa,
}

/// An exchange of ours, at any step.
#[derive(Debug)]
pub(in crate::ike) struct OwnCreate {
    pub(in crate::ike) target: Target,
    /// Our nonce.
    pub(in crate::ike) nonce: Vec<u8>,
    /// Our SPI: 4 or 8 bytes of it count.
    pub(in crate::ike) spi: u64,
    /// Whether the peer asked for another key exchange once.
    pub(in crate::ike) retried: bool,
    /// The exchange by which the peer made the same meanwhile.
    pub(in crate::ike) collision: Option<Collision>,
}

/// An exchange of ours whose key pair is being drawn.
#[derive(Debug)]
pub(in crate::ike) struct KexBegin {
    pub(in crate::ike) create: OwnCreate,
    pub(in crate::ike) kex: Kex,
}

/// An exchange of ours whose request is on its way.
#[derive(Debug)]
pub(in crate::ike) struct CreateSent {
    pub(in crate::ike) create: OwnCreate,
    /// Our key exchange, and its private part.
    pub(in crate::ike) kex: Option<(Kex, Box<dyn KexSecret>)>,
}

/// An exchange of ours that the peer has answered, whose key exchange is being finished.
#[derive(Debug)]
pub(in crate::ike) struct KexFinish {
    pub(in crate::ike) create: OwnCreate,
    /// The peer's nonce.
    pub(in crate::ike) nonce: Vec<u8>,
    pub(in crate::ike) sa: AgreedSa,
}

/// An exchange by which the peer made the same as we, at the same time (RFC 7296 §2.25).
#[derive(Debug)]
pub(in crate::ike) struct Collision {
    /// The lower of its nonces.
    pub(in crate::ike) nonce: Vec<u8>,
    /// What it made.
    pub(in crate::ike) made: NewSa,
}

/// What an exchange made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) enum NewSa {
    /// A child SA.
    Child(ChildId),
    /// An IKE SA, by our SPI.
    IkeSa(u64),
}

/// The peer's request, while its key exchange is answered.
#[derive(Debug)]
pub(in crate::ike) struct PeerCreate {
    /// Our SPI of the IKE SA that it came by.
    pub(in crate::ike) spi: u64,
    /// Where it came from.
    pub(in crate::ike) addresses: Addresses,
    /// The peer's nonce.
    pub(in crate::ike) nonce: Vec<u8>,
    pub(in crate::ike) sa: AgreedSa,
}

/// What both sides agreed on, before it has keys.
#[derive(Debug)]
pub(in crate::ike) enum AgreedSa {
    Child(AgreedChild),
    IkeSa(AgreedIkeSa),
}

/// An IKE SA that both sides agreed on.
#[derive(Debug)]
pub(in crate::ike) struct AgreedIkeSa {
    pub(in crate::ike) suite: IkeSuite,
    /// The number of the proposal.
    pub(in crate::ike) number: u8,
    /// Our SPI.
    pub(in crate::ike) spi_in: u64,
    /// The peer's.
    pub(in crate::ike) spi_out: u64,
}

impl AgreedSa {
    /// Returns the key exchange that it is to have.
    pub(in crate::ike) fn kex(&self) -> Option<Kex> {
        match self {
            Self::Child(agreed) => agreed.suite.kex.first().copied(),
            Self::IkeSa(agreed) => Some(agreed.suite.kex),
        }
    }
}

impl OwnCreate {
    /// Gives back what was taken for it.
    pub(in crate::ike) fn withdraw(&self, cx: &mut Context<'_>) {
        match self.target {
            Target::IkeSa => cx.forget_spi(self.spi),
            Target::Child(_) | Target::Rekey(_) => cx.forget_child_spi(self.spi as u32),
        }
    }
}

impl PeerCreate {
    /// Gives back what was taken for it.
    pub(in crate::ike) fn withdraw(&self, cx: &mut Context<'_>) {
        match &self.sa {
            AgreedSa::Child(agreed) => cx.forget_child_spi(agreed.spi_in),
            AgreedSa::IkeSa(agreed) => cx.forget_spi(agreed.spi_in),
        }
    }
}
