//! A move of a peer that it has not confirmed.

use crate::path::{Addresses, Nat};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Where a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) addresses: Addresses,
    pub(super) nat: Nat,
}

/// A move that the peer has not confirmed.
#[derive(Debug)]
pub(super) struct Moving {
    /// Where it is said to be.
    pub(super) there: Place,
    /// Where it has shown that it was.
    pub(super) before: Place,
    /// It said so itself.
    pub(super) told: bool,
    /// It was seen elsewhere meanwhile.
    pub(super) was_seen: bool,
    /// How often it was asked, and did not answer.
    pub(super) asked: u32,
    pub(super) stage: Stage,
    /// When the stage is over.
    pub(super) until: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is sent to there, and asked whether it is there.
    Followed,
    /// It is asked whether it is there, and sent to where it was.
    Asked,
    /// It is to be asked when the stage is over, and sent to where it was.
    Waiting,
}

/// Whether a peer can be there.
pub(super) fn is_reachable(end: SocketAddr) -> bool {
    let address = end.ip();
    end.port() != 0
        && !address.is_unspecified()
        && !address.is_multicast()
        && !address.is_loopback()
        && address != IpAddr::from([255; 4])
}
