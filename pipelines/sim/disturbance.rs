//! What happens to a fleet of terminals and their gateway, and a model of what must have come of
//! it.

use super::cable::Cable;
use std::net::IpAddr;

/// Where a terminal is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Its own address there.
    pub address: IpAddr,
    /// Number of the NAT that it is behind.
    pub nat: Option<usize>,
}

/// Which keys change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Those of the IKE SA.
    IkeSa,
    /// Those of its child SAs.
    Child,
}

/// One disturbance. The system and [`Model`] are told the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// A terminal is somewhere else from now on.
    Move {
        /// Its number.
        terminal: usize,
        /// Where it is.
        to: Attachment,
    },
    /// A NAT forgets its mappings, and gives all that is behind it other ports.
    NatRestart {
        /// Its number.
        nat: usize,
    },
    /// Nothing comes to or from a terminal.
    BlackHole {
        /// Its number.
        terminal: usize,
    },
    /// The black hole of a terminal ends.
    Repair {
        /// Its number.
        terminal: usize,
    },
    /// A terminal forgets all, and connects.
    TerminalRestart {
        /// Its number.
        terminal: usize,
    },
    /// The gateway forgets all.
    GatewayRestart,
    /// Keys change, begun from both sides at the same time.
    Rekey {
        /// The terminal's number.
        terminal: usize,
        /// What it begins.
        by_terminal: Option<Keys>,
        /// What the gateway begins.
        by_gateway: Option<Keys>,
    },
    /// One side ends the link.
    Close {
        /// The terminal's number.
        terminal: usize,
        /// Whether it is the gateway.
        by_gateway: bool,
    },
    /// The ways between all are others: the loss begins or ends.
    Cable(Cable),
}

/// What the gateway must know in the end, whatever messages it took: it knows of no protocol.
#[derive(Clone, Debug, Default)]
pub struct Model {
    terminals: Vec<(Attachment, bool)>,
}

impl Model {
    /// Adds a terminal, the next number.
    pub fn add(&mut self, at: Attachment) {
        self.terminals.push((at, true));
    }

    /// Follows a disturbance.
    pub fn apply(&mut self, disturbance: &Disturbance) {
        match *disturbance {
            // What is in the way of a terminal is at its place, and stays behind.
            Disturbance::Move { terminal, to } => self.terminals[terminal] = (to, true),
            Disturbance::BlackHole { terminal } => self.terminals[terminal].1 = false,
            Disturbance::Repair { terminal } => self.terminals[terminal].1 = true,
            // All of these change how terminals are reached, or for how long not, but not where
            // they are.
            Disturbance::NatRestart { .. }
            | Disturbance::TerminalRestart { .. }
            | Disturbance::GatewayRestart
            | Disturbance::Rekey { .. }
            | Disturbance::Close { .. }
            | Disturbance::Cable(_) => {}
        }
    }

    /// Returns the terminals that the gateway must reach, with their numbers.
    pub fn reachable(&self) -> impl Iterator<Item = (usize, Attachment)> {
        let all = self.terminals.iter().enumerate();
        all.filter(|(_, (_, is_reachable))| *is_reachable).map(|(terminal, (at, _))| (terminal, *at))
    }
}
