//! A move of a peer that it has not confirmed.

use crate::path::{Addresses, Nat};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Where a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) struct PeerPath {
    pub(in crate::ike) addresses: Addresses,
    pub(in crate::ike) nat: Nat,
}

/// A move that the peer has not confirmed.
#[derive(Debug)]
pub(in crate::ike) struct MoveCheck {
    /// Where it is said to be.
    pub(in crate::ike) there: PeerPath,
    /// Where it has shown that it was.
    pub(in crate::ike) before: PeerPath,
    /// It said so itself.
    pub(in crate::ike) told: bool,
    /// It was seen elsewhere meanwhile.
    pub(in crate::ike) was_seen: bool,
    /// How often it was asked, and did not answer.
    pub(in crate::ike) asked: u32,
    pub(in crate::ike) stage: Stage,
    /// When the stage is over.
    pub(in crate::ike) until: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) enum Stage {
    /// It is sent to there, and asked whether it is there.
    Followed,
    /// It is asked whether it is there, and sent to where it was.
    Asked,
    /// It is to be asked when the stage is over, and sent to where it was.
    Waiting,
}

/// Whether a peer can be there.
pub(in crate::ike) fn is_reachable(end: SocketAddr) -> bool {
    let address = end.ip();
    end.port() != 0
        && !address.is_unspecified()
        && !address.is_multicast()
        && !address.is_loopback()
        && address != IpAddr::from([255; 4])
}
