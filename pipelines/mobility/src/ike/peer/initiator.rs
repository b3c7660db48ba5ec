//! What is known of a peer that we began to connect to, until it is established.

use super::auth::Transcript;
use crate::{
    aaa::eap::Conversation,
    crypto::{Kex, KexSecret, Secret, SignatureHashes},
    ike::{protection::Plaintext, suite::IkeSuite},
};
use alloc::{boxed::Box, vec::Vec};
use core::time::Duration;

/// What we know of a peer that we began to connect to.
#[derive(Debug)]
pub(in crate::ike) struct Initiator {
    pub(in crate::ike) transcript: Transcript,
    /// The key exchange that we begin with.
    pub(in crate::ike) kex: Kex,
    pub(in crate::ike) secret: Option<Box<dyn KexSecret>>,
    pub(in crate::ike) data: Vec<u8>,
    pub(in crate::ike) cookie: Vec<u8>,
    /// How often the peer sent us back to the start.
    pub(in crate::ike) restarts: u32,
    pub(in crate::ike) tries: u32,
    pub(in crate::ike) resend_at: Option<Duration>,
    pub(in crate::ike) suite: Option<IkeSuite>,
    pub(in crate::ike) hashes: SignatureHashes,
    pub(in crate::ike) kex_done: usize,
    /// The SPI of the first child SA.
    pub(in crate::ike) child_spi: u32,
    pub(in crate::ike) eap: Option<Eap>,
    /// The responder's identity is proved.
    pub(in crate::ike) proved: bool,
    /// Its last IKE_AUTH answer, while its proof is being checked.
    pub(in crate::ike) answer: Option<Plaintext>,
    pub(in crate::ike) ppk: bool,
}

#[derive(Debug)]
pub(in crate::ike) enum Eap {
    /// It is the gateway's turn.
    Talking(Box<dyn Conversation>),
    /// It is the method's turn.
    Thinking,
    /// It is over, with this key.
    Over(Secret),
}

impl Initiator {
    /// The SPI of the first child SA; 0: none yet.
    pub(in crate::ike) fn child_spi(&self) -> u32 {
        self.child_spi
    }
}
