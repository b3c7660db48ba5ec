//! Packets from this side: finds their policy, and seals those that it wants protected.
//!
//! ```text
//! departures ─► policy ─┬─► size, hop limit, encapsulate ─► number ─► seal (crypto, whole burst) ─► route
//!                       └─► forward in clear, or drop
//! ```

use super::{
    departure::{Departure, Departures, Fate, Origin},
    encapsulate::{encapsulate, payload_limit, whole_limit},
    fragment::fragment,
    io::Io,
    policy::{Action, Decision},
    profile::Stage,
    seal::{seal, seal_and_cut},
    tables::Tables,
};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    prefetch,
    sa::{Endpoint, Flow, Mode, OutboundSa},
    table::{Buckets, Reader},
    wire::{
        icmp,
        ip::{self, Fragment, IpHeader},
        tcp,
    },
};

/// The most bytes that ESP adds behind a packet: padding, trailer and ICV.
pub(super) const MAX_TRAILER: usize = 64;
/// The most bytes before a sealed packet: Ethernet with tags, IPv6, UDP, ESP, IV, and a packet's time.
pub(super) const MAX_HEADERS: usize = 128;

/// Processes a burst of departures up to sending. Each pass prefetches the memory that the next one
/// reads, so that the cache misses of a burst overlap.
pub fn run<'r>(departures: &mut Departures<'r>, tables: &'r Tables, reader: &'r Reader, io: &mut Io) {
    if departures.is_empty() {
        return;
    }
    for (_, departure) in departures.iter_mut() {
        tables.policies.prefetch_node(departure.buckets);
    }
    let mut train = None;
    for (packet, departure) in departures.iter_mut() {
        match treat_in(&mut train, packet, departure, tables, reader) {
            Ok(sa) => departure.sa = sa,
            Err(reason) => departure.fate = Fate::Drop(reason),
        }
        match departure.sa {
            Some(sa) => prefetch::whole(sa),
            None if departure.fate == Fate::Protect => departure.fate = Fate::Clear,
            None => {}
        }
    }
    io.mark(Stage::Policy);
    carry_out(departures, tables, reader, io);
}

/// Sends a packet of ours by `sa`, whatever policy says.
#[cold]
pub fn run_by(
    packet: Packet,
    header: &IpHeader,
    sa: &OutboundSa,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) {
    let mut departures = Departures::default();
    departures.push(packet, Departure { sa: Some(sa), ..Departure::new(header, Origin::Host, tables) });
    carry_out(&mut departures, tables, reader, io);
}

/// Does the same with departures of which policy has decided.
#[inline(always)]
pub(super) fn carry_out<'r>(
    departures: &mut Departures<'r>,
    tables: &'r Tables,
    reader: &'r Reader,
    io: &mut Io,
) {
    for (_, departure) in departures.iter_mut() {
        if let Some(sa) = departure.sa {
            sa.prefetch_parts(reader);
        }
    }
    let mut is_cut = false;
    for (packet, departure) in departures.iter_mut() {
        if let Some(sa) = departure.sa {
            departure.fate = protect(packet, departure, sa, tables, reader, &mut is_cut);
        }
    }
    match is_cut {
        true => seal_in_pieces(departures, tables, reader, io),
        false => seal(departures, tables, reader, io),
    }
}

/// The flow of the previous packet, and its treatment. Packets of one flow often follow one
/// another.
pub(super) struct Train<'r> {
    header: &'r IpHeader,
    ports: Option<(u16, u16)>,
    from: (Origin, u16),
    treatment: Treatment<'r>,
}

/// The SA that is to protect a packet, if any, or the reason for its drop.
pub(super) type Treatment<'r> = Result<Option<&'r OutboundSa>, DropReason>;

