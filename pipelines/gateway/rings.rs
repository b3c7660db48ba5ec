//! Between a worker and the slow path: frames up (punt), frames down (inject), events up. All
//! bounded.

use crossbeam::queue::ArrayQueue;
use std::net::IpAddr;
use wayfarer_dataplane::{
    ring::FrameRing,
    sa::{Due, Path, TunnelId},
    wire::icmp::Problem,
};

/// Why a worker hands a frame to the slow path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Punt {
    /// A key exchange message of an unauthenticated sender (the IP packet).
    Control,
    /// A key exchange message with an SPI of a known peer (the IP packet).
    Peer,
    /// ARP or neighbour discovery (the whole frame).
    Neighbour,
    /// A packet whose next hop has no MAC address yet (the IP packet).
    Resolve {
        /// Index of the port to ask on.
        port: u16,
        /// Who is to be asked for.
        next: IpAddr,
    },
    /// A packet that was dropped and whose sender should hear why (the IP packet).
    Problem(Problem),
}

/// Kinds of punts: each has its own ring and its own share of a turn, so that a flood of one cannot
/// starve another.
pub const PUNT_KINDS: usize = 5;

impl Punt {
    /// Returns the number of the kind, below [`PUNT_KINDS`].
    pub(crate) fn kind(self) -> usize {
        match self {
            Self::Neighbour => 0,
            Self::Resolve { .. } => 1,
            // Before unauthenticated senders, in each turn.
            Self::Peer => 2,
            Self::Control => 3,
            Self::Problem(_) => 4,
        }
    }
}

/// What the slow path wants done with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inject {
    /// A whole frame, out by this port.
    Frame {
        /// Index of the port.
        port: u16,
    },
    /// An IP packet of the gateway's own, to be routed and sent as it is.
    Route,
    /// An IP packet to be treated as if it had come in on this side: policy decides.
    Policy,
}

/// News of an SA for the slow path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An authentic packet, the newest so far, came by a path that is not the known one.
    NewPath {
        /// Whose.
        tunnel: TunnelId,
        /// The new path.
        path: Path,
    },
    /// A limit of an SA was reached.
    Due {
        /// Whose.
        tunnel: TunnelId,
        /// Whether it is the inbound SA.
        inbound: bool,
        /// Which limit.
        due: Due,
    },
}

/// Frames of each kind that a worker may punt in one turn.
pub const PUNTS_PER_TURN: u32 = 32;

/// The rings of one worker.
#[derive(Debug)]
pub struct Rings {
    punts: [FrameRing<(u16, Punt)>; PUNT_KINDS],
    /// To the worker.
    pub inject: FrameRing<Inject>,
    /// From the worker.
    pub events: ArrayQueue<Event>,
}

impl Rings {
    /// Makes empty rings for frames of up to `largest` bytes.
    pub fn new(largest: usize) -> Self {
        Self {
            punts: [128, 256, 512, 256, 64].map(|depth| FrameRing::new(depth, largest)),
            inject: FrameRing::new(512, largest),
            events: ArrayQueue::new(4096),
        }
    }

    /// Returns the rings of punted frames, one for each kind, by [`Punt::kind`].
    pub(crate) fn punts(&self) -> &[FrameRing<(u16, Punt)>; PUNT_KINDS] {
        &self.punts
    }
}
