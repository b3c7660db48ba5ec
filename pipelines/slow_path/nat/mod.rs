//! Makes and ends the mappings of NATs.
//!
//! A mapping lives until no packet from inside has used it for a time that depends on its protocol
//! and state, or until no tunnel has its inner address any more, or another peer's has: the next peer
//! must not get what is sent to the earlier one. Nothing else ends a mapping, so nobody can take
//! another's away. A mapping has no owner beside its address, since policy sends the answers to whoever
//! has that.

mod freed;
mod log;
mod pings;
mod ports;

use super::{network::Network, parts::Holder, table_writer::TableWriter};
use crate::{
    config::model,
    control::protocol::{NatUserView, NatView},
    gateway::nat::mapping::Mapping,
};
use freed::Freed;
use log::Lines;
use pings::Pings;
use ports::Ports;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use wayfarer_dataplane::{
    drop::DropReason,
    port::classifier::Classifier,
    table::Prefix,
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
    /// When each mapping is looked at next.
    due: BTreeSet<Due>,
    freed: Freed,
    pings: Pings,
}

/// When a mapping is looked at next, in seconds, with its NAT, protocol and port outside.
type Due = (u32, u8, u8, u16);

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
    /// By protocol and port outside, when each mapping is looked at next, in seconds.
    mappings: BTreeMap<(u8, u16), u32>,
    /// Whoever had it when a tunnel last brought packets; `None` for hosts in clear, whose mappings do not
    /// end with tunnels.
    holder: Option<Holder>,
    /// Numbers of ports that rest since these holders have left it. They count against the limit of a
    /// holder that comes back, or one peer that comes and goes could have all ports rest.
    resting: BTreeMap<Holder, u32>,
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

    /// Takes a port for a new mapping of an inner end, whose address a `holder` has.
    ///
    /// # Errors
    /// `NatLimit` or `NatPorts`.
    fn take_port(
        &mut self,
        now: Duration,
        end: &End,
        holder: Option<&Holder>,
        random: u64,
    ) -> Result<u16, DropReason> {
        let limit = self.config.mappings;
        let is_at_limit = |user: &&mut User| user.ports_of(holder) >= limit as usize;
        if let Some(user) = self.users.get_mut(&end.address).filter(is_at_limit) {
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
        Ok(port)
    }

    /// Has the mapping of a port outside looked at next `at` a time in seconds.
    fn set_due(&mut self, inside: Address, protocol: u8, port: u16, at: u32) {
        self.users.entry(inside).or_default().mappings.insert((protocol, port), at);
    }

    /// Gives back the port of a mapping that has ended because it was idle, or because its inner address
    /// `is_freed`.
    fn give_port(&mut self, now: Duration, protocol: u8, port: u16, inside: Address, is_freed: bool) {
        let holder = self.users.get(&inside).filter(|_| is_freed).and_then(|user| user.holder.clone());
        if let Some((ports, _)) = self.ports(protocol) {
            ports.give(now, port, holder.clone().map(|holder| (inside, holder)));
        }
        self.change_user(inside, |user| {
            user.mappings.remove(&(protocol, port));
            if let Some(holder) = holder {
                *user.resting.entry(holder).or_default() += 1;
            }
        });
    }

    /// Frees ports of each protocol that have rested, up to a limit.
    fn wake_ports(&mut self, now: Duration) {
        for at in 0..self.ports.len() {
            for _ in 0..MAX_DUE {
                let Some(share) = self.ports[at].wake(now) else { break };
                if let Some((inside, holder)) = share {
                    self.change_user(inside, |user| user.wake_port(&holder));
                }
            }
        }
    }

    /// Changes what is known of an inner address, and forgets it if that is nothing.
    fn change_user(&mut self, inside: Address, change: impl FnOnce(&mut User)) {
        if let Some(user) = self.users.get_mut(&inside) {
            change(user);
            if user.mappings.is_empty() && user.resting.is_empty() {
                self.users.remove(&inside);
            }
        }
    }

    fn view(&self, network: &Network) -> NatView {
        let [tcp, udp, icmp] = [0, 1, 2].map(|at| self.ports[at].free());
        let is_shown = |user: &User| !user.mappings.is_empty() || user.refused > 0;
        let shown = self.users.iter().filter(|(_, user)| is_shown(user));
        let user = |(address, user): (&Address, &User)| NatUserView {
            address: address.to_string(),
            mappings: user.mappings.len() as u32,
            refused: user.refused,
        };
        NatView {
            address: self.config.address.to_string(),
            port: network.ports.get(self.config.port).map_or_else(String::new, |port| port.name.clone()),
            ports: format!("{}-{}", self.config.ports.start(), self.config.ports.end()),
            mappings: self.users.values().map(|user| user.mappings.len() as u64).sum(),
            mappings_limit: self.config.mappings,
            free_tcp: tcp,
            free_udp: udp,
            free_icmp: icmp,
            refused: self.refused,
            users: shown.map(user).collect(),
        }
    }
}

impl User {
    /// Returns the number of ports that count against the limit of a holder of the address.
    fn ports_of(&self, holder: Option<&Holder>) -> usize {
        let resting = holder.and_then(|holder| self.resting.get(holder));
        self.mappings.len() + resting.map_or(0, |ports| *ports as usize)
    }

    /// Notes that a port of an earlier holder has rested.
    fn wake_port(&mut self, holder: &Holder) {
        if let Some(ports) = self.resting.get_mut(holder) {
            *ports -= 1;
            if *ports == 0 {
                self.resting.remove(holder);
            }
        }
    }
}