/// Does the same as [`treat`], or repeats the last result if the packet is of the same flow.
#[inline(always)]
pub(super) fn treat_in<'r>(
    train: &mut Option<Train<'r>>,
    packet: &Packet,
    departure: &Departure<'r>,
    tables: &'r Tables,
    reader: &'r Reader,
) -> Treatment<'r> {
    let header = departure.header;
    let flow = Flow::of(header, packet.data());
    let (ports, from) = (flow.ports, (departure.origin, packet.port()));
    match train {
        Some(last) if last.ports == ports && last.from == from && flow.is_in(last.header) => last.treatment,
        _ => {
            let treatment = treat(packet, departure, &flow, tables, reader);
            if flow.is_icmp() && !matches!(treatment, Ok(Some(_))) {
                // Errors of one flow quote different packets.
                return treat_icmp(treatment, packet, departure, flow, tables, reader);
            }
            *train = Some(Train { header, ports, from, treatment });
            treatment
        }
    }
}

/// Returns the SA by which policy protects a packet, or none (RFC 4301 §5.1). Refuses a clear
/// packet that should have come through a tunnel (§5.2), and one that would get into a tunnel by a
/// spoofed source (RFC 3704 §2.2).
#[inline(always)]
fn treat<'r>(
    packet: &Packet,
    departure: &Departure<'_>,
    flow: &Flow,
    tables: &'r Tables,
    reader: &'r Reader,
) -> Treatment<'r> {
    let from_wire = departure.origin == Origin::Wire;
    if from_wire && !departure.header.is_forwardable() {
        return Err(DropReason::Martian);
    }
    if from_wire && tables.should_be_tunnelled(flow.src, reader) {
        return Err(DropReason::Unprotected);
    }
    treat_flow(flow, departure.buckets, from_wire.then(|| packet.port()), tables, reader)
}

/// Does the same for a flow of forwardable packets. `wire` is the port that they come by in clear; there is
/// none if they come from the host's own stack.
pub(super) fn treat_forwardable<'r>(
    flow: &Flow,
    wire: Option<u16>,
    tables: &'r Tables,
    reader: &'r Reader,
) -> Treatment<'r> {
    treat_flow(flow, tables.policies.buckets(flow.dst), wire, tables, reader)
}

/// Does the same with the hash `buckets` of the packets' destination. `wire` is the port that they came by
/// in clear, if they did.
#[inline(always)]
fn treat_flow<'r>(
    flow: &Flow,
    buckets: Buckets,
    wire: Option<u16>,
    tables: &'r Tables,
    reader: &'r Reader,
) -> Treatment<'r> {
    let rule = match tables.decide_at(buckets, flow, reader) {
        Decision::Rule(rule) => rule,
        Decision::Hidden(_) => return Err(DropReason::FragmentPorts),
        Decision::None if tables.is_unprotected(flow, None, reader) => return Err(DropReason::Unprotected),
        Decision::None => return Err(DropReason::NoPolicy),
    };
    let may_come_in_clear = || wire.is_none() || !tables.is_unprotected(flow, Some(rule), reader);
    match &rule.action {
        Action::Discard | Action::Guard => Err(DropReason::Discard),
        Action::Ended(_) => Err(DropReason::SaExpired),
        _ if !may_come_in_clear() => Err(DropReason::Unprotected),
        Action::Bypass => Ok(None),
        Action::Protect(_) if wire.is_some_and(|port| !tables.leads_to(flow.src, port, reader)) => {
            Err(DropReason::SourcePort)
        }
        Action::Protect(sa) => Ok(Some(sa)),
    }
}

