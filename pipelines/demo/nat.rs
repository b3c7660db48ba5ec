//! Networks that terminals hang on: some behind a NAT of one kind or another, some not. A move is a
//! new mapping; the old one leads nowhere.

use crate::sim::{
    fixtures::GATEWAY,
    nat::{Ends, Kind, Nat},
};
use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};
use wayfarer_dataplane::wire::esp::NAT_T_PORT;

/// What the Internet sees of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mapping {
    /// Public address.
    pub(super) address: IpAddr,
    /// Public UDP port if a NAT is on the way; none if the terminal sends plain ESP.
    pub(super) port: Option<u16>,
}

/// What became of a packet that the gateway sent to a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// It reached this terminal.
    To(usize),
    /// Its terminal has moved away since this moment.
    Left(Instant),
    /// Nobody was ever there.
    Nowhere,
}

/// All networks, and the mappings that are past.
#[derive(Debug)]
pub(super) struct Nats {
    nats: Vec<Nat>,
    direct: HashMap<IpAddr, usize>,
    past: HashMap<Mapping, Instant>,
    issued: u32,
}

/// Networks with a NAT. Each has one public address.
const NETWORKS: u32 = 64;
const FIRST_NAT: u32 = 0xc612_0000;
const FIRST_DIRECT: u32 = 0xc613_0000;
/// The first address behind the NATs.
const FIRST_INSIDE: u32 = 0x0a00_0000;
/// Terminals send all the time, so no mapping expires: to the NATs it is always the same moment.
const NOW: Duration = Duration::ZERO;

impl Nats {
    /// NATs of every kind, and nobody behind them.
    pub(super) fn new() -> Self {
        let kinds = Kind::ALL.into_iter().cycle();
        let nats = (0..NETWORKS).zip(kinds).map(|(n, kind)| Nat::new(address(FIRST_NAT + n), kind)).collect();
        Self { nats, direct: HashMap::new(), past: HashMap::new(), issued: 0 }
    }

    /// The first mapping of each of `count` terminals.
    pub(super) fn attach_all(&mut self, now: Instant, count: u32) -> Vec<Mapping> {
        // Spread over networks with and without NAT by a number prime to both.
        (0..count).map(|i| self.attach(now, i as usize, None, i.wrapping_mul(29))).collect()
    }

    /// Moves `terminal` to another network, chosen by `pick`, or only to another port of its NAT.
    /// Its mapping from then on; `old` leads nowhere any more.
    pub(super) fn attach(
        &mut self,
        now: Instant,
        terminal: usize,
        old: Option<Mapping>,
        pick: u32,
    ) -> Mapping {
        if let Some(old) = old {
            match self.nat_at(old) {
                Some(nat) => self.nats[nat].forget(inside(terminal)),
                None => drop(self.direct.remove(&old.address)),
            }
            self.past.insert(old, now);
        }
        let new = match (pick % 4, old.and_then(|old| self.nat_at(old))) {
            // A network without NAT: an address of its own, plain ESP.
            (0, _) => self.attach_directly(terminal),
            // The NAT forgets: same address, another port.
            (1, Some(nat)) => self.attach_behind(nat, terminal),
            _ => self.attach_behind((pick / 4 % NETWORKS) as usize, terminal),
        };
        self.past.remove(&new);
        new
    }

    fn attach_directly(&mut self, terminal: usize) -> Mapping {
        loop {
            self.issued = (self.issued + 1) % (1 << 16);
            let address = address(FIRST_DIRECT + self.issued);
            if let Entry::Vacant(free) = self.direct.entry(address) {
                free.insert(terminal);
                return Mapping { address, port: None };
            }
        }
    }

    /// Behind this NAT, or behind one of the next if it has no port left.
    fn attach_behind(&mut self, nat: usize, terminal: usize) -> Mapping {
        let ends = Ends { from: inside(terminal), to: gateway() };
        let count = self.nats.len();
        let outside = (nat..nat + count).find_map(|nat| self.nats[nat % count].outbound(NOW, ends));
        let Some(Ends { from, .. }) = outside else { unreachable!("more terminals than ports of all NATs") };
        Mapping { address: from.ip(), port: Some(from.port()) }
    }

    /// Where a packet of the gateway's to `mapping` ends.
    pub(super) fn deliver(&mut self, mapping: &Mapping) -> Delivery {
        let terminal = match (mapping.port, self.nat_at(*mapping)) {
            (None, _) => self.direct.get(&mapping.address).copied(),
            (Some(port), Some(nat)) => {
                let ends = Ends { from: gateway(), to: SocketAddr::new(mapping.address, port) };
                self.nats[nat].inbound(NOW, ends).and_then(|ends| terminal_at(ends.to))
            }
            (Some(_), None) => None,
        };
        match (terminal, self.past.get(mapping)) {
            (Some(terminal), _) => Delivery::To(terminal),
            (None, Some(&since)) => Delivery::Left(since),
            (None, None) => Delivery::Nowhere,
        }
    }

    /// The number of the NAT that a mapping belongs to.
    fn nat_at(&self, mapping: Mapping) -> Option<usize> {
        let IpAddr::V4(address) = mapping.address else { return None };
        let nat = address.to_bits().checked_sub(FIRST_NAT)? as usize;
        (nat < self.nats.len()).then_some(nat)
    }
}

fn address(bits: u32) -> IpAddr {
    Ipv4Addr::from_bits(bits).into()
}

fn gateway() -> SocketAddr {
    SocketAddr::new(GATEWAY, NAT_T_PORT)
}

/// The socket of a terminal behind its NAT.
fn inside(terminal: usize) -> SocketAddr {
    SocketAddr::new(address(FIRST_INSIDE + terminal as u32), NAT_T_PORT)
}

/// Whose socket behind a NAT it is.
fn terminal_at(inside: SocketAddr) -> Option<usize> {
    let IpAddr::V4(address) = inside.ip() else { return None };
    Some(address.to_bits().checked_sub(FIRST_INSIDE)? as usize)
}
