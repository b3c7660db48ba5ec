//! The home agent's tunnels: packets to home addresses go to their terminals' care-of addresses, and what comes
//! from there goes on (RFC 5944 §4, RFC 3024).
//!
//! ```text
//! host ─► classify ─► wrap ─► policy, perhaps through an SA ─► terminal
//! terminal ─► an SA, or in clear ─► unwrap ─► policy ─► host
//! ```

use super::{
    admission::permits,
    binding::{CareOf, HomeAgent},
    decapsulate::decapsulated_class,
    departure::{Departure, Departures, Origin},
    io::Io,
    outbound,
    policy::{Action, Decision, Rule},
    tables::{Hop, Tables},
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::{Flow, TunnelId},
    table::Reader,
    wire::{
        Address,
        encapsulation::{Encapsulation, Ends},
        icmp::Problem,
        ip::{self, IpHeader},
    },
};

impl Tables {
    /// Returns where the terminal with the home address `dst` is; `None` if it is at home, or no home address.
    #[inline(always)]
    pub fn care_of<'r>(&'r self, dst: Address, reader: &'r Reader) -> Option<&'r CareOf> {
        match &self.settings.home_agent {
            Some(agent) if agent.network.contains(dst) => self.care_of.get(&dst, reader),
            _ => None,
        }
    }

    /// Returns whether `dst` is the home address of a terminal that is neither registered elsewhere nor at home, since
    /// no route leads there. The route for everything else would take its packets to anybody.
    pub fn is_nowhere(&self, dst: Address, reader: &Reader) -> bool {
        let is_lost = |agent: &HomeAgent| !agent.has_home && agent.network.contains(dst);
        self.settings.home_agent.as_ref().is_some_and(is_lost) && self.care_of.get(&dst, reader).is_none()
    }

    /// Returns whether a packet in clear with the source `src` should have come by a terminal's tunnel (RFC 3024 §4.3).
    #[inline(always)]
    pub fn should_be_tunnelled(&self, src: Address, reader: &Reader) -> bool {
        self.care_of(src, reader).is_some_and(|to| to.reverse)
    }

    /// Returns whether `address` is one that the home agent may send elsewhere.
    #[inline(always)]
    pub fn may_be_away(&self, address: Address) -> bool {
        self.settings.home_agent.as_ref().is_some_and(|agent| agent.network.contains(address))
    }

    /// Returns the home agent's encapsulation if a packet with this header comes by a tunnel to it.
    #[inline(always)]
    pub fn tunnelled_home(&self, header: &IpHeader) -> Option<Encapsulation> {
        let agent = self.settings.home_agent.as_ref()?;
        let encapsulation = Encapsulation::of_protocol(header.protocol)?;
        (header.dst == Address::from(agent.address)).then_some(encapsulation)
    }
}

/// Wraps a packet to a home address for its terminal, and reads its new header. A packet that cannot go on is
/// dropped.
#[inline(never)]
pub(super) fn wrap(
    mut packet: Packet,
    header: &mut IpHeader,
    origin: Origin,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) -> Option<Packet> {
    match may_go(&packet, header, origin, tables, reader) {
        Ok(()) => {}
        Err(DropReason::HopLimit) => {
            io.refuse(packet, Problem::TimeExceeded, DropReason::HopLimit);
            return None;
        }
        Err(reason) => {
            io.drop(packet, reason);
            return None;
        }
    }
    match put_in(&mut packet, header, origin, tables, reader, io) {
        Ok(()) => Some(packet),
        Err(reason) => {
            io.drop(packet, reason);
            None
        }
    }
}

/// Checks that a packet may go through a tunnel to a terminal, as for one that goes through an SA.
fn may_go(
    packet: &Packet,
    header: &IpHeader,
    origin: Origin,
    tables: &Tables,
    reader: &Reader,
) -> Result<(), DropReason> {
    if !header.is_forwardable() {
        return Err(DropReason::Martian);
    }
    let flow = Flow::of(header, packet.data());
    match tables.decide(&flow, reader) {
        // A tunnel's selector has let it in.
        Decision::None if origin == Origin::Tunnel => {}
        decision => passes(decision)?,
    }
    let is_bare = || tables.should_be_tunnelled(header.src, reader);
    if origin == Origin::Wire && (is_bare() || tables.is_unprotected(&flow, None, reader)) {
        return Err(DropReason::Unprotected);
    }
    if origin == Origin::Wire && !tables.leads_to(header.src, packet.port(), reader) {
        return Err(DropReason::SourcePort);
    }
    if origin != Origin::Host && header.hop_limit <= 1 { Err(DropReason::HopLimit) } else { Ok(()) }
}

/// Checks that policy lets a packet between a host and a home address pass, as if the terminal were at home.
fn passes(decision: Decision<'_>) -> Result<(), DropReason> {
    match decision {
        Decision::Rule(Rule { action: Action::Bypass, .. }) => Ok(()),
        Decision::Rule(Rule { action: Action::Discard | Action::Guard, .. }) => Err(DropReason::Discard),
        // Another tunnel should carry it.
        Decision::Rule(_) => Err(DropReason::Unprotected),
        Decision::Hidden(_) => Err(DropReason::FragmentPorts),
        Decision::None => Err(DropReason::NoPolicy),
    }
}