/// Returns the treatment of an ICMP packet that no SA protects by its own addresses, which are those
/// of `flow`, and whose treatment is `own` by them. An error is treated as the return traffic of the
/// packet that it quotes (RFC 4301 §6.2), unless a rule of a longer prefix is for its own addresses:
/// it goes through the SA of that traffic, and does not come in clear from where that traffic must
/// not. It passes in clear with that traffic if no rule at all is for its own addresses. One whose
/// quote cannot be read, or is of another sender, does not pass at all.
#[cold]
#[inline(never)]
fn treat_icmp<'r>(
    own: Treatment<'r>,
    packet: &Packet,
    departure: &Departure<'_>,
    flow: Flow,
    tables: &'r Tables,
    reader: &'r Reader,
) -> Treatment<'r> {
    if !matches!(own, Ok(None) | Err(DropReason::NoPolicy | DropReason::Discard)) {
        return own;
    }
    let Some(back) = Flow::returned_by(departure.header, packet.data()) else {
        let is_error = icmp::is_error(departure.header, packet.data());
        return if is_error && own.is_ok() { Err(DropReason::IcmpQuote) } else { own };
    };
    let rule = |flow: &Flow| tables.decide_at(departure.buckets, flow, reader).rule();
    match treat(packet, departure, &back, tables, reader) {
        Ok(Some(sa)) => {
            let is_first = rule(&flow).is_none_or(|own| {
                let rank = own.selector.rank.remote;
                rule(&back).is_some_and(|by_quote| by_quote.outranks(rank, own.tunnel()))
            });
            // In transport mode, the sender is this host itself.
            let may_send = sa.mode == Mode::Tunnel || back.src == flow.src;
            if is_first && may_send { Ok(Some(sa)) } else { own }
        }
        Ok(None) if matches!(own, Err(DropReason::NoPolicy)) => Ok(None),
        Err(
            why @ (DropReason::Unprotected
            | DropReason::SourcePort
            | DropReason::SaExpired
            | DropReason::FragmentPorts),
        ) if !matches!(own, Err(DropReason::Discard)) => Err(why),
        _ => own,
    }
}

/// Encapsulates a packet for `sa`. Sets `is_cut` if it is to be cut into fragments.
#[inline]
fn protect<'r>(
    packet: &mut Packet,
    departure: &mut Departure<'r>,
    sa: &'r OutboundSa,
    tables: &'r Tables,
    reader: &'r Reader,
    is_cut: &mut bool,
) -> Fate {
    let Some(endpoint) = sa.endpoint(reader) else { return Fate::Drop(DropReason::NoEndpoint) };
    departure.endpoint = Some(endpoint);
    let header = departure.header;
    let limit = payload_limit(sa, endpoint, header.header_len());
    let is_hop = sa.mode == Mode::Tunnel;
    if !is_hop && header.fragment != Fragment::Whole {
        return Fate::Drop(DropReason::TransportFragment);
    }
    if is_hop && header.hop_limit <= 1 {
        return Fate::Expired;
    }
    if header.total_len() > limit {
        let fate = protect_too_big(packet, departure, (sa, endpoint), tables, limit);
        *is_cut |= matches!(fate, Fate::Pieces | Fate::OuterPieces);
        return fate;
    }
    if is_hop {
        pass(packet, header, tables, limit);
    }
    wrap(packet, header, departure, sa, endpoint)
}

/// Does the same for a packet that does not fit into one outer packet, whose payload has `limit` bytes.
#[cold]
fn protect_too_big<'r>(
    packet: &mut Packet,
    departure: &mut Departure<'r>,
    (sa, endpoint): (&'r OutboundSa, &'r Endpoint),
    tables: &Tables,
    limit: usize,
) -> Fate {
    let header = departure.header;
    let is_hop = sa.mode == Mode::Tunnel;
    let is_cut_outside = header.total_len() <= whole_limit(sa, endpoint, header);
    if !is_cut_outside && (header.dont_fragment || !is_hop) {
        return Fate::TooBig;
    }
    if is_hop {
        pass(packet, header, tables, limit);
    }
    if !is_cut_outside {
        return Fate::Pieces;
    }
    make_tailroom(packet);
    match wrap(packet, header, departure, sa, endpoint) {
        Fate::Protect => Fate::OuterPieces,
        fate => fate,
    }
}

