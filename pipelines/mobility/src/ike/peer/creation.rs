//! CREATE_CHILD_SA exchanges in progress, from both sides: the state of each between two steps. Our
//! own goes from [`KexBegin`] to [`CreateSent`] to [`KexFinish`]; each step consumes the previous
//! one.

use super::child::AgreedChild;
use crate::{
    crypto::{Kex, KexSecret},
    ike::{context::Context, event::ChildId, proposal::Offer, suite::IkeSuite},
    path::Addresses,
};
use alloc::{boxed::Box, vec::Vec};

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
    /// True if these are all that the connection allows; false if they are those in use.
    pub(in crate::ike) offers_all: bool,
    /// True if the peer has already asked for another key exchange.
    pub(in crate::ike) retried: bool,
    /// The exchange by which the peer created the same SA meanwhile.
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

/// An exchange of ours that the peer has answered; its shared secret is being computed.
#[derive(Debug)]
pub(in crate::ike) struct KexFinish {
    pub(in crate::ike) create: OwnCreate,
    /// The peer's nonce.
    pub(in crate::ike) nonce: Vec<u8>,
    pub(in crate::ike) sa: AgreedSa,
}

/// An exchange by which the peer created the same SA at the same time (RFC 7296 §2.25).
#[derive(Debug)]
pub(in crate::ike) struct Collision {
    /// The lower of its two nonces.
    pub(in crate::ike) nonce: Vec<u8>,
    /// The SA that it created.
    pub(in crate::ike) sa: NewSa,
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
    /// Returns the key exchange for the new SA, if there is one.
    pub(in crate::ike) fn kex(&self) -> Option<Kex> {
        match self {
            Self::Child(agreed) => agreed.suite.kex.first().copied(),
            Self::IkeSa(agreed) => Some(agreed.suite.kex),
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
}

impl PeerCreate {
    /// Releases the SPI that was reserved for it.
    pub(in crate::ike) fn withdraw(&self, cx: &mut Context<'_>) {
        match &self.sa {
            AgreedSa::Child(agreed) => cx.forget_child_spi(agreed.spi_in),
            AgreedSa::IkeSa(agreed) => cx.forget_spi(agreed.spi_in),
        }
    }
}
