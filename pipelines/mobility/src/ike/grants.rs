//! Changes that RADIUS servers make to connected peers.

use super::{endpoint::Endpoint, event::PeerId, peer::grant, reason::Reason};
use alloc::vec::Vec;
use core::time::Duration;

impl Endpoint {
    /// Closes a peer because a RADIUS server says so.
    pub fn disconnect(&mut self, now: Duration, peer: PeerId) {
        self.with(now, peer, |peer, cx| peer.close(cx, Reason::Disconnected));
    }

    /// Returns true if a peer's connection has child SAs of all these names.
    pub fn has_filters(&self, peer: PeerId, filters: &[Vec<u8>]) -> bool {
        let connection = self.peers.get(&peer).and_then(|peer| self.connection(peer.connection?));
        connection.is_some_and(|connection| grant::check_filters(connection, filters).is_ok())
    }

    /// Changes what a RADIUS server granted to a connected peer: the seconds from now on until it is
    /// closed, with zero for no end, and the names of the child SAs that it may have.
    pub fn change_grant(
        &mut self,
        now: Duration,
        peer: PeerId,
        session_timeout: Option<u32>,
        filters: Option<Vec<Vec<u8>>>,
    ) {
        self.with(now, peer, |peer, cx| peer.change_grant(cx, session_timeout, filters));
    }
}
