//! The router's part: hop limit, MSS, size, route. For what came out of a tunnel and for what policy lets pass in
//! clear.

use super::{
    fragment::fragment,
    io::{FROM_TUNNEL, Io},
    outbound::{Departure, Departures, Origin},
    policy::{Action, Rule, Verdict},
    tables::{Hop, Tables},
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::{Flow, InboundSa, Mode, Selector},
    table::Reader,
    wire::{
        icmp::Problem,
        ip::{self, Fragment, IpHeader, V4_HEADER, V6_HEADER, protocol},
        tcp,
    },
};

/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;

/// Forwards what came out of `sa` and what its selector `admitted`: by policy too, for it may have to go into another
/// tunnel, as `departures`.
#[allow(
    clippy::too_many_arguments,
    reason = "the packet, what admitted it, and the four that every stage has"
)]
#[inline]
pub fn inbound<'r>(
    mut packet: Packet,
    header: &'r IpHeader,
    flow: &Flow,
    sa: &InboundSa,
    admitted: &Selector,
    departures: &mut Departures<'r>,
    tables: &'r Tables,
    reader: &'r Reader,
    io: &mut Io,
) {
    let hop = tables.routes.find(header.dst, reader).copied();
    let spot = tables.policies.spot(header.dst);
    let ruled = match spot.is_empty(header.dst) {
        true => Verdict::None,
        false => ruled(tables.verdict_at(spot, flow, reader), sa, admitted),
    };
    if sa.mode == Mode::Transport || matches!(hop, Some(Hop::Local | Hop::Host)) {
        // It was sent to this very host: nothing is forwarded, so no hop is counted, and no other tunnel can be meant.
        return match permits(ruled) {
            Ok(()) => io.route_by(hop, packet, header.dst, tables),
            Err(reason) => io.drop(packet, reason),
        };
    }
    if !header.is_forwardable() {
        return io.drop(packet, DropReason::Martian);
    }
    // The answers will go back through the tunnel, so the terminal's SYN must ask for what fits it.
    clamp_mss(&mut packet, header, sa.inner_mtu(), tables);
    packet.set_port(FROM_TUNNEL);
    match ruled {
        // It is for another peer, or for somebody that policy forbids.
        Verdict::Rule(_) | Verdict::Hidden(_) => {
            departures.push(packet, Departure::new(header, Origin::Tunnel, tables));
        }
        // It is for this side, as the SA's own selector says.
        Verdict::None => clear_by(hop, packet, header, tables, io),
    }
}

/// What policy has to say of a packet that came out of `sa`, of which its selector `admitted` says that it is for this
/// side: nothing, unless the operator speaks of its destination more closely than of what `admitted` stands for.
#[inline(always)]
fn ruled<'r>(verdict: Verdict<'r>, sa: &InboundSa, admitted: &Selector) -> Verdict<'r> {
    match verdict.rule() {
        Some(rule) if rule.outranks(admitted.rank.local, Some(sa.tunnel)) => verdict,
        _ => Verdict::None,
    }
}

/// Returns why policy refuses a packet that came out of `sa` and that its selector `admitted`: the operator discards what
/// goes to its source, by a longer prefix than the one that `admitted` was narrowed from.
#[inline(never)]
pub fn permits_source(
    flow: &Flow,
    sa: &InboundSa,
    admitted: &Selector,
    tables: &Tables,
    reader: &Reader,
) -> Result<(), DropReason> {
    let back = tables.verdict(&flow.reversed(), reader);
    match back.rule() {
        Some(rule) if rule.outranks(admitted.rank.remote, Some(sa.tunnel)) => permits(back),
        _ => Ok(()),
    }
}

/// Returns why the operator's policies refuse a packet that a tunnel brought.
fn permits(verdict: Verdict<'_>) -> Result<(), DropReason> {
    match verdict {
        Verdict::Rule(Rule { action: Action::Discard, .. }) => Err(DropReason::Discard),
        Verdict::Hidden(Rule { action: Action::Discard, .. }) => Err(DropReason::FragmentPorts),
        _ => Ok(()),
    }
}

/// Forwards a packet in clear by its route.
#[inline]
pub fn clear(packet: Packet, header: &IpHeader, tables: &Tables, reader: &Reader, io: &mut Io) {
    clear_by(tables.routes.find(header.dst, reader).copied(), packet, header, tables, io);
}

#[inline]
fn clear_by(hop: Option<Hop>, mut packet: Packet, header: &IpHeader, tables: &Tables, io: &mut Io) {
    let mtu = match hop {
        Some(Hop::Port { port, .. } | Hop::Resolve { port, .. }) => {
            tables.settings.ports[usize::from(port)].mtu
        }
        // Here is its end, or there is no way: nothing is forwarded.
        Some(Hop::Local | Hop::Host) | None => return io.route_by(hop, packet, header.dst, tables),
    };
    if header.hop_limit <= 1 {
        return io.refuse(packet, Problem::TimeExceeded, DropReason::HopLimit);
    }
    let fits = header.total_len() <= mtu;
    if !fits && header.dont_fragment {
        return io.refuse(packet, Problem::TooBig { mtu: mtu as u16 }, DropReason::TooBig);
    }
    ip::decrement_hop_limit(packet.data_mut());
    if fits {
        io.route_by(hop, packet, header.dst, tables);
    } else {
        let each = |io: &mut Io, piece, header: IpHeader| io.route_by(hop, piece, header.dst, tables);
        match fragment(&packet, header, mtu, io, each) {
            Ok(()) => io.free(packet),
            Err(reason) => io.drop(packet, reason),
        }
    }
}

/// Lowers the MSS of a TCP SYN so that its segments fit IP packets of `limit` bytes.
#[inline]
pub fn clamp_mss(packet: &mut Packet, header: &IpHeader, limit: usize, tables: &Tables) {
    if header.protocol == protocol::TCP && header.fragment != Fragment::Later && tables.settings.mss_clamp {
        let headers = TCP_HEADER + if header.is_ipv4() { V4_HEADER } else { V6_HEADER };
        let mss = limit.saturating_sub(headers).min(usize::from(u16::MAX));
        tcp::clamp_mss(&mut packet.data_mut()[header.header_len()..], mss as u16);
    }
}
