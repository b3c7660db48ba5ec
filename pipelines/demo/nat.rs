//! Networks that terminals hang on: some behind a NAT, some not. A move is a new mapping; the old one leads nowhere.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

/// What the Internet sees of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mapping {
    /// Public address.
    pub(super) address: IpAddr,
    /// Public UDP port where a NAT is on the way; none where the terminal sends plain ESP.
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

/// All mappings, current and past.
#[derive(Debug, Default)]
pub(super) struct Nats {
    current: HashMap<Mapping, usize>,
    past: HashMap<Mapping, Instant>,
    ports: BTreeMap<IpAddr, u16>,
    issued: u32,
}

/// Networks to choose from. Each has one public address, behind which a NAT gives out ports.
const NETWORKS: u32 = 64;
/// Ports that NATs give out.
const FIRST_PORT: u16 = 1024;

impl Nats {
    /// The first mapping of each of `count` terminals.
    pub(super) fn attach_all(&mut self, now: Instant, count: u32) -> Vec<Mapping> {
        // Spread over networks with and without NAT by a number prime to both.
        (0..count).map(|i| self.attach(now, i as usize, None, i.wrapping_mul(29))).collect()
    }

    /// Moves `terminal` to another network, chosen by `pick`, or only to another port of its NAT. Its mapping from then
    /// on; `old` leads nowhere any more.
    pub(super) fn attach(
        &mut self,
        now: Instant,
        terminal: usize,
        old: Option<Mapping>,
        pick: u32,
    ) -> Mapping {
        if let Some(old) = old {
            self.current.remove(&old);
            self.past.insert(old, now);
        }
        let new = match (pick % 4, old) {
            // A network without NAT: an address of its own, plain ESP.
            (0, _) => self.direct(),
            // The NAT forgets: same address, another port.
            (1, Some(Mapping { address, port: Some(_) })) => self.mapped(address),
            _ => self.mapped(Ipv4Addr::from_bits(0xc612_0000 + pick / 4 % NETWORKS).into()),
        };
        self.current.insert(new, terminal);
        self.past.remove(&new);
        new
    }

    fn direct(&mut self) -> Mapping {
        loop {
            self.issued = (self.issued + 1) % (1 << 16);
            let address = Ipv4Addr::from_bits(0xc613_0000 + self.issued).into();
            let mapping = Mapping { address, port: None };
            if !self.current.contains_key(&mapping) {
                return mapping;
            }
        }
    }

    /// A free port of the NAT at `address`; where it has none, one of the next NAT.
    fn mapped(&mut self, mut address: IpAddr) -> Mapping {
        for tries in 0u32.. {
            let last = self.ports.entry(address).or_insert(FIRST_PORT);
            *last = last.checked_add(1).unwrap_or(FIRST_PORT);
            let mapping = Mapping { address, port: Some(*last) };
            if !self.current.contains_key(&mapping) {
                return mapping;
            }
            if tries % (1 << 16) == (1 << 16) - 1 {
                address = Ipv4Addr::from_bits(0xc612_0000 + tries / (1 << 16) % NETWORKS).into();
            }
        }
        unreachable!("more terminals than ports of all NATs")
    }

    /// Where a packet to `mapping` ends.
    pub(super) fn deliver(&self, mapping: &Mapping) -> Delivery {
        match (self.current.get(mapping), self.past.get(mapping)) {
            (Some(&terminal), _) => Delivery::To(terminal),
            (None, Some(&since)) => Delivery::Left(since),
            (None, None) => Delivery::Nowhere,
        }
    }
}
