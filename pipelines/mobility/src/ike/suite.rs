//! What IKE negotiates for its own SAs and for those of ESP.

use crate::crypto::{Encr, Integ, Kex, Prf};
use alloc::vec::Vec;

/// What protects an IKE SA, and what its keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeSuite {
    /// Cipher.
    pub encr: Encr,
    /// Integrity where the cipher has none.
    pub integ: Option<Integ>,
    /// Pseudo-random function.
    pub prf: Prf,
    /// First key exchange.
    pub kex: Kex,
    /// Further key exchanges (RFC 9370), in their order.
    pub more_kex: Vec<Kex>,
}

/// What protects a child SA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspSuite {
    /// Cipher.
    pub encr: Encr,
    /// Integrity where the cipher has none.
    pub integ: Option<Integ>,
    /// Key exchanges of its own, for perfect forward secrecy: none where it was made with the IKE
    /// SA.
    pub kex: Vec<Kex>,
    /// Extended sequence numbers.
    pub esn: bool,
}

impl EspSuite {
    /// Bytes of keying material for one direction: cipher, then integrity (RFC 7296 §2.17).
    pub fn key_len(&self) -> usize {
        self.encr.key_len() + self.integ.map_or(0, Integ::key_len)
    }
}
