//! A move that the peer has not confirmed.

use crate::path::{Addresses, Nat};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// A path to a peer, and the NATs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) struct PeerPath {
    pub(in crate::ike) addresses: Addresses,
    pub(in crate::ike) nat: Nat,
}

/// A move that the peer has not confirmed.
#[derive(Debug)]
pub(in crate::ike) struct MoveCheck {
    /// The path that it moved to.
    pub(in crate::ike) new_path: PeerPath,
    /// The path that it last confirmed.
    pub(in crate::ike) confirmed: PeerPath,
    /// True if the peer announced the move; false if a packet showed it.
    pub(in crate::ike) announced: bool,
    /// True if a packet of the peer came from elsewhere meanwhile.
    pub(in crate::ike) seen_elsewhere: bool,
    /// Number of probes that it did not answer.
    pub(in crate::ike) probes: u32,
    pub(in crate::ike) stage: Stage,
    /// When the stage ends.
    pub(in crate::ike) until: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) enum Stage {
    /// Sends use the new path, and a probe checks it.
    Followed,
    /// Sends use the confirmed path, and a probe checks the new one.
    Probing,
    /// Sends use the confirmed path; the probe follows when the stage ends.
    Waiting,
}

/// Returns true if a peer can have this address and port.
pub(in crate::ike) fn is_reachable(end: SocketAddr) -> bool {
    let address = end.ip();
    end.port() != 0
        && !address.is_unspecified()
        && !address.is_multicast()
        && !address.is_loopback()
        && address != IpAddr::from([255; 4])
}
