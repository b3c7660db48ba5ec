//! Bounded rings between a worker and the slow path: frames up (punt), frames down (inject), events
//! up.

use super::input_port::is_from_tunnel;
use crossbeam::queue::ArrayQueue;
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};
use wayfarer_dataplane::{
    packet::BURST,
    pool::{HEADROOM, Returned},
    port::Port,
    ring::FrameRing,
    sa::{Due, OutboundSa, Path, Spi, TunnelId},
    wire::{icmp::Problem, probe::Probe},
};

/// The reason why a worker hands a frame to the slow path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Punt {
    /// An IKE message of an unauthenticated sender (the IP packet).
    Control,
    /// An IKE message with an SPI of a known peer (the IP packet).
    Peer,
    /// ARP or neighbour discovery (the whole frame).
    Neighbour,
    /// A packet whose next hop has no MAC address yet (the IP packet).
    Resolve {
        /// Index of the port that leads to the next hop.
        port: u16,
        /// The next hop's address.
        next: IpAddr,
    },
    /// An ESP packet whose SA is being made (the IP packet).
    Early {
        /// Its SPI.
        spi: Spi,
        /// Where ESP begins.
        esp_at: u16,
    },
    /// A packet from inside of a NAT that has no mapping yet (the IP packet).
    Unmapped {
        /// Index of the NAT.
        nat: u8,
    },
    /// An ICMP error about ESP that was too big for its path (the IP packet).
    PathMtu,
    /// A probe of a tunnel's path by its peer, or the answer to one of ours (without bytes).
    Probe {
        /// The tunnel.
        tunnel: TunnelId,
        /// The probe.
        probe: Probe,
    },
    /// A home agent's security information update (the IP packet).
    Update,
    /// A registration of Mobile IP (the IP packet).
    Registration,
    /// A packet that was dropped, which is to be reported to the sender (the IP packet, or the start of
    /// one that is longer than a frame).
    Problem(Problem),
}

/// The number of kinds of punts. Each kind has its own ring and its own share of a turn, so that a
/// flood of one cannot starve another. Packets that need a mapping or cause an ICMP error are of other
/// kinds if they came out of tunnels than if they came in clear.
pub const PUNT_KINDS: usize = 13;

impl Punt {
    /// Returns the number of the kind, below [`PUNT_KINDS`], for a packet that came by `port`.
    pub(crate) fn kind(self, port: u16) -> usize {
        match self {
            Self::Neighbour => 0,
            Self::Resolve { .. } => 1,
            // Known peers come before unauthenticated senders in each turn.
            Self::Peer => 2,
            Self::Control => 3,
            Self::Problem(_) if is_from_tunnel(port) => 4,
            Self::Problem(_) => 5,
            Self::Early { .. } => 6,
            Self::PathMtu => 7,
            Self::Unmapped { .. } if is_from_tunnel(port) => 8,
            Self::Unmapped { .. } => 9,
            Self::Probe { .. } => 10,
            Self::Update => 11,
            Self::Registration => 12,
        }
    }
}

/// The way in which a worker treats a frame of the slow path.
#[derive(Clone, Debug)]
pub enum Inject {
    /// A whole frame, to be sent by a port.
    Frame {
        /// Index of the port.
        port: u16,
    },
    /// The gateway's own IP packet, to be routed and sent unchanged.
    Route,
    /// An IP packet to be treated by policy, as if it had come from this side.
    Policy,
    /// The gateway's own IP packet, to be sealed by this SA, whatever policy says.
    By(Arc<OutboundSa>),
    /// A packet from inside of a NAT, which policy has let pass and which has a mapping now.
    Mapped {
        /// Index of the port that it came in by, or what stands for it.
        port: u16,
    },
    /// An ESP packet that came before its SA.
    Early {
        /// Where ESP begins.
        esp_at: u16,
    },
    /// An IP packet without next header, to be sealed by this SA as a dummy packet (RFC 4303 §2.6).
    Dummy(Arc<OutboundSa>),
}

/// An event of an SA, for the slow path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An authentic packet, the newest so far, came by another path than the known one.
    NewPath {
        /// The tunnel.
        tunnel: TunnelId,
        /// The new path.
        path: Path,
    },
    /// A limit of an SA was reached.
    Due {
        /// The tunnel.
        tunnel: TunnelId,
        /// `true` if the SA is the inbound one.
        inbound: bool,
        /// The limit.
        due: Due,
    },
}

/// Frames of each kind that a worker may punt in one turn: as many as it may receive from a port, so
/// that the fragments of a long IKE message may come at once (RFC 7383).
pub const PUNTS_PER_TURN: u32 = BURST as u32;
/// Frames that may wait in the ring of each kind of punt.
const PUNTS: [usize; PUNT_KINDS] = [128, 256, 512, 256, 64, 64, 128, 64, 256, 256, 32, 64, 128];
/// Frames that may wait in the ring to the worker.
const INJECTED: usize = 512;
/// Messages longer than a frame that may wait in their own ring.
const LONG_MESSAGES: usize = 16;
/// The longest IP packet, in bytes.
const LONGEST: usize = u16::MAX as usize;

