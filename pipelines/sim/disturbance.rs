//! What happens to a fleet of terminals and their gateway, and a model of what must have come of
//! it.

use std::net::{IpAddr, SocketAddr};

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
        /// Which one.
        by: By,
    },
}

/// Who begins something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The terminal.
    Terminal,
    /// The gateway.
    Gateway,
}

/// What one side has of a terminal's link at some moment.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// SPIs of its IKE SA, the initiator's first.
    pub ike_sas: Vec<[u64; 2]>,
    /// SPIs by which the terminal receives.
    pub children: Vec<u32>,
    /// Where the gateway has the terminal.
    pub remotes: Vec<SocketAddr>,
}

/// What must have come of a terminal.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Where it is.
    pub at: Attachment,
    /// Whether the gateway must reach it there.
    pub is_reachable: bool,
    /// What must be over: keys that were changed, and ports that a NAT has forgotten.
    pub over: Link,
}

/// What must hold in the end, whatever messages were lost: it knows of no protocol.
#[derive(Clone, Debug, Default)]
pub struct Model {
    terminals: Vec<Expected>,
}

impl Model {
    /// Adds a terminal, the next number.
    pub fn add(&mut self, at: Attachment) {
        self.terminals.push(Expected { at, is_reachable: true, over: Link::default() });
    }

    /// Follows a disturbance. `link` returns what a side has of a terminal's link before it.
    pub fn apply(&mut self, disturbance: &Disturbance, link: impl Fn(usize, By) -> Link) {
        let ends = |expected: &mut Expected, Link { ike_sas, children, .. }| {
            expected.over.ike_sas.extend(ike_sas);
            expected.over.children.extend(children);
        };
        match *disturbance {
            // What is in the way of a terminal is at its place, and stays behind.
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

    /// Returns what must have come of the terminals that the gateway must reach, with their numbers.
    pub fn reachable(&self) -> impl Iterator<Item = (usize, &Expected)> {
        self.terminals.iter().enumerate().filter(|(_, expected)| expected.is_reachable)
    }
}
