//! Security associations as the fast path uses them (RFC 4301 §4.4.2).
//!
//! The key, window, counters and endpoint of an SA are here; its name, its lifetime in seconds and
//! its history are the slow path's. Any worker may serve any SA: what changes per packet is atomic.
//!
//! With a million SAs every packet finds its own out of the cache, so what counts is how many cache
//! lines it touches: two of the SA, one of the endpoint or the window, and those of the key. Sizes
//! are pinned by assertions.

mod inbound;
mod lifetime;
mod outbound;
mod path;
mod selector;

pub use inbound::{InboundParts, InboundSa, Refusals};
pub use lifetime::{Due, Lifetime, Limits};
pub use outbound::{Df, Marking, OutboundParts, OutboundSa};
pub use path::{Encap, Endpoint, Path};
pub use selector::{Flow, PortRange, Rank, Selector};

use crate::{crypto::Suite, wire::esp};
use std::fmt;

/// A security parameters index (RFC 4303 §2.1). 1 to 255 are reserved, 0 is local.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spi(pub u32);

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The slow path's number for a pair of SAs: one tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelId(pub u32);

/// Tunnel or transport mode (RFC 4301 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A whole IP packet inside.
    Tunnel,
    /// The payload of the packet itself.
    Transport,
}

/// What a suite adds to a packet, in bytes: [`Suite`]'s own answers, ready at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overhead {
    iv: u8,
    icv: u8,
    align: u8,
}

impl Overhead {
    fn of(suite: Suite) -> Self {
        Self { iv: suite.iv_len() as u8, icv: suite.icv_len() as u8, align: suite.align() as u8 }
    }

    /// Returns the length in bytes of the IV.
    #[inline]
    pub fn iv(self) -> usize {
        usize::from(self.iv)
    }

    /// Returns the length in bytes of the ICV.
    #[inline]
    pub fn icv(self) -> usize {
        usize::from(self.icv)
    }

    /// Returns what payload, padding and trailer are a multiple of.
    #[inline]
    pub fn align(self) -> usize {
        usize::from(self.align)
    }

    /// Returns the largest payload that fits in an outer packet of `mtu` bytes behind `outer` bytes
    /// of headers; 0 if nothing fits.
    pub fn payload_limit(self, outer: usize, mtu: usize) -> usize {
        let space = mtu.saturating_sub(outer + esp::HEADER + self.iv() + self.icv());
        (space & !(self.align() - 1)).saturating_sub(esp::TRAILER)
    }
}

/// Bytes in front of a value in an `Arc`: SAs are laid out so that with them they fill whole cache
/// lines.
const COUNTS: usize = 16;

fn within_u16(bytes: usize) -> u16 {
    bytes.min(usize::from(u16::MAX)) as u16
}
