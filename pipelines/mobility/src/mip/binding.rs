//! Where a node is: its bindings, and the numbers that its next request may have.

use super::{
    association::Replay,
    wire::{Encapsulation, Identification},
};
use alloc::vec::Vec;
use core::{
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

/// The end of a tunnel to a node (RFC 5944 §3.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The care-of address.
    pub care_of: Ipv4Addr,
    /// What the home agent puts packets for the node into.
    pub encapsulation: Encapsulation,
    /// The address and port to which the tunnel goes, if it goes in UDP (RFC 3519).
    pub udp: Option<SocketAddrV4>,
    /// Packets from the node come by the tunnel too.
    pub reverse_tunnel: bool,
    /// Broadcasts of the home network are for the node too.
    pub broadcasts: bool,
    /// The care-of address is the node's own.
    pub co_located: bool,
    /// When the binding ends, since 1970; `None` if it does not.
    pub ends: Option<Duration>,
}

impl Binding {
    /// Returns whether the binding is over at this time since 1970.
    pub fn is_over(&self, now: Duration) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
}

/// What is known of a node that has registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bindings {
    /// The tunnels to the node; packets go to all of them. None if it is at home.
    pub tunnels: Vec<Binding>,
    /// The Identification of the last request that was authentic and not an old one.
    pub last: Option<Last>,
}

/// An Identification, and what it consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// A timestamp.
    Timestamp(Identification),
    /// Nonces.
    Nonces(Identification),
}

impl Last {
    /// Returns the Identification of a request that is protected by `replay`.
    pub(super) fn of(replay: Replay, identification: Identification) -> Self {
        match replay {
            Replay::Timestamps(_) => Self::Timestamp(identification),
            Replay::Nonces => Self::Nonces(identification),
        }
    }

    /// Returns the Identification if it is of the same kind: after a change of the configuration it is not.
    pub(super) fn as_by(self, replay: Replay) -> Option<Identification> {
        match (self, replay) {
            (Self::Timestamp(last), Replay::Timestamps(_)) | (Self::Nonces(last), Replay::Nonces) => {
                Some(last)
            }
            _ => None,
        }
    }
}

impl Bindings {
    /// Returns the bindings after `new` was added, in place of all others unless it is `simultaneous`.
    pub(super) fn with(&self, new: Binding, simultaneous: bool) -> Vec<Binding> {
        let stays = |old: &&Binding| simultaneous && old.care_of != new.care_of;
        self.tunnels.iter().filter(stays).copied().chain([new]).collect()
    }

    /// Returns the bindings without that to `care_of`.
    pub(super) fn without(&self, care_of: Ipv4Addr) -> Vec<Binding> {
        self.tunnels.iter().filter(|old| old.care_of != care_of).copied().collect()
    }

    /// Ends the bindings whose time is over. Returns whether there were any.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        let before = self.tunnels.len();
        self.tunnels.retain(|binding| !binding.is_over(now));
        self.tunnels.len() != before
    }
}