fn put_in(
    packet: &mut Packet,
    header: &mut IpHeader,
    origin: Origin,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) -> Result<(), DropReason> {
    let agent = tables.settings.home_agent.as_ref().ok_or(DropReason::NoBinding)?;
    let to = *tables.care_of(header.dst, reader).ok_or(DropReason::NoBinding)?;
    // What minimal encapsulation cannot carry goes as IP in IP, which every node reads (RFC 5944 §5.3).
    let overhead = |one: Encapsulation| Some((one, one.overhead(header, agent.address)?));
    let (encapsulation, overhead) =
        overhead(to.encapsulation).or_else(|| overhead(Encapsulation::IpInIp)).ok_or(DropReason::TooBig)?;
    // A minimal header leaves the packet its hop limit, which counts us when the packet leaves.
    if origin != Origin::Host && encapsulation != Encapsulation::Minimal {
        ip::decrement_hop_limit(packet.data_mut());
    }
    packet.push_front(overhead).ok_or(DropReason::NoHeadroom)?;
    let ends = Ends { src: agent.address, dst: to.address };
    encapsulation.wrap(packet.data_mut(), header, ends, io.next_identification());
    header.read(packet.data()).map_err(|_| DropReason::InnerMalformed)
}

/// Passes on a packet that came by a terminal's tunnel: out of the SA of `by`, or in clear.
#[inline(never)]
pub(super) fn unwrap(
    mut packet: Packet,
    outer: &IpHeader,
    encapsulation: Encapsulation,
    by: Option<TunnelId>,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    let mut header = IpHeader::default();
    match take_out(&mut packet, outer, &mut header, encapsulation, by, tables, reader) {
        Ok(()) => go_on(packet, &header, tables, reader, io),
        Err(reason) => io.drop(packet, reason),
    }
}

/// Takes the packet out of a tunnel, and checks that it is from the terminal at the tunnel's other end (RFC 3024
/// §4.3).
fn take_out(
    packet: &mut Packet,
    outer: &IpHeader,
    inner: &mut IpHeader,
    encapsulation: Encapsulation,
    by: Option<TunnelId>,
    tables: &Tables,
    reader: &Reader,
) -> Result<(), DropReason> {
    let range = encapsulation.unwrap(packet.data_mut(), outer).map_err(|_| DropReason::InnerMalformed)?;
    packet.pull_front(range.start).ok_or(DropReason::InnerMalformed)?;
    packet.set_len(range.len()).ok_or(DropReason::InnerMalformed)?;
    inner.read(packet.data()).map_err(|_| DropReason::InnerMalformed)?;
    packet.set_len(inner.total_len()).ok_or(DropReason::InnerMalformed)?;
    let to = tables.care_of(inner.src, reader).filter(|to| to.reverse).ok_or(DropReason::NoBinding)?;
    let is_there = Address::from(to.address) == outer.src;
    let is_from = match (to.link, by) {
        // Whose SA it is says who sends. The terminal may have moved just now, before it is registered there.
        (Some(link), by) => by == Some(link),
        (None, Some(by)) => is_there && carrier(to, outer, tables, reader) == Some(by),
        (None, None) => is_there,
    };
    if !is_from {
        return Err(DropReason::NoBinding);
    }
    // A minimal header has no traffic class of its own.
    if encapsulation != Encapsulation::Minimal {
        let class = decapsulated_class(outer.traffic_class, inner.traffic_class)?;
        ip::set_traffic_class(packet.data_mut(), class);
        inner.traffic_class = class;
    }
    Ok(())
}

/// Returns the tunnel that carries packets back to where a terminal is registered.
fn carrier(to: &CareOf, outer: &IpHeader, tables: &Tables, reader: &Reader) -> Option<TunnelId> {
    let back = Flow {
        src: outer.dst,
        dst: to.address.into(),
        protocol: outer.protocol,
        ports: None,
        is_later_fragment: false,
    };
    tables.decide(&back, reader).rule()?.tunnel()
}

/// Forwards a packet from a terminal by policy and route.
fn go_on(packet: Packet, header: &IpHeader, tables: &Tables, reader: &Reader, io: &mut Io) {
    if !header.is_forwardable() {
        return io.drop(packet, DropReason::Martian);
    }
    let hop = tables.routes.find(header.dst, reader).copied();
    let flow = Flow::of(header, packet.data());
    let decision = tables.decide(&flow, reader);
    // A policy that discards what goes to the terminal discards what comes from it.
    let back =
        if tables.settings.discards { permits(tables.decide(&flow.reversed(), reader)) } else { Ok(()) };
    if let Err(reason) = back {
        return io.drop(packet, reason);
    }
    if tables.is_nowhere(header.dst, reader) {
        return io.drop(packet, DropReason::NoBinding);
    }
    if tables.care_of(header.dst, reader).is_some() || matches!(hop, Some(Hop::Local | Hop::Host)) {
        return match passes(decision) {
            Ok(()) if hop == Some(Hop::Local) || hop == Some(Hop::Host) => {
                io.route_by(hop, packet, header.dst, tables);
            }
            Ok(()) => wrap_alone(packet, header, tables, reader, io),
            Err(reason) => io.drop(packet, reason),
        };
    }
    let mut out = Departures::default();
    out.push(packet, Departure::new(header, Origin::Tunnel, tables));
    outbound::run(&mut out, tables, reader, io);
}

/// Wraps a packet that came by a tunnel and sends it at once.
#[inline(never)]
pub(super) fn wrap_alone(packet: Packet, header: &IpHeader, tables: &Tables, reader: &Reader, io: &mut Io) {
    let mut header = *header;
    let Some(packet) = wrap(packet, &mut header, Origin::Tunnel, tables, reader, io) else { return };
    let mut out = Departures::default();
    out.push(packet, Departure::new(&header, Origin::Host, tables));
    outbound::run(&mut out, tables, reader, io);
}
