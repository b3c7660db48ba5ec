//! CREATE_CHILD_SA exchanges under way, from both sides.

use super::child::Agreed;
use crate::{
    crypto::{Kex, KexSecret},
    ike::{context::Context, event::ChildId, proposal::Chosen, suite::IkeSuite},
    path::Addresses,
};
use alloc::{boxed::Box, vec::Vec};

/// What CREATE_CHILD_SA is to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A child SA by this policy.
    Child(usize),
    /// Another in the place of this one.
    Rekey(ChildId),
    /// An IKE SA in the place of ours.
    Session,
}

/// What we began to make.
#[derive(Debug)]
pub(super) struct Making {
    pub(super) what: What,
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
    pub(super) rival: Option<Rival>,
}

/// What the peer made at the same time as we.
#[derive(Clone, Debug)]
pub(super) struct Rival {
    /// The lower of the nonces of its exchange.
    pub(super) nonce: Vec<u8>,
    /// What it made.
    pub(super) made: Made,
}

/// What an exchange made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// A child SA.
    Child(ChildId),
    /// An IKE SA, by our SPI.
    Session(u64),
}

/// The peer's request, while its key exchange is answered.
#[derive(Debug)]
pub(super) struct Creating {
    pub(super) spi: u64,
    pub(super) addresses: Addresses,
    /// The peer's nonce.
    pub(super) nonce: Vec<u8>,
    pub(super) kex: Kex,
    pub(super) what: Asked,
}

/// What the peer asks for.
#[derive(Debug)]
pub(super) enum Asked {
    Child(Agreed),
    Session(Chosen<IkeSuite>),
}

impl Creating {
    /// Gives back what was taken for it.
    pub(super) fn withdraw(&self, cx: &mut Context<'_>) {
        self.what.withdraw(cx);
    }
}

impl Asked {
    pub(super) fn withdraw(&self, cx: &mut Context<'_>) {
        if let Self::Child(agreed) = self {
            cx.forget_child_spi(agreed.spi_in);
        }
    }
}

impl Making {
    /// Gives back what was taken for it.
    pub(super) fn withdraw(&self, cx: &mut Context<'_>) {
        match self.what {
            What::Session => cx.forget_spi(self.spi),
            What::Child(_) | What::Rekey(_) => cx.forget_child_spi(self.spi as u32),
        }
    }
}

/// The peer's answer to our request, while the key exchange is finished.
#[derive(Debug)]
pub(super) struct Finishing {
    pub(super) making: Box<Making>,
    /// The peer's nonce.
    pub(super) nonce: Vec<u8>,
    pub(super) what: Asked,
}