/// Moves a packet that fills its frame to the front, as far as headers leave room there, so that a trailer
/// fits behind it.
fn make_tailroom(packet: &mut Packet) {
    let missing = MAX_TRAILER.saturating_sub(packet.tailroom());
    let shift = missing.min(packet.headroom().saturating_sub(MAX_HEADERS));
    let length = packet.len();
    if shift > 0 && packet.push_front(shift).is_some() {
        packet.data_mut().copy_within(shift.., 0);
        let is_shorter = packet.set_len(length).is_some();
        debug_assert!(is_shorter, "the packet has only moved");
    }
}

/// Changes a packet as the gateway does that it passes. Its TCP segments get no longer than fit into
/// `limit` bytes.
#[inline]
pub(super) fn pass(packet: &mut Packet, header: &IpHeader, tables: &Tables, limit: usize) {
    ip::decrement_hop_limit(packet.data_mut());
    if tables.settings.mss_clamp {
        tcp::fit_mss(packet.data_mut(), header, limit);
    }
}

/// Packets to be sealed, in their order.
#[derive(Default)]
struct Queue<'r> {
    departures: Departures<'r>,
    /// `true` if the outer packets are to be cut.
    is_cut_outside: bool,
}

impl<'r> Queue<'r> {
    /// Appends a packet. Seals and sends those before it if there is no room, or if they are of the
    /// other kind.
    fn push(
        &mut self,
        packet: Packet,
        departure: Departure<'r>,
        is_cut_outside: bool,
        (tables, reader): (&Tables, &Reader),
        io: &mut Io,
    ) {
        if self.departures.is_full() || self.is_cut_outside != is_cut_outside {
            self.seal(tables, reader, io);
        }
        self.is_cut_outside = is_cut_outside;
        self.departures.push(packet, departure);
    }

    fn seal(&mut self, tables: &Tables, reader: &Reader, io: &mut Io) {
        match self.is_cut_outside {
            true => seal_and_cut(&mut self.departures, tables, reader, io),
            false => seal(&mut self.departures, tables, reader, io),
        }
    }
}

/// Replaces each packet that is too big by its fragments, then seals and sends all packets. Those whose
/// outer packets are too big are sealed whole.
#[cold]
fn seal_in_pieces(departures: &mut Departures<'_>, tables: &Tables, reader: &Reader, io: &mut Io) {
    let mut queue = Queue::default();
    let at = (tables, reader);
    for (packet, departure) in departures.drain() {
        match (departure.fate, departure.way()) {
            (Fate::OuterPieces, _) => {
                queue.push(packet, Departure { fate: Fate::Protect, ..departure }, true, at, io);
            }
            (Fate::Pieces, Some((sa, endpoint))) => {
                let limit = payload_limit(sa, endpoint, departure.header.header_len());
                let done = fragment(&packet, departure.header, limit, io, |io, mut piece, header| {
                    let mut part = Departure { fate: Fate::Protect, ..departure };
                    part.fate = wrap(&mut piece, &header, &mut part, sa, endpoint);
                    queue.push(piece, part, false, at, io);
                });
                match done {
                    Ok(()) => io.free(packet),
                    Err(reason) => io.drop(packet, reason),
                }
            }
            _ => queue.push(packet, departure, false, at, io),
        }
    }
    queue.seal(tables, reader, io);
}

/// Encapsulates a packet. Returns whether it is to be protected or dropped.
#[inline]
pub(super) fn wrap(
    packet: &mut Packet,
    header: &IpHeader,
    departure: &mut Departure<'_>,
    sa: &OutboundSa,
    endpoint: &Endpoint,
) -> Fate {
    departure.inner_len = packet.len() as u16;
    match encapsulate(packet, header, sa, endpoint) {
        Ok(layout) => {
            departure.layout = layout;
            Fate::Protect
        }
        Err(reason) => Fate::Drop(reason),
    }
}
