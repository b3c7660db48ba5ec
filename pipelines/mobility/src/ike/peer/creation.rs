//! CREATE_CHILD_SA exchanges under way, from both sides.

use super::child::AgreedChild;
use crate::{
    crypto::{Kex, KexSecret},
    ike::{context::Context, event::ChildId, proposal::Chosen, suite::IkeSuite},
    path::Addresses,
};
use alloc::{boxed::Box, vec::Vec};

/// What CREATE_CHILD_SA is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A child SA by this policy.
    Child(usize),
    /// Another in the place of this one.
    Rekey(ChildId),
    /// An IKE SA in the place of ours.
    IkeSa,
}

/// What we began to make.
#[derive(Debug)]
pub(super) struct OwnCreate {
    pub(super) what: Target,
    /// Our nonce.
    pub(super) nonce: Vec<u8>,
    /// Our SPI: 4 or 8 bytes of it count.
    pub(super) spi: u64,
    /// The key exchange that is being begun.
    pub(super) pending: Option<Kex>,
    /// The peer asked for another one once.
    pub(super) retried: bool,
    /// Our key exchange.
    pub(super) kex: Option<(Kex, Box<dyn KexSecret>)>,
    /// The peer began the same: the lower of its exchange's nonces, and what it made.
    pub(super) rival: Option<Collision>,
}

/// What the peer made at the same time as we.
#[derive(Clone, Debug)]
pub(super) struct Collision {
    /// The lower of the nonces of its exchange.
    pub(super) nonce: Vec<u8>,
    /// What it made.
    pub(super) made: NewSa,
}

/// What an exchange made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewSa {
    /// A child SA.
    Child(ChildId),
    /// An IKE SA, by our SPI.
    IkeSa(u64),
}

/// The peer's request, while its key exchange is answered.
#[derive(Debug)]
pub(super) struct PeerCreate {
    pub(super) spi: u64,
    pub(super) addresses: Addresses,
    /// The peer's nonce.
    pub(super) nonce: Vec<u8>,
    pub(super) kex: Kex,
    pub(super) what: AgreedSa,
}

/// What the peer asks for.
#[derive(Debug)]
pub(super) enum AgreedSa {
    Child(AgreedChild),
    IkeSa(Chosen<IkeSuite>),
}

impl PeerCreate {
    /// Gives back what was taken for it.
    pub(super) fn withdraw(&self, cx: &mut Context<'_>) {
        self.what.withdraw(cx);
    }
}

impl AgreedSa {
    pub(super) fn withdraw(&self, cx: &mut Context<'_>) {
        if let Self::Child(agreed) = self {
            cx.forget_child_spi(agreed.spi_in);
        }
    }
}

impl OwnCreate {
    /// Gives back what was taken for it.
    pub(super) fn withdraw(&self, cx: &mut Context<'_>) {
        match self.what {
            Target::IkeSa => cx.forget_spi(self.spi),
            Target::Child(_) | Target::Rekey(_) => cx.forget_child_spi(self.spi as u32),
        }
    }
}

/// The peer's answer to our request, while the key exchange is finished.
#[derive(Debug)]
pub(super) struct CreateCompletion {
    pub(super) making: Box<OwnCreate>,
    /// The peer's nonce.
    pub(super) nonce: Vec<u8>,
    pub(super) what: AgreedSa,
}
