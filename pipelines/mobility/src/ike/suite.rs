//! Sets of algorithms that IKE negotiates for its own SAs and for those of ESP.

use crate::crypto::{Encr, Integ, Kex, Prf};
use alloc::vec::Vec;

/// The algorithms of an IKE SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeSuite {
    /// The cipher.
    pub encr: Encr,
    /// The integrity algorithm, if the cipher is not an AEAD.
    pub integ: Option<Integ>,
    /// The pseudo-random function.
    pub prf: Prf,
    /// The first key exchange.
    pub kex: Kex,
    /// Additional key exchanges (RFC 9370), in their order.
    pub more_kex: Vec<Kex>,
}

/// The algorithms of a child SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspSuite {
    /// The cipher.
    pub encr: Encr,
    /// The integrity algorithm, if the cipher is not an AEAD.
    pub integ: Option<Integ>,
    /// Its own key exchanges, for perfect forward secrecy; empty if it was created by IKE_AUTH.
    pub kex: Vec<Kex>,
    /// True with extended sequence numbers.
    pub esn: bool,
}

impl EspSuite {
    /// Returns the length of the keying material for one direction in bytes: cipher, then integrity
    /// (RFC 7296 §2.17).
    pub fn key_len(&self) -> usize {
        self.encr.key_len() + self.integ.map_or(0, Integ::key_len)
    }
}
