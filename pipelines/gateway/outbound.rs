//! Packets from this side: finds their policy, and seals those that it wants protected.
//!
//! ```text
//! departures ─► policy ─┬─► size, hop limit, encapsulate ─► number ─► seal (crypto, whole burst) ─► route
//!                       └─► forward in clear, or drop
//! ```

use super::{
    batch::Batch,
    encapsulate::{self, Layout, encapsulate, payload_limit},
    forward,
    fragment::fragment,
    io::Io,
    policy::{Action, Decision},
    profile::Stage,
    rings::Event,
    tables::{Hop, Tables},
};
use arrayvec::ArrayVec;
use wayfarer_dataplane::{
    crypto::{self, SealJob},
    drop::DropReason,
    packet::{BURST, Packet},
    prefetch,
    sa::{Due, Endpoint, Flow, Mode, OutboundSa},
    table::{Buckets, Reader},
    wire::{
        Address,
        icmp::{self, Problem},
        ip::{self, Fragment, IpHeader},
        tcp,
    },
};

/// A note on a packet to be forwarded by policy.
#[derive(Clone, Copy, Debug)]
pub struct Departure<'r> {
    header: &'r IpHeader,
    origin: Origin,
    /// The packet's length before encapsulation, in bytes.
    inner_len: u16,
    layout: Layout,
    sa: Option<&'r OutboundSa>,
    seq: u64,
    /// The endpoint of the SA.
    endpoint: Option<&'r Endpoint>,
    /// The hash buckets for the look-up of policy.
    buckets: Buckets,
    fate: Fate,
}

/// A burst of departures.
pub type Departures<'r> = Batch<Departure<'r>>;

impl<'r> Departure<'r> {
    /// Notes a packet that begins with `header`.
    #[inline(always)]
    pub fn new(header: &'r IpHeader, origin: Origin, tables: &Tables) -> Self {
        let buckets = tables.policies.buckets(header.dst);
        tables.policies.prefetch_bucket(buckets);
        Self {
            header,
            origin,
            inner_len: 0,
            layout: Layout::default(),
            sa: None,
            seq: 0,
            endpoint: None,
            buckets,
            fate: Fate::Protect,
        }
    }

    /// Returns the SA that protects the packet, and the endpoint that it is sent to.
    #[inline]
    fn way(&self) -> Option<(&'r OutboundSa, &'r Endpoint)> {
        Some((self.sa?, self.endpoint?))
    }
}

/// The fate of a packet. It is one byte, so that a note consists of scalars only, which the
/// compiler writes in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The packet goes through its SA.
    Protect,
    /// The packet goes in clear.
    Clear,
    /// The packet goes through its SA in fragments.
    Pieces,
    /// The hop limit ran out, which is reported to the sender.
    Expired,
    /// The packet is too big for its SA, which is reported to the sender.
    TooBig,
    /// The packet is dropped.
    Drop(DropReason),
}

const _: () = assert!(size_of::<Fate>() == 1);

/// The origin of a packet, which decides the checks before it is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A wire, in clear: anybody may have sent the packet.
    Wire,
    /// A tunnel, whose selectors have admitted the packet.
    Tunnel,
    /// This host: its own stack, or the slow path.
    Host,
}

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
    for (_, departure) in departures.iter_mut() {
        if let Some(sa) = departure.sa {
            sa.prefetch_parts();
        }
    }
    let mut too_big = false;
    for (packet, departure) in departures.iter_mut() {
        if let Some(sa) = departure.sa {
            departure.fate = protect(packet, departure, sa, tables, reader);
            too_big |= departure.fate == Fate::Pieces;
        }
    }
    if too_big {
        cut(departures, tables, reader, io);
    }
    seal(departures, tables, reader, io);
}

/// The flow of the previous packet, and its treatment. Packets of one flow often follow one
/// another.
struct Train<'r> {
    header: &'r IpHeader,
    ports: Option<(u16, u16)>,
    from: (Origin, u16),
    treatment: Treatment<'r>,
}

/// The SA that is to protect a packet, if any, or the reason for its drop.
type Treatment<'r> = Result<Option<&'r OutboundSa>, DropReason>;

