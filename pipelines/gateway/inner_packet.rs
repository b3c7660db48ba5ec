//! Inner packets that an SA has let in, on their way to this side or to another tunnel.

use super::{
    admission::{admit, charge, permits, ruled},
    care_of, classify,
    departure::{Departure, Departures, Origin},
    forward,
    input_port::from_link,
    io::Io,
    nat, outbound,
    policy::Decision,
    policy_fragments::{self, shows_ports},
    reassembly::{Fragments, Sender, Whole},
    tables::{Hop, Tables},
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::{Flow, InboundSa, Mode, Selector},
    table::Reader,
    wire::{
        ip::{Fragment, IpHeader},
        tcp,
    },
};

/// Forwards a packet that came out of `sa` and that its selector `admitted`. Policy applies too: a
/// packet for another tunnel joins `departures`.
#[allow(
    clippy::too_many_arguments,
    reason = "the packet, what admitted it, and the four that every stage has"
)]
#[inline(always)]
pub(super) fn forward_inner<'r>(
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
    let buckets = tables.policies.buckets(header.dst);
    let ruled = match buckets.is_empty(header.dst) {
        true => Decision::None,
        false => ruled(tables.decide_at(buckets, flow, reader), sa, admitted),
    };
    if sa.mode == Mode::Transport || matches!(hop, Some(Hop::Local | Hop::Host)) {
        // In transport mode the packet ends at this host: no hop is counted, and no other tunnel
        // applies.
        let message = classify::mobility_message(header, packet.data(), tables);
        if let (Some(punt), Some(Hop::Local), Ok(())) = (message, hop, permits(ruled)) {
            packet.set_port(from_link(sa.link));
            return io.punt_shared(packet, punt);
        }
        if sa.mode == Mode::Tunnel && tables.nat.has_address(header.dst) {
            return match permits(ruled) {
                Ok(()) => nat::inward::arrive_from_tunnel(packet, header, sa, tables, reader, io),
                Err(reason) => io.drop(packet, reason),
            };
        }
        if let Err(reason) = permits(ruled) {
            return io.drop(packet, reason);
        }
        if let Some(encapsulation) = tables.tunnelled_home(header).filter(|_| hop == Some(Hop::Local)) {
            packet.set_port(from_link(sa.link));
            return care_of::unwrap(packet, header, encapsulation, Some(sa.tunnel), tables, reader, io);
        }
        return io.route_by(hop, packet, header.dst, tables);
    }
    if !header.is_forwardable() {
        return io.drop(packet, DropReason::Martian);
    }
    // Answers go back through the tunnel, so the MSS of the terminal's SYN must fit it.
    if tables.settings.mss_clamp {
        tcp::fit_mss(packet.data_mut(), header, sa.inner_mtu());
    }
    packet.set_port(from_link(sa.link));
    if tables.care_of(header.dst, reader).is_some() {
        return care_of::wrap_alone(packet, header, tables, reader, io);
    }
    if tables.is_nowhere(header.dst, reader) {
        return io.drop(packet, DropReason::NoBinding);
    }
    match ruled {
        // The packet is for another peer, or policy discards it.
        Decision::Rule(_) | Decision::Hidden(_) => {
            departures.push(packet, Departure::new(header, Origin::Tunnel, tables));
        }
        // The packet is for this side, as the SA's own selector says.
        Decision::None => forward::clear_by(hop, packet, header, tables, reader, io),
    }
}

/// Keeps a fragment that came out of `sa` until its packet is complete, if only the first fragment shows
/// whether that is let in. Passes the packet on then, after what is in `departures`.
#[cold]
#[inline(never)]
pub(super) fn keep_fragment<'r>(
    mut packet: Packet,
    header: &IpHeader,
    sa: Option<&InboundSa>,
    departures: &mut Departures<'r>,
    tables: &'r Tables,
    reader: &'r Reader,
    io: &mut Io,
) {
    let is_fragment = header.fragment != Fragment::Whole;
    let Some(sa) = sa.filter(|sa| is_fragment && sa.mode == Mode::Tunnel) else {
        return io.drop(packet, DropReason::FragmentPorts);
    };
    let length = header.total_len();
    if let Err(reason) = charge(sa, length, io) {
        return io.drop(packet, reason);
    }
    // With limits, it was charged before.
    let _ = sa.life.charge_run(1, length as u64);
    io.counters().opened.add(1);
    io.counters().opened_bytes.add(length as u64);
    packet.set_port(from_link(sa.link));
    let mut fragments = Fragments::new();
    if let Some(whole) = io.reassemble_from(Sender::Sa(sa.spi), packet, header, &mut fragments) {
        outbound::run(departures, tables, reader, io);
        if let Err(reason) = forward_fragments(whole, &mut fragments, sa, tables, reader, io) {
            fragments.drain(..).for_each(|packet| io.drop(packet, reason));
        }
    }
}

/// Forwards the fragments of a complete packet that came out of `sa`, as they came, if its first fragment
/// is let in (RFC 4301 §7). They are none afterwards.
///
/// # Errors
/// The reason why all of them must be dropped.
fn forward_fragments(
    whole: Whole,
    fragments: &mut Fragments,
    sa: &InboundSa,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) -> Result<(), DropReason> {
    let first = fragments.first().ok_or(DropReason::InnerMalformed)?;
    let header = IpHeader::parse(first.data()).map_err(|_| DropReason::InnerMalformed)?;
    shows_ports(&header, first.data())?;
    let (admitted, flow) = admit(&header, first.data(), sa, tables, reader)?;
    let ends_here = matches!(tables.routes.find(header.dst, reader), Some(Hop::Local | Hop::Host));
    let is_ruled = !matches!(ruled(tables.decide(&flow, reader), sa, admitted), Decision::None);
    if is_ruled && !ends_here && header.is_forwardable() {
        policy_fragments::pass(whole, fragments, Origin::Tunnel, tables, reader, io);
        return Ok(());
    }
    fragments.drain(..).for_each(|packet| forward_one(packet, &flow, sa, admitted, tables, reader, io));
    Ok(())
}

/// Forwards a packet that came out of `sa` by itself, or a fragment of it.
pub(super) fn forward_one(
    packet: Packet,
    flow: &Flow,
    sa: &InboundSa,
    admitted: &Selector,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    let header = match IpHeader::parse(packet.data()) {
        Ok(header) => header,
        Err(_) => return io.drop(packet, DropReason::InnerMalformed),
    };
    let mut out = Departures::default();
    forward_inner(packet, &header, flow, sa, admitted, &mut out, tables, reader, io);
    outbound::run(&mut out, tables, reader, io);
}
