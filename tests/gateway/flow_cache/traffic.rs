//! Random traffic of terminals, servers and the host's own stack, most of it plain.
//!
//! Packets that are not plain come later out of a gateway that remembers flows than out of one that does
//! not. So all packets of a flow in one burst are of one kind, and so are the outer packets of a terminal:
//! then both gateways send the packets of each flow in the same order, and all packets through an SA whose
//! packets are counted.

use super::{
    gateway::Spec,
    ports::MACS,
    varied::{TERMINALS, varied},
};
use wayfarer::sim::{random::Random, terminal::Terminal};
use wayfarer_dataplane::{
    port::Mac,
    sa::{Encap, Path},
};

/// Frames of a burst: as many as the slow path takes in one turn, less the fragments that the gateway may
/// make of them.
const BURST: usize = 24;
/// Packets of a burst that the gateway may have to cut.
const CUTS: usize = 3;
/// Lengths of payloads in bytes.
pub(super) const SIZES: [usize; 6] = [16, 64, 200, 500, 1000, 1472];

/// A terminal.
pub(super) struct Peer {
    pub(super) spec: Spec,
    pub(super) terminal: Terminal,
    /// Its last frames, which may be replayed.
    pub(super) recent: Vec<Vec<u8>>,
}

impl Peer {
    fn new(spec: Spec) -> Self {
        Self { terminal: spec.terminal(), spec, recent: vec![] }
    }

    /// Sends by `path` from now on.
    pub(super) fn send_by(&mut self, path: Path) {
        let terminal = &mut self.terminal;
        (terminal.address, terminal.gateway) = (path.remote, path.local);
        (terminal.port, terminal.gateway_port) = match path.encap {
            Encap::None => (None, 4500),
            Encap::Udp { local, remote } => (Some(remote), local),
        };
        // Packets by two paths in one burst would be seen in another order.
        self.recent.clear();
    }
}

/// All terminals, servers, and the host.
pub(super) struct Traffic {
    pub(super) random: Random,
    pub(super) peers: Vec<Peer>,
    /// The gateway's MAC addresses, by port.
    pub(super) macs: [Mac; 3],
    /// The number of packets made so far.
    pub(super) serial: u32,
    /// Packets of this burst that the gateway may still have to cut.
    cuts: usize,
}

impl Traffic {
    pub(super) fn new(seed: u64) -> Self {
        let peers = (0..TERMINALS).map(|n| Peer::new(varied(n))).collect();
        Self { random: Random(seed), peers, macs: MACS, serial: 0, cuts: 0 }
    }

    /// Gives a terminal new SAs.
    pub(super) fn rekey(&mut self, spec: Spec) {
        let n = spec.n as usize;
        self.peers[n] = Peer::new(spec);
    }

    /// Makes a burst of frames, each with its input port. If it `is_strict`, each SA that seals has
    /// packets of one flow only.
    pub(super) fn burst(&mut self, is_strict: bool) -> Vec<(usize, Vec<u8>)> {
        self.cuts = CUTS;
        let mut frames = vec![];
        let inbound = [0, BURST, BURST / 2][self.random.index(3)];
        self.send_from_terminals(inbound, is_strict, &mut frames);
        self.send_to_terminals(BURST, is_strict, &mut frames);
        frames
    }

    /// Returns a payload of `SIZES[size]` bytes that no other packet has.
    pub(super) fn payload(&mut self, size: usize) -> Vec<u8> {
        self.serial = self.serial.wrapping_add(1);
        let mut payload = vec![self.serial as u8; SIZES[size]];
        payload[..4].copy_from_slice(&self.serial.to_be_bytes());
        payload
    }

    /// Returns whether the gateway may be given another packet that it may have to cut, if one with a payload
    /// of `SIZES[size]` bytes is long enough for that.
    pub(super) fn may_cut(&mut self, size: usize) -> bool {
        let is_short = is_short(size);
        let may = is_short || self.cuts > 0;
        self.cuts -= usize::from(may && !is_short);
        may
    }
}

/// Returns whether no packet with a payload of `SIZES[size]` bytes has to be cut.
pub(super) fn is_short(size: usize) -> bool {
    SIZES[size] < 500
}
