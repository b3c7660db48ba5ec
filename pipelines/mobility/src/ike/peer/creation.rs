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
pub(in crate::ike) enum Target {
    /// A child SA by this policy.
    Child(usize),
    /// Another in the place of this one.
    Rekey(ChildId),
    /// An IKE SA in the place of ours.
    IkeSa,
}

/// What we began to make.
#[derive(Debug)]
pub(in crate::ike) struct OwnCreate {
    pub(in crate::ike) what: Target,
    /// Our nonce.
    pub(in crate::ike) nonce: Vec<u8>,
    /// Our SPI: 4 or 8 bytes of it count.
    pub(in crate::ike) spi: u64,
    /// The key exchange that is being begun.
    pub(in crate::ike) pending: Option<Kex>,
    /// The peer asked for another one once.
    pub(in crate::ike) retried: bool,
    /// Our key exchange.
    pub(in crate::ike) kex: Option<(Kex, Box<dyn KexSecret>)>,
    /// The peer began the same: the lower of its exchange's nonces, and what it made.
    pub(in crate::ike) rival: Option<Collision>,
}

/// What the peer made at the same time as we.
#[derive(Clone, Debug)]
pub(in crate::ike) struct Collision {
    /// The lower of the nonces of its exchange.
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
    pub(in crate::ike) spi: u64,
    pub(in crate::ike) addresses: Addresses,
    /// The peer's nonce.
    pub(in crate::ike) nonce: Vec<u8>,
    pub(in crate::ike) kex: Kex,
    pub(in crate::ike) what: AgreedSa,
}

/// What the peer asks for.
#[derive(Debug)]
pub(in crate::ike) enum AgreedSa {
    Child(AgreedChild),
    IkeSa(Chosen<IkeSuite>),
}

impl PeerCreate {
    /// Gives back what was taken for it.
    pub(in crate::ike) fn withdraw(&self, cx: &mut Context<'_>) {
        self.what.withdraw(cx);
    }
}

impl AgreedSa {
    pub(in crate::ike) fn withdraw(&self, cx: &mut Context<'_>) {
        if let Self::Child(agreed) = self {
            cx.forget_child_spi(agreed.spi_in);
        }
    }
}

impl OwnCreate {
    /// Gives back what was taken for it.
    pub(in crate::ike) fn withdraw(&self, cx: &mut Context<'_>) {
        match self.what {
            Target::IkeSa => cx.forget_spi(self.spi),
            Target::Child(_) | Target::Rekey(_) => cx.forget_child_spi(self.spi as u32),
        }
    }
}

/// The peer's answer to our request, while the key exchange is finished.
#[derive(Debug)]
pub(in crate::ike) struct CreateCompletion {
    pub(in crate::ike) making: Box<OwnCreate>,
    /// The peer's nonce.
    pub(in crate::ike) nonce: Vec<u8>,
    pub(in crate::ike) what: AgreedSa,
}
