//! The end of an endpoint: it tells its peers, and makes no new ones.

use super::{dial::Dials, endpoint::Endpoint, event::PeerId, peer::Phase};
use alloc::vec::Vec;
use core::time::Duration;

impl Endpoint {
    /// Shuts down: ignores first messages, connects to nobody, and closes up to `most` established
    /// peers, each by a DELETE of its IKE SA (RFC 7296 §1.4.1). Returns true once every peer has
    /// answered or was given up. Call it again until then, so that not all messages leave at once.
    pub fn shut_down(&mut self, now: Duration, most: usize) -> bool {
        self.is_shutting_down = true;
        self.dials = Dials::default();
        let established = self.peers.iter().filter(|(_, peer)| peer.is_established());
        let some: Vec<PeerId> = established.map(|(id, _)| *id).take(most).collect();
        for peer in some {
            self.close(now, peer);
        }
        self.peers.values().all(|peer| match peer.phase {
            Phase::Established => false,
            Phase::Ended => !peer.awaits_answer(),
            Phase::Initiator(_) | Phase::Responder(_) => true,
        })
    }
}
