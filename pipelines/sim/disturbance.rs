//! Disturbances of a fleet of terminals and their gateway, and a model of the state that must
//! follow.

use super::cable::Cable;
use std::net::IpAddr;

/// A terminal's attachment to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The terminal's own address there.
    pub address: IpAddr,
    /// Index of the NAT in front of the terminal, if there is one.
    pub nat: Option<usize>,
}

/// The keys that a rekey replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// The IKE SA's keys.
    IkeSa,
    /// The child SAs' keys.
    Child,
}

/// One disturbance. It is applied to the system and to the [`Model`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// A terminal moves.
    Move {
        /// The terminal's index.
        terminal: usize,
        /// The new attachment.
        to: Attachment,
    },
    /// A NAT forgets its mappings, and gives all hosts behind it other ports.
    NatRestart {
        /// The NAT's index.
        nat: usize,
    },
    /// All packets to and from a terminal are lost.
    BlackHole {
        /// The terminal's index.
        terminal: usize,
    },
    /// A terminal's black hole ends.
    Repair {
        /// The terminal's index.
        terminal: usize,
    },
    /// A terminal forgets its state, and connects anew.
    TerminalRestart {
        /// The terminal's index.
        terminal: usize,
    },
    /// The gateway forgets its state.
    GatewayRestart,
    /// One side rekeys, or both do so at the same time.
    Rekey {
        /// The terminal's index.
        terminal: usize,
        /// The keys that the terminal replaces.
        by_terminal: Option<Keys>,
        /// The keys that the gateway replaces.
        by_gateway: Option<Keys>,
    },
    /// One side closes the link.
    Close {
        /// The terminal's index.
        terminal: usize,
        /// `true` if the gateway closes it.
        by_gateway: bool,
    },
    /// All ways change their properties, so that loss begins or ends.
    Cable(Cable),
}

/// The state that the gateway must reach in the end. The model knows nothing of the protocol, so
/// any exchange of messages may lead there.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Each terminal's attachment, and whether it is reachable there.
    terminals: Vec<(Attachment, bool)>,
}

impl Model {
    /// Adds a terminal with the next index.
    pub fn add(&mut self, at: Attachment) {
        self.terminals.push((at, true));
    }

    /// Applies a disturbance.
    pub fn apply(&mut self, disturbance: &Disturbance) {
        match *disturbance {
            // A black hole belongs to an attachment, so a terminal that moves leaves it behind.
            Disturbance::Move { terminal, to } => self.terminals[terminal] = (to, true),
            Disturbance::BlackHole { terminal } => self.terminals[terminal].1 = false,
            Disturbance::Repair { terminal } => self.terminals[terminal].1 = true,
            // These change how or when terminals are reached, but not their attachments.
            Disturbance::NatRestart { .. }
            | Disturbance::TerminalRestart { .. }
            | Disturbance::GatewayRestart
            | Disturbance::Rekey { .. }
            | Disturbance::Close { .. }
            | Disturbance::Cable(_) => {}
        }
    }

    /// Returns the indices and attachments of the terminals that the gateway must reach.
    pub fn reachable(&self) -> impl Iterator<Item = (usize, Attachment)> {
        let all = self.terminals.iter().enumerate();
        all.filter(|(_, (_, is_reachable))| *is_reachable).map(|(terminal, (at, _))| (terminal, *at))
    }
}
