//! What is known of a peer that we began to connect to, until it is established.

use super::auth::Transcript;
use crate::{
    aaa::eap::Conversation,
    crypto::{Kex, KexSecret, Secret, SignatureHashes},
    ike::{protection::Opened, suite::IkeSuite},
};
use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

/// What we know of a peer that we began to connect to.
#[derive(Debug)]
pub(in crate::ike) struct Initiating {
    pub(super) transcript: Transcript,
    /// The key exchange that we begin with.
    pub(super) kex: Kex,
    pub(super) secret: Option<Box<dyn KexSecret>>,
    pub(super) data: Vec<u8>,
    pub(super) cookie: Vec<u8>,
    /// How often the peer sent us back to the start.
    pub(super) restarts: u32,
    pub(super) tries: u32,
    pub(super) resend_at: Option<Duration>,
    pub(super) suite: Option<IkeSuite>,
    pub(super) hashes: SignatureHashes,
    pub(super) kex_done: usize,
    /// The SPI of the first child SA.
    pub(super) child_spi: u32,
    pub(super) eap: Option<Eap>,
    /// The responder's identity is proved.
    pub(super) proved: bool,
    /// Its last IKE_AUTH answer, while its proof is being checked.
    pub(super) answer: Option<Opened>,
    pub(super) ppk: bool,
}

#[derive(Debug)]
pub(super) enum Eap {
    /// It is the gateway's turn.
    Talking(Box<dyn Conversation>),
    /// It is the method's turn.
    Thinking,
    /// It is over, with this key.
    Over(Secret),
}

impl Initiating {
    /// The SPI of the first child SA; 0: none yet.
    pub(super) fn child_spi(&self) -> u32 {
        self.child_spi
    }
}