/// Does the same as [`treat`], or repeats the last result if the packet is of the same flow.
#[inline(always)]
fn treat_in<'r>(
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
    let Departure { header, origin, buckets, .. } = departure;
    let from_wire = *origin == Origin::Wire;
    if from_wire && !header.is_forwardable() {
        return Err(DropReason::Martian);
    }
    let rule = match tables.decide_at(*buckets, flow, reader) {
        Decision::Rule(rule) => rule,
        Decision::Hidden(_) => return Err(DropReason::FragmentPorts),
        Decision::None if tables.is_unprotected(flow, None, reader) => return Err(DropReason::Unprotected),
        Decision::None => return Err(DropReason::NoPolicy),
    };
    let may_come_in_clear = || !from_wire || !tables.is_unprotected(flow, Some(rule), reader);
    match &rule.action {
        Action::Discard | Action::Guard => Err(DropReason::Discard),
        Action::Ended(_) => Err(DropReason::SaExpired),
        _ if !may_come_in_clear() => Err(DropReason::Unprotected),
        Action::Bypass => Ok(None),
        Action::Protect(_) if from_wire && !tables.leads_to(flow.src, packet.port(), reader) => {
            Err(DropReason::SourcePort)
        }
        Action::Protect(sa) => Ok(Some(sa)),
    }
}

/// Returns the treatment of an ICMP packet that no SA protects by its own addresses, which are those
/// of `flow`, and whose treatment is `own` by them. An error is treated as the return traffic of the
/// packet that it quotes (RFC 4301 §6.2), unless a rule of a longer prefix is for its own addresses:
/// it goes through the SA of that traffic, and does not come in clear from where that traffic must
/// not. One whose quote cannot be read, or is of another sender, does not pass at all.
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
        Err(
            why @ (DropReason::Unprotected
            | DropReason::SourcePort
            | DropReason::SaExpired
            | DropReason::FragmentPorts),
        ) if !matches!(own, Err(DropReason::Discard)) => Err(why),
        _ => own,
    }
}

/// Encapsulates a packet for `sa`, if it fits into one outer packet.
#[inline]
fn protect<'r>(
    packet: &mut Packet,
    departure: &mut Departure<'r>,
    sa: &'r OutboundSa,
    tables: &'r Tables,
    reader: &'r Reader,
) -> Fate {
    let Some(endpoint) = sa.endpoint(reader) else { return Fate::Drop(DropReason::NoEndpoint) };
    departure.endpoint = Some(endpoint);
    let header = departure.header;
    let limit = payload_limit(sa, endpoint, header);
    let is_hop = sa.mode == Mode::Tunnel;
    if !is_hop && header.fragment != Fragment::Whole {
        return Fate::Drop(DropReason::TransportFragment);
    }
    if is_hop && header.hop_limit <= 1 {
        return Fate::Expired;
    }
    let fits = header.total_len() <= limit;
    if !fits && (header.dont_fragment || !is_hop) {
        return Fate::TooBig;
    }
    if is_hop {
        ip::decrement_hop_limit(packet.data_mut());
        if tables.settings.mss_clamp {
            tcp::fit_mss(packet.data_mut(), header, limit);
        }
    }
    if !fits {
        return Fate::Pieces;
    }
    wrap(packet, header, departure, sa, endpoint)
}

/// Replaces each packet that is too big by its fragments. If the burst becomes full, its packets
/// are sent first.
#[cold]
fn cut<'r>(departures: &mut Departures<'r>, tables: &Tables, reader: &Reader, io: &mut Io) {
    let mut all = Departures::default();
    let mut add = |packet, departure: Departure<'r>, io: &mut Io| {
        if all.is_full() {
            seal(&mut all, tables, reader, io);
        }
        all.push(packet, departure);
    };
    for (packet, departure) in departures.drain() {
        let (Fate::Pieces, Some((sa, endpoint))) = (departure.fate, departure.way()) else {
            add(packet, departure, io);
            continue;
        };
        let limit = payload_limit(sa, endpoint, departure.header);
        let done = fragment(&packet, departure.header, limit, io, |io, mut piece, header| {
            let mut part = Departure { fate: Fate::Protect, ..departure };
            part.fate = wrap(&mut piece, &header, &mut part, sa, endpoint);
            add(piece, part, io);
        });
        match done {
            Ok(()) => io.free(packet),
            Err(reason) => io.drop(packet, reason),
        }
    }
    *departures = all;
}

