//! The networks that terminals are attached to: some behind NATs of all kinds, some direct. A move
//! is a new mapping; the old one no longer works.

use crate::sim::{
    fixtures::GATEWAY,
    nat::{Endpoints, Kind, Nat},
};
use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};
use wayfarer_dataplane::wire::esp::NAT_T_PORT;

/// A terminal's address and port as the Internet sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mapping {
    /// Public address.
    pub(super) address: IpAddr,
    /// Public UDP port behind a NAT; `None` if the terminal sends plain ESP.
    pub(super) port: Option<u16>,
}

/// The fate of a packet that the gateway sent to a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The packet reached this terminal.
    To(usize),
    /// The terminal left the mapping at this time.
    Left(Instant),
    /// The mapping never existed.
    Unknown,
}

/// All networks, and the mappings that terminals left.
#[derive(Debug)]
pub(super) struct Nats {
    nats: Vec<Nat>,
    /// Terminals without NAT by address.
    direct: HashMap<IpAddr, usize>,
    /// When each former mapping was left.
    left: HashMap<Mapping, Instant>,
    /// Offset of the last direct address that was given out.
    last_direct: u32,
}

/// Number of networks with a NAT. Each has one public address.
const NETWORKS: u32 = 64;
const FIRST_NAT: u32 = 0xc612_0000;
const FIRST_DIRECT: u32 = 0xc613_0000;
/// The first address behind the NATs.
const FIRST_INSIDE: u32 = 0x0a00_0000;
/// The NATs' time. It stands still: terminals send all the time, so no mapping would expire.
const NOW: Duration = Duration::ZERO;

impl Nats {
    /// Makes NATs of every kind, without terminals.
    pub(super) fn new() -> Self {
        let kinds = Kind::ALL.into_iter().cycle();
        let nats = (0..NETWORKS).zip(kinds).map(|(n, kind)| Nat::new(address(FIRST_NAT + n), kind)).collect();
        Self { nats, direct: HashMap::new(), left: HashMap::new(), last_direct: 0 }
    }

    /// Attaches `count` terminals, and returns the first mapping of each.
    pub(super) fn attach_all(&mut self, now: Instant, count: u32) -> Vec<Mapping> {
        // 29 is coprime to the number of networks and of choices, so terminals spread over all of
        // them.
        (0..count).map(|i| self.attach(now, i as usize, None, i.wrapping_mul(29))).collect()
    }

    /// Moves `terminal` to another network, or only to another port of its NAT, chosen by `pick`.
    /// Returns its new mapping; `old` no longer works.
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
            self.left.insert(old, now);
        }
        let new = match (pick % 4, old.and_then(|old| self.nat_at(old))) {
            // A network without NAT: its own address, plain ESP.
            (0, _) => self.attach_directly(terminal),
            // The NAT forgets the mapping: same address, another port.
            (1, Some(nat)) => self.attach_behind(nat, terminal),
            _ => self.attach_behind((pick / 4 % NETWORKS) as usize, terminal),
        };
        self.left.remove(&new);
        new
    }

    fn attach_directly(&mut self, terminal: usize) -> Mapping {
        loop {
            self.last_direct = (self.last_direct + 1) % (1 << 16);
            let address = address(FIRST_DIRECT + self.last_direct);
            if let Entry::Vacant(free) = self.direct.entry(address) {
                free.insert(terminal);
                return Mapping { address, port: None };
            }
        }
    }

    /// Attaches `terminal` behind this NAT, or behind the next one with a free port.
    fn attach_behind(&mut self, nat: usize, terminal: usize) -> Mapping {
        let ends = Endpoints { from: inside(terminal), to: gateway() };
        let count = self.nats.len();
        let outside = (nat..nat + count).find_map(|nat| self.nats[nat % count].outbound(NOW, ends));
        let Some(Endpoints { from, .. }) = outside else {
            unreachable!("more terminals than ports of all NATs")
        };
        Mapping { address: from.ip(), port: Some(from.port()) }
    }

    /// Delivers a packet from the gateway to `mapping`, and returns its fate.
    pub(super) fn deliver(&mut self, mapping: &Mapping) -> Delivery {
        let terminal = match (mapping.port, self.nat_at(*mapping)) {
            (None, _) => self.direct.get(&mapping.address).copied(),
            (Some(port), Some(nat)) => {
                let ends = Endpoints { from: gateway(), to: SocketAddr::new(mapping.address, port) };
                self.nats[nat].inbound(NOW, ends).and_then(|ends| terminal_at(ends.to))
            }
            (Some(_), None) => None,
        };
        match (terminal, self.left.get(mapping)) {
            (Some(terminal), _) => Delivery::To(terminal),
            (None, Some(&since)) => Delivery::Left(since),
            (None, None) => Delivery::Unknown,
        }
    }

    /// Returns the index of the NAT that a mapping belongs to.
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

/// Returns the internal endpoint of a terminal behind a NAT.
fn inside(terminal: usize) -> SocketAddr {
    SocketAddr::new(address(FIRST_INSIDE + terminal as u32), NAT_T_PORT)
}

/// Returns the terminal with this internal endpoint.
fn terminal_at(inside: SocketAddr) -> Option<usize> {
    let IpAddr::V4(address) = inside.ip() else { return None };
    Some(address.to_bits().checked_sub(FIRST_INSIDE)? as usize)
}