/// The rings of one worker.
#[derive(Debug)]
pub struct Rings {
    punts: [FrameRing<(u16, Punt)>; PUNT_KINDS],
    /// Messages of IKE that arrived in IP fragments and are longer than a frame.
    long: FrameRing<(u16, Punt)>,
    /// To the worker.
    pub inject: FrameRing<Inject>,
    /// From the worker.
    pub events: ArrayQueue<Event>,
    /// By index, the port that the worker is to use in place of its own.
    new_ports: Box<[ArrayQueue<Box<dyn Port>>]>,
    /// Frames that ports held which the slow path has closed.
    returned: ArrayQueue<Returned>,
    /// `true` if there may be new ports or returned frames.
    has_changes: AtomicBool,
    /// By index, `true` if the port's device is down.
    down: Box<[AtomicBool]>,
    /// Ports that the worker no longer uses, each with its index. The slow path closes them, because
    /// that may take long.
    pub old_ports: ArrayQueue<(usize, Box<dyn Port>)>,
}

impl Rings {
    /// Makes empty rings of a worker with `ports` ports, for frames of up to `largest` bytes.
    pub fn new(largest: usize, ports: usize) -> Self {
        Self {
            punts: PUNTS.map(|depth| FrameRing::new(depth, largest)),
            long: FrameRing::new(LONG_MESSAGES, LONGEST),
            inject: FrameRing::new(INJECTED, largest),
            events: ArrayQueue::new(4096),
            new_ports: (0..ports).map(|_| ArrayQueue::new(1)).collect(),
            returned: ArrayQueue::new(ports.max(1)),
            has_changes: AtomicBool::new(false),
            down: (0..ports).map(|_| AtomicBool::new(false)).collect(),
            old_ports: ArrayQueue::new(ports.max(1)),
        }
    }

    /// Returns the memory that the rings of one worker take if they are full, in bytes, for frames of up
    /// to `largest` bytes.
    pub fn memory(largest: usize) -> usize {
        (PUNTS.iter().sum::<usize>() + INJECTED) * largest + LONG_MESSAGES * LONGEST
    }

    /// Has the worker use another port in place of port `index`, from its next turn on.
    pub fn replace_port(&self, index: usize, port: Box<dyn Port>) {
        // One that the worker has not taken yet is closed.
        drop(self.new_ports[index].force_push(port));
        self.has_changes.store(true, Release);
    }

    /// Tells the worker whether the device of port `index` is down.
    pub fn set_down(&self, index: usize, is_down: bool) {
        self.down[index].store(is_down, Relaxed);
    }

    /// Returns whether the device of port `index` is down.
    pub(super) fn is_down(&self, index: usize) -> bool {
        self.down[index].load(Relaxed)
    }

    /// Has the worker take back frames of its pool. Returns `false` if it has too many to take already;
    /// they are lost then.
    pub fn return_frames(&self, frames: Returned) -> bool {
        let is_taken = self.returned.push(frames).is_ok();
        self.has_changes.store(true, Release);
        is_taken
    }

    /// Returns whether the worker must take new ports or returned frames.
    #[inline]
    pub(super) fn has_changes(&self) -> bool {
        self.has_changes.load(Relaxed)
    }

    /// Takes frames of a port that was closed.
    pub(super) fn take_returned(&self) -> Option<Returned> {
        self.returned.pop()
    }

    /// Takes a new port, with its index. Until there is none left, there may be more, also if the worker
    /// fails with one.
    pub(super) fn take_new_port(&self) -> Option<(usize, Box<dyn Port>)> {
        self.has_changes.swap(false, Acquire);
        let ports = self.new_ports.iter().enumerate();
        let taken = ports.filter_map(|(index, port)| Some((index, port.pop()?))).next()?;
        self.has_changes.store(true, Relaxed);
        Some(taken)
    }

    /// Returns the length of the longest IP packet that the worker takes from the slow path, in bytes.
    pub fn longest_injected(&self) -> usize {
        self.inject.largest().saturating_sub(HEADROOM)
    }

    /// Returns the rings of punted frames.
    pub(crate) fn punts(&self) -> impl Iterator<Item = &FrameRing<(u16, Punt)>> {
        self.punts.iter().chain([&self.long])
    }

    /// Returns the ring of frames that came by `port`, are punted by `punt` and have `length` bytes.
    pub(super) fn of(&self, punt: Punt, port: u16, length: usize) -> &FrameRing<(u16, Punt)> {
        if self.is_long(length) { &self.long } else { &self.punts[punt.kind(port)] }
    }

    /// Returns whether a message of `length` bytes is longer than a frame.
    pub(super) fn is_long(&self, length: usize) -> bool {
        length > self.inject.largest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wayfarer_dataplane::port::absent::AbsentPort;

    /// The document for operators names these numbers.
    #[test]
    fn frames_and_rings_of_a_worker_take_as_much_as_documented() {
        let mib = |frame_size| (16_384 * frame_size + Rings::memory(frame_size)) >> 20;
        assert_eq!([2048, 9408].map(mib), [38, 172]);
    }

    #[test]
    fn worker_that_fails_with_one_new_port_is_told_of_the_others() {
        let rings = Rings::new(2048, 3);
        rings.replace_port(0, Box::new(AbsentPort));
        rings.replace_port(2, Box::new(AbsentPort));
        let index = |taken: Option<(usize, Box<dyn Port>)>| taken.map(|(index, _)| index);
        assert_eq!(index(rings.take_new_port()), Some(0));
        // Here the worker panics. It looks again in its next turn.
        assert!(rings.has_changes());
        assert_eq!(index(rings.take_new_port()), Some(2));
        assert_eq!((index(rings.take_new_port()), rings.has_changes()), (None, false));
    }
}
