//! Groups of terminals, in lockstep with a gateway.

use super::{BenchError, gateway::Serve, terminal::Terminal, world::World};
use crate::{
    gateway::rings::PUNTS_PER_TURN,
    sim::{addresses, nat::Endpoints, networks::Networks},
};
use std::{
    net::IpAddr,
    ops::Range,
    time::{Duration, Instant},
};
use wayfarer_mobility::{path::Addresses, transmit::Transmit};

/// Terminals that act at once: no more than a worker hands up in a turn before it counts by the
/// networks of senders. All terminals are in few networks, and send no message twice.
pub(super) const GROUP: usize = PUNTS_PER_TURN as usize / 2;
/// How long a group may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Terminals and their networks.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) terminals: Vec<Terminal>,
    networks: Networks,
}

impl Group {
    /// Makes new terminals with these indices.
    pub(super) fn new(world: &World, indices: Range<u32>) -> Self {
        let networks = addresses::networks(indices.clone());
        Self { terminals: indices.map(|index| Terminal::new(world, index)).collect(), networks }
    }

    /// Returns a terminal's current outer address.
    pub(super) fn address_of(&self, terminal: usize) -> IpAddr {
        self.networks.attachment(terminal).address
    }

    /// Begins to connect a terminal.
    pub(super) fn dial(&mut self, now: Duration, terminal: usize) {
        let address = self.address_of(terminal);
        self.terminals[terminal].connect(now, address);
    }

    /// Moves a terminal to its next address. It tells the gateway.
    pub(super) fn move_on(&mut self, now: Duration, terminal: usize) {
        self.networks.apply(&addresses::next_move(&self.networks, terminal));
        let address = self.address_of(terminal);
        self.terminals[terminal].move_to(now, address);
    }

    /// Hands a message from the gateway to the terminal that it reaches, and returns that terminal;
    /// `None` if it goes to an address that no terminal of the group has now.
    pub(super) fn deliver(&mut self, now: Duration, transmit: &Transmit) -> Option<usize> {
        let Addresses { local: from, remote: to } = transmit.addresses;
        let (terminal, _) = self.networks.inward(now, Endpoints { from, to })?;
        self.terminals[terminal].handle(now, transmit);
        Some(terminal)
    }

    /// Connects all terminals.
    pub(super) fn connect(&mut self, gateway: &mut impl Serve) -> Result<(), BenchError> {
        let now = gateway.now();
        (0..self.terminals.len()).for_each(|terminal| self.dial(now, terminal));
        self.run_until(gateway, Terminal::is_connected, "peers do not connect")
    }

    /// Moves all terminals.
    pub(super) fn move_all(&mut self, gateway: &mut impl Serve) -> Result<(), BenchError> {
        let now = gateway.now();
        (0..self.terminals.len()).for_each(|terminal| self.move_on(now, terminal));
        self.run_until(gateway, |terminal| terminal.confirmed > 0, "moves are not answered")
    }

    /// Carries messages until there are none and every terminal `is_done`.
    fn run_until(
        &mut self,
        gateway: &mut impl Serve,
        is_done: impl Fn(&Terminal) -> bool,
        otherwise: &'static str,
    ) -> Result<(), BenchError> {
        let start = Instant::now();
        loop {
            let now = gateway.now();
            let up: Vec<Transmit> = self
                .terminals
                .iter_mut()
                .flat_map(|terminal| terminal.send(now).collect::<Vec<_>>())
                .collect();
            let was_quiet = up.is_empty();
            let down = gateway.serve(&up);
            if was_quiet && down.is_empty() {
                if self.terminals.iter().all(&is_done) {
                    return Ok(());
                }
                if start.elapsed() > PATIENCE {
                    return Err(BenchError::Stuck(otherwise));
                }
                // A helper thread of the gateway is at work.
                std::thread::yield_now();
            }
            for transmit in &down {
                self.deliver(now, transmit);
            }
        }
    }
}

/// Makes new terminals in groups.
pub(super) fn groups(world: &World, terminals: u32) -> impl Iterator<Item = Group> {
    (0..terminals)
        .step_by(GROUP)
        .map(move |first| Group::new(world, first..terminals.min(first + GROUP as u32)))
}
