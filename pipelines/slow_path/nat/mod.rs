//! Makes and ends the mappings of NATs.
//!
//! A mapping lives until no packet from inside has used it for a time that depends on its protocol and
//! state. Nothing else ends one, so nobody can take another's mapping away.

mod log;
mod ports;

use super::{network::Network, table_writer::TableWriter};
use crate::{
    config::model,
    control::protocol::{NatUserView, NatView},
    gateway::nat::mapping::Mapping,
};
use log::Lines;
use ports::Ports;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};
use wayfarer_dataplane::{
    drop::DropReason,
    wire::{Address, ip::protocol, translate::End},
};

/// Most mappings that are looked at, and most ports that are freed, in one turn.
const MAX_DUE: usize = 256;

/// The protocols that have ports or identifiers, with their names.
const PROTOCOLS: [(u8, &str); 3] = [(protocol::TCP, "tcp"), (protocol::UDP, "udp"), (protocol::ICMP, "icmp")];

/// All NATs.
#[derive(Debug)]
pub(super) struct Nats {
    nats: Vec<Nat>,
    /// When each mapping is looked at next, in seconds, with its NAT, protocol and port outside.
    due: BinaryHeap<Reverse<(u32, u8, u8, u16)>>,
}

/// One NAT.
#[derive(Debug)]
struct Nat {
    config: model::Nat,
    /// Free ports, in the order of `PROTOCOLS`.
    ports: [Ports; 3],
    users: BTreeMap<Address, User>,
    /// Packets refused because no port was left.
    refused: u64,
    lines: Lines,
}

/// An inner address with mappings.
#[derive(Debug, Default)]
struct User {
    mappings: u32,
    /// Packets refused because it had as many mappings as it may.
    refused: u64,
}

impl Nat {
    fn new(config: &model::Nat) -> Self {
        let ports = [(); 3].map(|()| Ports::new(config.ports.clone()));
        let (config, lines) = (config.clone(), Lines::default());
        Self { config, ports, users: BTreeMap::new(), refused: 0, lines }
    }

    /// Returns the time after which an idle mapping ends.
    fn timeout(&self, mapping: &Mapping) -> Duration {
        match mapping.protocol {
            protocol::TCP if mapping.is_established() => self.config.tcp_timeout,
            protocol => self.shortest(protocol),
        }
    }

    /// Returns the shortest time after which an idle mapping of a protocol may end.
    fn shortest(&self, protocol: u8) -> Duration {
        match protocol {
            protocol::TCP => self.config.tcp_transitory_timeout.min(self.config.tcp_timeout),
            protocol::UDP => self.config.udp_timeout,
            _ => self.config.icmp_timeout,
        }
    }

    fn ports(&mut self, protocol: u8) -> Option<(&mut Ports, &'static str)> {
        let at = PROTOCOLS.iter().position(|(number, _)| *number == protocol)?;
        Some((&mut self.ports[at], PROTOCOLS[at].1))
    }

    /// Takes a port for a new mapping of an inner end.
    ///
    /// # Errors
    /// `NatLimit` or `NatPorts`.
    fn take_port(&mut self, now: Duration, end: &End, random: u64) -> Result<u16, DropReason> {
        let limit = self.config.mappings;
        if let Some(user) = self.users.get_mut(&end.address).filter(|user| user.mappings >= limit) {
            user.refused += 1;
            self.lines.limit(now, end.address.into(), limit);
            return Err(DropReason::NatLimit);
        }
        let (ports, name) = self.ports(end.protocol).ok_or(DropReason::NatProtocol)?;
        let Some(port) = ports.take(end.port, random) else {
            self.refused += 1;
            self.lines.full(now, self.config.address.into(), name);
            return Err(DropReason::NatPorts);
        };
        self.users.entry(end.address).or_default().mappings += 1;
        Ok(port)
    }

