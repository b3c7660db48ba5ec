//! Disturbances of a fleet of terminals and their gateway, and a model of the state that must
//! follow.

use std::net::{IpAddr, SocketAddr};

/// A terminal's attachment to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
        /// The side that closes it.
        by: By,
    },
}

/// The side that begins something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The terminal.
    Terminal,
    /// The gateway.
    Gateway,
}

/// The state of a terminal's link on one side, at some moment.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// SPIs of the IKE SAs, the initiator's first.
    pub ike_sas: Vec<[u64; 2]>,
    /// SPIs of packets to the terminal.
    pub children: Vec<u32>,
    /// Addresses and ports at which the gateway reaches the terminal.
    pub remotes: Vec<SocketAddr>,
}

/// The state that a terminal must reach.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The terminal's attachment.
    pub at: Attachment,
    /// `true` if the gateway must reach the terminal there.
    pub is_reachable: bool,
    /// What must be gone: keys that were replaced, and ports that a NAT has forgotten.
    pub over: Link,
}

/// The state that must be reached in the end, whatever messages are lost. The model knows nothing
/// of the protocol, so any exchange of messages may lead there.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The state that each terminal must reach.
    terminals: Vec<Expected>,
}

impl Model {
    /// Adds a terminal with the next index.
    pub fn add(&mut self, at: Attachment) {
        self.terminals.push(Expected { at, is_reachable: true, over: Link::default() });
    }

    /// Applies a disturbance. `link` returns the state of a terminal's link on one side before it.
    pub fn apply(&mut self, disturbance: &Disturbance, link: impl Fn(usize, By) -> Link) {
        let ends = |expected: &mut Expected, Link { ike_sas, children, .. }| {
            expected.over.ike_sas.extend(ike_sas);
            expected.over.children.extend(children);
        };
        match *disturbance {
            // A black hole belongs to an attachment, so a terminal that moves leaves it behind.
            Disturbance::Move { terminal, to } => {
                let expected = &mut self.terminals[terminal];
                (expected.at, expected.is_reachable) = (to, true);
            }
            Disturbance::BlackHole { terminal } => self.terminals[terminal].is_reachable = false,
            Disturbance::Repair { terminal } => self.terminals[terminal].is_reachable = true,
            Disturbance::NatRestart { nat } => {
                let all = self.terminals.iter_mut().enumerate();
                for (terminal, expected) in all.filter(|(_, expected)| expected.at.nat == Some(nat)) {
                    expected.over.remotes.extend(link(terminal, By::Gateway).remotes);
                }
            }
            Disturbance::TerminalRestart { terminal } => {
                ends(&mut self.terminals[terminal], link(terminal, By::Terminal));
            }
            Disturbance::GatewayRestart => {
                let all = self.terminals.iter_mut().enumerate();
                all.for_each(|(terminal, expected)| ends(expected, link(terminal, By::Gateway)));
            }
            Disturbance::Close { terminal, by } => {
                ends(&mut self.terminals[terminal], link(terminal, by));
            }
            Disturbance::Rekey { terminal, by_terminal, by_gateway } => {
                for (by, keys) in [(By::Terminal, by_terminal), (By::Gateway, by_gateway)] {
                    let Link { ike_sas, children, .. } = link(terminal, by);
                    let over = &mut self.terminals[terminal].over;
                    match keys {
                        Some(Keys::IkeSa) => over.ike_sas.extend(ike_sas),
                        Some(Keys::Child) => over.children.extend(children),
                        None => {}
                    }
                }
            }
        }
    }

    /// Returns the indices of the terminals that the gateway must reach, and the states that they
    /// must reach.
    pub fn reachable(&self) -> impl Iterator<Item = (usize, &Expected)> {
        self.terminals.iter().enumerate().filter(|(_, expected)| expected.is_reachable)
    }
}