impl Nats {
    pub(super) fn new(nats: &[model::Nat]) -> Self {
        let nats = nats.iter().map(Nat::new).collect();
        Self { nats, due: BTreeSet::new(), freed: Freed::default(), pings: Pings::default() }
    }

    /// Makes a mapping for an inner end, unless there is one. If its packet comes from a tunnel, a `holder`
    /// has its address.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn map(
        &mut self,
        now: Duration,
        index: u8,
        end: &End,
        holder: Option<Holder>,
        tables: &mut TableWriter,
    ) -> Result<(), DropReason> {
        let nat = self.nats.get_mut(usize::from(index)).ok_or(DropReason::NatProtocol)?;
        if holder.is_some() && self.freed.has(end.address) {
            // Those of the earlier peer still count.
            return Err(DropReason::NatLimit);
        }
        let TableWriter { tables, writer, reader } = tables;
        if tables.nat.by_inside(index, end, reader).is_some() {
            return Ok(());
        }
        let random = getrandom::u64().map_err(|_| DropReason::NatPorts)?;
        let port = nat.take_port(now, end, holder.as_ref(), random)?;
        let seconds = seconds(now);
        let mapping = Mapping::new(index, end.protocol, (end.address, end.port), port, seconds);
        tables.nat.insert(writer, mapping);
        let at = seconds.saturating_add(whole_seconds(nat.shortest(end.protocol)));
        nat.set_due(end.address, end.protocol, port, at);
        if holder.is_some() {
            nat.change_user(end.address, |user| user.holder = holder);
        }
        self.due.insert((at, index, end.protocol, port));
        if end.protocol == protocol::ICMP {
            self.pings.set(nat.config.address, port, true);
        }
        Ok(())
    }

    /// Has a port's device divide replies to pings between NATs and host, or none if it is not shared
    /// with the kernel.
    pub(super) fn share_pings(&mut self, port: usize, classifier: Option<Arc<Classifier>>) {
        self.pings.share(port, classifier);
    }

    /// Ends the mappings of inner addresses within `prefixes`, which have no peer any more, or another.
    /// Those of addresses that a tunnel with a longer prefix has stay. Since there may be many, this may
    /// take some turns, in which nobody makes new ones within `prefixes`.
    pub(super) fn free(&mut self, now: Duration, prefixes: &BTreeSet<Prefix>, tables: &mut TableWriter) {
        prefixes.iter().for_each(|prefix| self.freed.add(*prefix));
        self.end_freed(now, tables);
    }

    /// Ends mappings of addresses that are freed, up to a limit. Returns whether there were any.
    fn end_freed(&mut self, now: Duration, tables: &mut TableWriter) -> bool {
        for steps in 0..MAX_DUE {
            let has_longer = |address: Address| {
                let own = |length| Prefix::new(address.into(), length);
                let mut longer = (self.freed.length() + 1..=32).filter_map(own);
                longer.any(|prefix| tables.tables.has_tunnels(prefix, &tables.reader))
            };
            let Some((index, from, last)) = self.freed.first() else { return steps > 0 };
            let nat = self.nats.get(usize::from(index));
            let user = nat.map(|nat| nat.users.range(from..=last).next());
            match user {
                None => self.freed.remove_first(),
                Some(None) => self.freed.next_nat(),
                Some(Some((&address, user))) => match user.mappings.first_key_value() {
                    Some((&(protocol, port), &at)) if user.holder.is_some() && !has_longer(address) => {
                        self.due.remove(&(at, index, protocol, port));
                        self.end(now, (index, protocol, port), true, tables);
                    }
                    _ => self.freed.pass(address),
                },
            }
        }
        true
    }

    /// Ends the mapping of a NAT's port for a protocol, because it was idle or because its inner address
    /// `is_freed`.
    fn end(
        &mut self,
        now: Duration,
        (index, protocol, port): (u8, u8, u16),
        is_freed: bool,
        tables: &mut TableWriter,
    ) {
        let TableWriter { tables, writer, reader } = tables;
        let Some(mapping) = tables.nat.by_outside(index, protocol, port, reader) else { return };
        let inside = (mapping.inside, mapping.inside_port);
        tables.nat.remove(writer, (index, protocol), port, inside);
        let nat = &mut self.nats[usize::from(index)];
        nat.give_port(now, protocol, port, inside.0, is_freed);
        if protocol == protocol::ICMP {
            self.pings.set(nat.config.address, port, false);
        }
    }

    /// Ends mappings that have been idle for too long, or whose addresses are freed. Returns whether
    /// there were any.
    pub(super) fn handle_timeout(&mut self, now: Duration, tables: &mut TableWriter) -> bool {
        let seconds = seconds(now);
        tables.tables.nat.set_now(seconds);
        self.nats.iter_mut().for_each(|nat| nat.wake_ports(now));
        let mut busy = self.end_freed(now, tables);
        for _ in 0..MAX_DUE {
            let Some(&(at, index, protocol, port)) = self.due.first() else { break };
            if at > seconds {
                break;
            }
            self.due.pop_first();
            let nat = &mut self.nats[usize::from(index)];
            let TableWriter { tables: workers, reader, .. } = &*tables;
            let Some(mapping) = workers.nat.by_outside(index, protocol, port, reader) else { continue };
            let end = mapping.last_used().saturating_add(whole_seconds(nat.timeout(mapping)));
            if end > seconds {
                // Its state may change before that, and its timeout with it.
                let next = end.min(seconds.saturating_add(whole_seconds(nat.shortest(protocol))));
                nat.set_due(mapping.inside, protocol, port, next);
                self.due.insert((next, index, protocol, port));
                continue;
            }
            self.end(now, (index, protocol, port), false, tables);
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