    /// Gives back the port of a mapping that has ended.
    fn give_port(&mut self, now: Duration, protocol: u8, port: u16, inside: Address) {
        if let Some((ports, _)) = self.ports(protocol) {
            ports.give(now, port);
        }
        if let Some(user) = self.users.get_mut(&inside) {
            user.mappings = user.mappings.saturating_sub(1);
            if user.mappings == 0 {
                self.users.remove(&inside);
            }
        }
    }

    fn view(&self, network: &Network) -> NatView {
        let [tcp, udp, icmp] = [0, 1, 2].map(|at| self.ports[at].free());
        let user = |(address, user): (&Address, &User)| NatUserView {
            address: address.to_string(),
            mappings: user.mappings,
            refused: user.refused,
        };
        NatView {
            address: self.config.address.to_string(),
            port: network.ports.get(self.config.port).map_or_else(String::new, |port| port.name.clone()),
            ports: format!("{}-{}", self.config.ports.start(), self.config.ports.end()),
            mappings: self.users.values().map(|user| u64::from(user.mappings)).sum(),
            mappings_limit: self.config.mappings,
            free_tcp: tcp,
            free_udp: udp,
            free_icmp: icmp,
            refused: self.refused,
            users: self.users.iter().map(user).collect(),
        }
    }
}

impl Nats {
    pub(super) fn new(nats: &[model::Nat]) -> Self {
        Self { nats: nats.iter().map(Nat::new).collect(), due: BinaryHeap::new() }
    }

    /// Makes a mapping for an inner end, unless there is one.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn map(
        &mut self,
        now: Duration,
        index: u8,
        end: &End,
        tables: &mut TableWriter,
    ) -> Result<(), DropReason> {
        let nat = self.nats.get_mut(usize::from(index)).ok_or(DropReason::NatProtocol)?;
        let TableWriter { tables, writer, reader } = tables;
        if tables.nat.by_inside(index, end, reader).is_some() {
            return Ok(());
        }
        let random = getrandom::u64().map_err(|_| DropReason::NatPorts)?;
        let port = nat.take_port(now, end, random)?;
        let seconds = seconds(now);
        let mapping = Mapping::new(index, end.protocol, (end.address, end.port), port, seconds);
        tables.nat.insert(writer, mapping);
        let at = seconds.saturating_add(whole_seconds(nat.shortest(end.protocol)));
        self.due.push(Reverse((at, index, end.protocol, port)));
        Ok(())
    }

    /// Ends mappings that have been idle for too long. Returns whether there were any.
    pub(super) fn handle_timeout(&mut self, now: Duration, tables: &mut TableWriter) -> bool {
        let TableWriter { tables, writer, reader } = tables;
        let seconds = seconds(now);
        tables.nat.set_now(seconds);
        for ports in self.nats.iter_mut().flat_map(|nat| &mut nat.ports) {
            ports.wake(now, MAX_DUE);
        }
        let mut busy = false;
        for _ in 0..MAX_DUE {
            let Some(&Reverse((at, index, protocol, port))) = self.due.peek() else { break };
            if at > seconds {
                break;
            }
            self.due.pop();
            let nat = &mut self.nats[usize::from(index)];
            let Some(mapping) = tables.nat.by_outside(index, protocol, port, reader) else { continue };
            let end = mapping.last_used().saturating_add(whole_seconds(nat.timeout(mapping)));
            if end > seconds {
                // Its state may change before that, and its timeout with it.
                let next = end.min(seconds.saturating_add(whole_seconds(nat.shortest(protocol))));
                self.due.push(Reverse((next, index, protocol, port)));
                continue;
            }
            let inside = (mapping.inside, mapping.inside_port);
            tables.nat.remove(writer, (index, protocol), port, inside);
            nat.give_port(now, protocol, port, inside.0);
            busy = true;
        }
        busy
    }

    /// Returns the state of all NATs.
    pub(super) fn view(&self, network: &Network) -> Vec<NatView> {
        self.nats.iter().map(|nat| nat.view(network)).collect()
    }
}

fn seconds(now: Duration) -> u32 {
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

/// Returns a time in seconds that is longer than `timeout` from any moment of a second.
fn whole_seconds(timeout: Duration) -> u32 {
    seconds(timeout).saturating_add(1)
}