#[inline]
fn wrap(
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

/// Numbers, seals and sends the burst, which is empty afterwards.
fn seal(departures: &mut Departures<'_>, tables: &Tables, reader: &Reader, io: &mut Io) {
    if departures.is_empty() {
        return;
    }
    io.mark(Stage::Encapsulate);
    number(departures, io);
    io.mark(Stage::Number);
    let mut jobs: ArrayVec<SealJob<'_>, BURST> = ArrayVec::new();
    for (packet, Departure { sa, layout, seq, fate, .. }) in departures.iter_mut() {
        if let (Some(sa), Fate::Protect) = (sa, fate) {
            let esp = &mut packet.data_mut()[layout.esp_at()..];
            jobs.push(SealJob { key: &sa.key, seq: *seq, iv: sa.iv(*seq), esn: sa.esn, esp });
        }
    }
    crypto::seal(&mut jobs);
    drop(jobs);
    io.mark(Stage::Seal);
    let (mut sealed, mut bytes) = (0, 0);
    let mut way: Option<(Address, Option<&Hop>)> = None;
    for (mut packet, departure) in departures.drain() {
        match departure.fate {
            Fate::Protect => {
                sealed += 1;
                bytes += u64::from(departure.inner_len);
                let outer_dst = outer_dst(&departure);
                let (_, hop) = match way {
                    Some(last) if last.0 == outer_dst => last,
                    _ => *way.insert((outer_dst, tables.routes.find(outer_dst, reader))),
                };
                let hop = hop.copied();
                if let Some(sa) = departure.sa {
                    encapsulate::checksum(&mut packet, departure.layout, sa, || tables.fills_checksums(hop));
                }
                io.route_by(hop, packet, outer_dst, tables);
            }
            Fate::Clear => forward::clear(packet, departure.header, tables, reader, io),
            Fate::Expired => io.refuse(packet, Problem::TimeExceeded, DropReason::HopLimit),
            // Packets to be fragmented were replaced before this.
            Fate::TooBig | Fate::Pieces => {
                let limit = departure.way().map_or(0, |(sa, to)| payload_limit(sa, to, departure.header));
                let mtu = limit.min(usize::from(u16::MAX)) as u16;
                io.refuse(packet, Problem::TooBig { mtu }, DropReason::TooBig);
            }
            Fate::Drop(reason) => io.drop(packet, reason),
        }
    }
    io.counters().sealed.add(sealed);
    io.counters().sealed_bytes.add(bytes);
    io.mark(Stage::Route);
}

/// Returns the destination in the outer header of a sealed packet.
#[inline]
fn outer_dst(departure: &Departure<'_>) -> Address {
    match departure.way() {
        Some((sa, endpoint)) if sa.mode == Mode::Tunnel => endpoint.remote(),
        _ => departure.header.dst,
    }
}

/// Counts packets against the lifetimes of their SAs, and numbers those within them, by one
/// operation for each run of packets of one SA.
fn number(departures: &mut Departures<'_>, io: &mut Io) {
    let (mut packets, mut notes) = departures.columns();
    while let Some(sa) = notes.first().map(|d| d.sa) {
        let run = notes.iter().take_while(|d| same(d.sa, sa)).count();
        let (these, packets_left) = packets.split_at_mut(run);
        let (run, notes_left) = notes.split_at_mut(run);
        if let Some(sa) = sa {
            number_run(these, run, sa, io);
        }
        (packets, notes) = (packets_left, notes_left);
    }
}

#[inline]
fn same(a: Option<&OutboundSa>, b: Option<&OutboundSa>) -> bool {
    a.map(std::ptr::from_ref) == b.map(std::ptr::from_ref)
}

#[inline]
fn number_run(packets: &mut [Packet], run: &mut [Departure<'_>], sa: &OutboundSa, io: &mut Io) {
    let tunnel = sa.tunnel;
    let within = charge(run, sa, io);
    let first = sa.take_sequence(within);
    let protected = packets.iter_mut().zip(run).filter(|(_, d)| d.fate == Fate::Protect);
    for ((packet, d), seq) in protected.zip(first..) {
        d.seq = seq;
        if seq <= sa.last_sequence() {
            if let Some(endpoint) = d.endpoint {
                encapsulate::number(packet, d.header, d.layout, sa, endpoint, seq);
            }
            continue;
        }
        sa.life.once(Due::Sequence, |due| io.tell(Event::Due { tunnel, inbound: false, due }));
        d.fate = Fate::Drop(DropReason::SequenceExhausted);
    }
}

/// Counts a run of packets of one SA against its lifetime; returns how many are within it.
#[inline]
fn charge(run: &mut [Departure<'_>], sa: &OutboundSa, io: &mut Io) -> u64 {
    let (mut within, mut bytes) = (0, 0);
    for d in run.iter().filter(|d| d.fate == Fate::Protect) {
        within += 1;
        bytes += u64::from(d.inner_len);
    }
    if sa.life.charge_run(within, bytes) {
        return within;
    }
    let tunnel = sa.tunnel;
    let mut within = 0;
    for d in run.iter_mut().filter(|d| d.fate == Fate::Protect) {
        let tell = |due| io.tell(Event::Due { tunnel, inbound: false, due });
        if sa.life.charge(usize::from(d.inner_len), tell) {
            within += 1;
        } else {
            d.fate = Fate::Drop(DropReason::SaExpired);
        }
    }
    within
}
