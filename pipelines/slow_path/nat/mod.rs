//! Makes and ends the mappings of NATs.
//!
//! A mapping lives until no packet from inside has used it for a time that depends on its protocol
//! and state, or until policy sends the answers to nobody any more, or to another peer: that must not
//! get what is sent to the earlier one. An inner address that can have no more mappings replaces an old one
//! of its own that it can spare. Nothing else ends a mapping, so nobody can take another's away. Mappings
//! that tunnels' packets made have no owner beside their address, where they end together.

mod log;
mod mappings;
mod pings;
mod ports;
mod unchecked;

#[cfg(all(test, feature = "bench"))]
mod tests;

use super::{
    links::Links,
    network::Network,
    parts::{Holder, HolderName},
    table_writer::TableWriter,
};
use crate::{
    config::model,
    control::protocol::{NatUserView, NatView},
    gateway::nat::mapping::Mapping,
};
use log::Lines;
use mappings::Mappings;
use pings::Pings;
use ports::Ports;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use unchecked::Unchecked;
use wayfarer_dataplane::{
    drop::DropReason,
    port::classifier::Classifier,
    sa::Flow,
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
    unchecked: Unchecked,
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

/// Why a mapping ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending<'a> {
    /// Its inner host has not used it for too long.
    Unused,
    /// Another holder gets the answers now, or nobody.
    Stale,
    /// A new mapping of the same inner address gets its port at once.
    Replaced,
    /// A new mapping of another protocol, for which this principal is charged, takes its room at the limit
    /// of the inner address.
    GivenUp(Option<&'a HolderName>),
}

/// An inner address with mappings.
#[derive(Debug, Default)]
struct User {
    mappings: Mappings,
    /// The answers to the newest of its mappings that a tunnel's packet made, while it has any of these.
    answers: Option<Answers>,
    /// Numbers of ports of a protocol that rest since holders with a principal have left the address, or
    /// have replaced a mapping by one of another protocol; without a principal, hosts in clear have. They
    /// count against the limit for that protocol, or one that comes and goes at one address, under whatever
    /// names, or changes between protocols, could have all ports rest. Peers with one principal at several
    /// addresses are not bound together: that would let one of them take all that the others may have.
    resting: BTreeMap<(u8, Option<HolderName>), u32>,
    /// Packets refused because it had as many mappings as it may.
    refused: u64,
}

/// The answers to an inner address that a tunnel carries.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) flow: Flow,
    /// Whoever gets them.
    pub(super) holder: Holder,
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

    fn ports(&mut self, protocol: u8) -> Option<&mut Ports> {
        let at = PROTOCOLS.iter().position(|(number, _)| *number == protocol)?;
        Some(&mut self.ports[at])
    }

    /// Takes a port for a new mapping of an inner end, for which a `principal` is charged.
    ///
    /// # Errors
    /// `NatLimit` or `NatPorts`.
    fn take_port(
        &mut self,
        end: &End,
        principal: Option<&HolderName>,
        random: u64,
    ) -> Result<u16, DropReason> {
        if self.is_at_limit(end, principal, 0) {
            return Err(DropReason::NatLimit);
        }
        let ports = self.ports(end.protocol).ok_or(DropReason::NatProtocol)?;
        ports.take(end.port, random).ok_or(DropReason::NatPorts)
    }

    /// Returns whether an inner end, for which a `principal` is charged, could get no port even if its
    /// address had this many mappings fewer.
    fn is_at_limit(&self, end: &End, principal: Option<&HolderName>, fewer: usize) -> bool {
        let limit = self.config.mappings as usize + fewer;
        let user = self.users.get(&end.address);
        user.is_some_and(|user| user.ports_of(end.protocol, principal) >= limit)
    }

    /// Counts and logs that there is no new mapping for an inner end.
    fn refuse(&mut self, now: Duration, end: &End, reason: DropReason) {
        if reason == DropReason::NatLimit {
            if let Some(user) = self.users.get_mut(&end.address) {
                user.refused += 1;
            }
            self.lines.limit(now, end.address.into(), self.config.mappings);
        } else if let Some((_, name)) = PROTOCOLS.iter().find(|(number, _)| *number == end.protocol) {
            self.refused += 1;
            self.lines.full(now, self.config.address.into(), name);
        }
    }

    /// Has the mapping of a port outside looked at next `at` a time in seconds.
    fn set_due(&mut self, inside: Address, protocol: u8, port: u16, at: u32) {
        if let Some(user) = self.users.get_mut(&inside) {
            user.mappings.set_due(protocol, port, at);
        }
    }

    /// Forgets a mapping that has ended, and gives its port back unless another mapping has that.
    fn give_port(&mut self, now: Duration, protocol: u8, port: u16, inside: Address, why: Ending<'_>) {
        let answers = self.users.get(&inside).and_then(|user| user.answers.as_ref());
        let principal = match why {
            Ending::Unused | Ending::Replaced => None,
            Ending::Stale => answers.map(|answers| Some(answers.holder.principal.clone())),
            Ending::GivenUp(principal) => Some(principal.cloned()),
        };
        if why != Ending::Replaced
            && let Some(ports) = self.ports(protocol)
        {
            ports.give(now, port, principal.clone().map(|principal| (inside, principal)));
        }
        self.change_user(inside, |user| {
            user.mappings.remove(protocol, port);
            if user.mappings.first_of_tunnels().is_none() {
                user.answers = None;
            }
            if let Some(principal) = principal {
                *user.resting.entry((protocol, principal)).or_default() += 1;
            }
        });
    }

    /// Frees ports of each protocol that have rested, up to a limit.
    fn wake_ports(&mut self, now: Duration) {
        for (at, (protocol, _)) in PROTOCOLS.into_iter().enumerate() {
            for _ in 0..MAX_DUE {
                let Some(share) = self.ports[at].wake(now) else { break };
                if let Some((inside, principal)) = share {
                    self.change_user(inside, |user| user.wake_port(&(protocol, principal)));
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
    /// Returns whether its mappings of tunnels must end: another holder gets the answers now, or nobody.
    fn is_stale(&self, links: &Links) -> bool {
        let is_another = |answers: &Answers| links.holder_of(&answers.flow).as_ref() != Some(&answers.holder);
        self.answers.as_ref().is_some_and(is_another)
    }

    /// Returns the number of ports that count against the limit of a principal at the address for new
    /// mappings of a protocol: of mappings of all protocols, and those that rest of this one.
    fn ports_of(&self, protocol: u8, principal: Option<&HolderName>) -> usize {
        let resting = self.resting.get(&(protocol, principal.cloned()));
        self.mappings.len() + resting.map_or(0, |ports| *ports as usize)
    }

    /// Notes that a port of a protocol, for which a principal is charged, has rested.
    fn wake_port(&mut self, share: &(u8, Option<HolderName>)) {
        if let Some(ports) = self.resting.get_mut(share) {
            *ports -= 1;
            if *ports == 0 {
                self.resting.remove(share);
            }
        }
    }
}

impl Nats {
    pub(super) fn new(nats: &[model::Nat]) -> Self {
        let nats = nats.iter().map(Nat::new).collect();
        Self { nats, due: BTreeSet::new(), unchecked: Unchecked::default(), pings: Pings::default() }
    }

    /// Makes a mapping for an inner end, unless there is one. If its packet comes from a tunnel, a tunnel
    /// carries these `answers` to it.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn map(
        &mut self,
        now: Duration,
        index: u8,
        end: &End,
        answers: Option<Answers>,
        links: &mut Links,
    ) -> Result<(), DropReason> {
        let nat = self.nats.get(usize::from(index)).ok_or(DropReason::NatProtocol)?;
        if nat.users.get(&end.address).is_some_and(|user| user.is_stale(links)) {
            // Those of the earlier peer still count.
            return Err(DropReason::NatLimit);
        }
        let tables = &mut links.tables;
        if tables.tables.nat.by_inside(index, end, &tables.reader).is_some() {
            return Ok(());
        }
        let principal = answers.as_ref().map(|answers| &answers.holder.principal);
        let port = self.take_port(now, index, end, principal, tables)?;
        let seconds = seconds(now);
        let mapping = Mapping::new(index, end.protocol, (end.address, end.port), port, seconds);
        tables.tables.nat.insert(&mut tables.writer, mapping);
        let nat = &mut self.nats[usize::from(index)];
        let at = seconds.saturating_add(whole_seconds(nat.shortest(end.protocol)));
        let user = nat.users.entry(end.address).or_default();
        user.mappings.add(seconds, end.protocol, port, at);
        if answers.is_some() {
            user.mappings.set_of_tunnel(end.protocol, port);
            user.answers = answers;
        }
        self.due.insert((at, index, end.protocol, port));
        if end.protocol == protocol::ICMP {
            self.pings.set(nat.config.address, port, true);
        }
        Ok(())
    }

    /// Takes a port for a new mapping of an inner end, for which a `principal` is charged. If it can have no
    /// more, its address gives up an old mapping that it can spare, if that helps. A port of the same
    /// protocol needs no rest then: what still comes from the earlier remote is for the same host.
    ///
    /// # Errors
    /// `NatLimit` or `NatPorts`.
    fn take_port(
        &mut self,
        now: Duration,
        index: u8,
        end: &End,
        principal: Option<&HolderName>,
        tables: &mut TableWriter,
    ) -> Result<u16, DropReason> {
        let random = getrandom::u64().map_err(|_| DropReason::NatPorts)?;
        let nat = &mut self.nats[usize::from(index)];
        let refusal = match nat.take_port(end, principal, random) {
            Ok(port) => return Ok(port),
            Err(refusal) => refusal,
        };
        // Since the limit is for all protocols together, one of another protocol may help too.
        let protocols = [end.protocol, protocol::TCP, protocol::UDP];
        let has_port = nat.ports(end.protocol).is_some_and(|ports| ports.free() > 0);
        let others_help = has_port && !nat.is_at_limit(end, principal, 1);
        let helpful = if others_help { protocols.len() } else { 1 };
        let seconds = seconds(now);
        let spare = nat.users.get_mut(&end.address).and_then(|user| {
            protocols[..helpful].iter().find_map(|&protocol| {
                let is_spare = |port| {
                    let mapping = tables.tables.nat.by_outside(index, protocol, port, &tables.reader);
                    mapping.is_some_and(|mapping| mapping.is_spare(seconds))
                };
                let (port, due) = user.mappings.find_spare(seconds, protocol, is_spare)?;
                Some((due, protocol, port))
            })
        });
        let Some((due, protocol, port)) = spare else {
            nat.refuse(now, end, refusal);
            return Err(refusal);
        };
        self.due.remove(&(due, index, protocol, port));
        if protocol == end.protocol {
            self.end(now, (index, protocol, port), Ending::Replaced, tables);
            return Ok(port);
        }
        self.end(now, (index, protocol, port), Ending::GivenUp(principal), tables);
        let nat = &mut self.nats[usize::from(index)];
        nat.take_port(end, principal, random).inspect_err(|refusal| nat.refuse(now, end, *refusal))
    }

    /// Has a port's device divide replies to pings between NATs and host, or none if it is not shared
    /// with the kernel.
    pub(super) fn share_pings(&mut self, port: usize, classifier: Option<Arc<Classifier>>) {
        self.pings.share(port, classifier);
    }

    /// Ends tunnels' mappings of inner addresses within `prefixes`, whose tunnels have changed, if other holders
    /// get their answers now, or nobody. Since there may be many, this may take some turns, in which nobody
    /// makes new ones at such addresses.
    pub(super) fn check(&mut self, now: Duration, prefixes: &BTreeSet<Prefix>, links: &mut Links) {
        prefixes.iter().for_each(|prefix| self.unchecked.add(*prefix));
        self.end_stale(now, links);
    }

    /// Ends mappings of unchecked addresses that are stale, up to a limit. Returns whether there was
    /// something to check.
    fn end_stale(&mut self, now: Duration, links: &mut Links) -> bool {
        for steps in 0..MAX_DUE {
            let Some((index, from, last)) = self.unchecked.next_range() else { return steps > 0 };
            let nat = self.nats.get(usize::from(index));
            let user = nat.map(|nat| nat.users.range(from..=last).next());
            match user {
                None => self.unchecked.finish(),
                Some(None) => self.unchecked.next_nat(),
                Some(Some((&address, user))) => match user.mappings.first_of_tunnels() {
                    Some((protocol, port, at)) if user.is_stale(links) => {
                        self.due.remove(&(at, index, protocol, port));
                        self.end(now, (index, protocol, port), Ending::Stale, &mut links.tables);
                    }
                    _ => self.unchecked.pass(address),
                },
            }
        }
        true
    }

    /// Ends the mapping of a NAT's port for a protocol.
    fn end(
        &mut self,
        now: Duration,
        (index, protocol, port): (u8, u8, u16),
        why: Ending<'_>,
        tables: &mut TableWriter,
    ) {
        let TableWriter { tables, writer, reader } = tables;
        let Some(mapping) = tables.nat.by_outside(index, protocol, port, reader) else { return };
        let inside = (mapping.inside, mapping.inside_port);
        tables.nat.remove(writer, (index, protocol), port, inside);
        let nat = &mut self.nats[usize::from(index)];
        nat.give_port(now, protocol, port, inside.0, why);
        if protocol == protocol::ICMP {
            self.pings.set(nat.config.address, port, false);
        }
    }

    /// Ends mappings that have been idle for too long, or are stale. Returns whether there was something
    /// to do.
    pub(super) fn handle_timeout(&mut self, now: Duration, links: &mut Links) -> bool {
        let seconds = seconds(now);
        links.tables.tables.nat.set_now(seconds);
        self.nats.iter_mut().for_each(|nat| nat.wake_ports(now));
        let mut busy = self.end_stale(now, links);
        let tables = &mut links.tables;
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
            self.end(now, (index, protocol, port), Ending::Unused, tables);
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
