//! A move that the peer has not confirmed (RFC 4555 §3.7).
//!
//! | state | our sends use | if the peer answers the probe | if it does not |
//! |---|---|---|---|
//! | [`Followed`] | the new path | the move is confirmed | [`Waiting`] |
//! | [`Probing`] | the confirmed path | the move is followed and confirmed | [`Waiting`] |
//! | [`Waiting`] | the confirmed path | no probe is outstanding | |
//!
//! A followed move becomes [`Probing`] if too much was sent to the new path, a waiting one when its
//! next probe may be sent. After [`MAX_PROBES`] the move is given up.

use crate::path::{Addresses, Nat};
use alloc::boxed::Box;
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Most probes of one address.
const MAX_PROBES: u32 = 5;

/// A path to a peer, and the NATs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) struct PeerPath {
    pub(in crate::ike) addresses: Addresses,
    pub(in crate::ike) nat: Nat,
    /// True if the peer's ESP came in UDP, false if it came without; `None` if none came, so that
    /// the NATs decide. Some peers keep the encapsulation that they connected with (libreswan).
    pub(in crate::ike) udp: Option<bool>,
}

impl PeerPath {
    /// Returns the path with the encapsulation that the peer's packets showed `before` on the same
    /// addresses, unless this one has its own or the NATs have changed.
    pub(in crate::ike) fn or_encapsulation_of(self, before: Self) -> Self {
        let udp = self.udp.or(before.udp.filter(|_| self.nat == before.nat));
        Self { udp, ..self }
    }
}

/// A move that the peer has not confirmed, in one of the states above.
#[derive(Debug)]
pub(in crate::ike) enum MoveCheck {
    Followed(Followed),
    Probing(Probing),
    Waiting(Waiting),
}

/// The move, in all states.
#[derive(Debug)]
pub(in crate::ike) struct PeerMove {
    /// The path that the peer moved to.
    pub(in crate::ike) new_path: PeerPath,
    /// The path that it last confirmed.
    pub(in crate::ike) confirmed: PeerPath,
    /// True if the peer announced the move; false if a packet showed it.
    pub(in crate::ike) announced: bool,
    /// True if a packet of the peer came from elsewhere meanwhile.
    pub(in crate::ike) seen_elsewhere: bool,
    /// Number of probes that it did not answer.
    probes: u32,
    /// When the state ends: the answer is due, or the next probe may be sent.
    pub(in crate::ike) until: Duration,
}

/// A move that our sends follow, while a probe checks it.
#[derive(Debug)]
pub(in crate::ike) struct Followed(Box<PeerMove>);

/// A move that a probe checks, while our sends use the confirmed path.
#[derive(Debug)]
pub(in crate::ike) struct Probing(Box<PeerMove>);

/// A move whose next probe has to wait, while our sends use the confirmed path.
#[derive(Debug)]
pub(in crate::ike) struct Waiting(Box<PeerMove>);

impl PeerMove {
    /// Returns a move from the confirmed path to the new one.
    pub(in crate::ike) fn new(confirmed: PeerPath, new_path: PeerPath, announced: bool) -> Box<Self> {
        let until = Duration::ZERO;
        Box::new(Self { new_path, confirmed, announced, seen_elsewhere: false, probes: 0, until })
    }

    fn ending_at(mut self: Box<Self>, until: Duration) -> Box<Self> {
        self.until = until;
        self
    }

    /// Follows the move at once; an answer to the probe is due at `until`.
    pub(in crate::ike) fn follow(self: Box<Self>, until: Duration) -> Followed {
        Followed(self.ending_at(until))
    }

    /// Lets the first probe wait until this time.
    pub(in crate::ike) fn wait(self: Box<Self>, until: Duration) -> Waiting {
        Waiting(self.ending_at(until))
    }

    /// Lets the next probe wait, unless this was the last one.
    fn unanswered(mut self: Box<Self>, until: Duration) -> Option<Waiting> {
        self.probes += 1;
        (self.probes < MAX_PROBES).then(|| self.wait(until))
    }
}

impl Followed {
    /// Ends the check: the peer answered.
    pub(in crate::ike) fn confirm(self) -> Box<PeerMove> {
        self.0
    }

    /// Stops following the move. The answer is due as before.
    pub(in crate::ike) fn withdraw(self) -> Probing {
        Probing(self.0)
    }

    /// Stops following the move: the peer did not answer. Returns `None` if it is given up.
    pub(in crate::ike) fn unanswered(self, next_probe_at: Duration) -> Option<Waiting> {
        self.0.unanswered(next_probe_at)
    }
}

impl Probing {
    /// Ends the check: the peer answered, so the move is to be followed.
    pub(in crate::ike) fn confirm(self) -> Box<PeerMove> {
        self.0
    }

    /// Ends the probe: the peer did not answer. Returns `None` if the move is given up.
    pub(in crate::ike) fn unanswered(self, next_probe_at: Duration) -> Option<Waiting> {
        self.0.unanswered(next_probe_at)
    }
}

impl Waiting {
    /// Begins the probe; an answer is due at `until`.
    pub(in crate::ike) fn probe(self, until: Duration) -> Probing {
        Probing(self.0.ending_at(until))
    }
}

impl MoveCheck {
    /// Returns the move.
    pub(in crate::ike) fn peer_move(&self) -> &PeerMove {
        let (Self::Followed(Followed(peer_move))
        | Self::Probing(Probing(peer_move))
        | Self::Waiting(Waiting(peer_move))) = self;
        peer_move
    }

    fn peer_move_mut(&mut self) -> &mut PeerMove {
        let (Self::Followed(Followed(peer_move))
        | Self::Probing(Probing(peer_move))
        | Self::Waiting(Waiting(peer_move))) = self;
        peer_move
    }

    /// Replaces the new path by one to the same address, of which more is known.
    pub(in crate::ike) fn correct(&mut self, path: PeerPath) {
        self.peer_move_mut().new_path = path;
    }

    /// Returns true if our sends use the new path.
    pub(in crate::ike) fn is_followed(&self) -> bool {
        matches!(self, Self::Followed(_))
    }

    /// Returns the path that a probe checks.
    pub(in crate::ike) fn probed(&self) -> Option<PeerPath> {
        (!matches!(self, Self::Waiting(_))).then(|| self.peer_move().new_path)
    }

    /// Goes on after another sign of where the peer is.
    ///
    /// # Errors
    /// Returns the check if the peer has moved on, so that it is over.
    pub(in crate::ike) fn handle_sign(mut self, path: PeerPath, announced: bool) -> Result<Self, Self> {
        let is_probed = self.probed().is_some();
        let peer_move = self.peer_move_mut();
        if peer_move.new_path.addresses == path.addresses {
            peer_move.new_path = path.or_encapsulation_of(peer_move.new_path);
            peer_move.announced |= announced;
            return Ok(self);
        }
        if !announced && peer_move.announced && is_probed {
            // The announced address is being checked. A copy of a packet from elsewhere does not
            // interrupt that.
            peer_move.seen_elsewhere = true;
            return Ok(self);
        }
        Err(self)
    }
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
