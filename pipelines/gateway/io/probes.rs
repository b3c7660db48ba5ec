//! Probes of paths on their way to the slow path.

use super::Io;
use crate::gateway::rings::Punt;
use wayfarer_dataplane::{drop::DropReason, packet::Packet};

impl Io {
    /// Hands a probe to the slow path, and frees its packet, of which nothing else matters. Drops it if that
    /// fails. While many wait, each link has only a share.
    pub fn punt_probe(&mut self, packet: Packet, probe: Punt) {
        let (now, port) = (self.now(), packet.port());
        let has_share = !self.is_crowded(probe, port, 0) || self.refused.admits(now, port, 0);
        let punted = if has_share { self.punt(port, probe, &[]) } else { Err(DropReason::PuntRingFull) };
        match punted {
            Ok(()) => self.free(packet),
            Err(reason) => self.drop(packet, reason),
        }
    }
}
