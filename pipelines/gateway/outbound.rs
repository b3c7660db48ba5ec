//! Packets from this side: find the policy, and seal what it wants protected.
//!
//! ```text
//! departures ─► policy ─┬─► size, hop limit, encapsulate ─► number ─► seal (crypto, whole burst) ─► route
//!                       └─► forward in clear, or drop
//! ```

use super::{
    batch::Batch,
    encapsulate::{self, Layout, encapsulate, payload_limit},
    exchange::Event,
    forward,
    fragment::fragment,
    io::Io,
    profile::Stage,
    tables::{Action, Tables, Verdict},
};
use arrayvec::ArrayVec;
use wayfarer_dataplane::{
    crypto::{self, SealJob},
    drop::DropReason,
    packet::{BURST, Packet},
    prefetch,
    sa::{Due, Endpoint, Flow, Mode, OutboundSa},
    table::Reader,
    wire::{
        Address,
        icmp::Problem,
        ip::{self, Fragment, IpHeader},
    },
};

/// What a worker knows of a packet to be forwarded by policy.
#[derive(Debug)]
pub struct Departure<'r> {
    header: &'r IpHeader,
    origin: Origin,
    /// Bytes before encapsulation.
    inner_len: u16,
    layout: Layout,
    sa: Option<&'r OutboundSa>,
    seq: u64,
    /// Where the outer header sends it.
    outer_dst: Address,
    fate: Fate,
}

/// A burst of departures.
pub type Departures<'r> = Batch<Departure<'r>>;

impl<'r> Departure<'r> {
    /// The packet that begins with `header`.
    #[inline(always)]
    pub fn new(header: &'r IpHeader, origin: Origin, tables: &Tables) -> Self {
        tables.policies.prefetch_slot(header.dst);
        Self {
            header,
            origin,
            inner_len: 0,
            layout: Layout::default(),
            sa: None,
            seq: 0,
            outer_dst: Address::UNSPECIFIED,
            fate: Fate::Protect,
        }
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It goes through its SA.
    Protect,
    /// It goes in clear.
    Clear,
    /// It went on in pieces.
    Pieces,
    /// It is dropped.
    Drop(DropReason),
    /// It is dropped, and its sender hears why.
    Refuse(Problem, DropReason),
}

/// Where a packet came from, and so what it must show before it is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A wire, in clear: anybody may have sent it.
    Wire,
    /// A tunnel, whose selectors have admitted it.
    Tunnel,
    /// This host: its own stack, or the slow path.
    Host,
}

/// Carries a burst of departures through to their way out. Each pass asks the cache for what the next one reads, so that
/// the misses of a burst overlap.
pub fn run<'r>(departures: &mut Departures<'r>, tables: &'r Tables, reader: &'r Reader, io: &mut Io) {
    if departures.is_empty() {
        return;
    }
    for (_, departure) in departures.iter_mut() {
        tables.policies.prefetch_node(departure.header.dst);
    }
    for (packet, departure) in departures.iter_mut() {
        match decide(packet, departure, tables, reader) {
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
            sa.prefetch_parts(departure.header.total_len());
        }
    }
    let mut pieces = Departures::default();
    for (packet, departure) in departures.iter_mut() {
        if let Some(sa) = departure.sa {
            departure.fate = protect(packet, departure, sa, &mut pieces, tables, reader, io);
        }
    }
    seal(departures, tables, reader, io);
    seal(&mut pieces, tables, reader, io);
}

/// What policy wants for a packet (RFC 4301 §5.1): the SA that is to protect it, or none. One that came in in clear must
/// not be one that a tunnel should have brought (§5.2), nor pretend to come from elsewhere to get into a tunnel
/// (RFC 3704 §2.2).
#[inline]
fn decide<'r>(
    packet: &Packet,
    departure: &Departure<'_>,
    tables: &'r Tables,
    reader: &'r Reader,
) -> Result<Option<&'r OutboundSa>, DropReason> {
    let Departure { header, origin, .. } = departure;
    let from_wire = *origin == Origin::Wire;
    let flow = Flow::of(header, packet.data());
    if from_wire && !header.is_forwardable() {
        return Err(DropReason::Martian);
    }
    let verdict = tables.verdict(&flow, reader);
    let rule = match verdict {
        Verdict::Rule(rule) => rule,
        Verdict::Hidden(_) => return Err(DropReason::FragmentPorts),
        Verdict::None if tables.is_unprotected(&flow, None, reader) => return Err(DropReason::Unprotected),
        Verdict::None => return Err(DropReason::NoPolicy),
    };
    let may_come_in_clear = || !from_wire || !tables.is_unprotected(&flow, Some(rule), reader);
    match &rule.action {
        Action::Discard => Err(DropReason::Discard),
        Action::Ended(_) => Err(DropReason::SaExpired),
        _ if !may_come_in_clear() => Err(DropReason::Unprotected),
        Action::Bypass => Ok(None),
        Action::Protect(_) if from_wire && !tables.leads_to(header.src, packet.port(), reader) => {
            Err(DropReason::SourcePort)
        }
        Action::Protect(sa) => Ok(Some(sa)),
    }
}

/// Puts one packet into the ESP form of `sa`; where it is too big for one outer packet, its `pieces`.
fn protect<'r>(
    packet: &mut Packet,
    departure: &mut Departure<'r>,
    sa: &'r OutboundSa,
    pieces: &mut Departures<'r>,
    tables: &'r Tables,
    reader: &'r Reader,
    io: &mut Io,
) -> Fate {
    let Some(endpoint) = sa.endpoint(reader) else { return Fate::Drop(DropReason::NoEndpoint) };
    let header = departure.header;
    let limit = payload_limit(sa, endpoint, header);
    let is_hop = sa.mode == Mode::Tunnel;
    if !is_hop && header.fragment != Fragment::Whole {
        return Fate::Drop(DropReason::TransportFragment);
    }
    if is_hop && header.hop_limit <= 1 {
        return Fate::Refuse(Problem::TimeExceeded, DropReason::HopLimit);
    }
    let fits = header.total_len() <= limit;
    if !fits && (header.dont_fragment || !is_hop) {
        let mtu = limit.min(usize::from(u16::MAX)) as u16;
        return Fate::Refuse(Problem::TooBig { mtu }, DropReason::TooBig);
    }
    if is_hop {
        ip::decrement_hop_limit(packet.data_mut());
        forward::clamp_mss(packet, header, limit, tables);
    }
    if fits {
        return wrap(packet, header, departure, sa, endpoint);
    }
    let origin = departure.origin;
    let whole = header;
    let done = fragment(packet, header, limit, io, |io, mut piece, header| {
        if pieces.is_full() {
            seal(pieces, tables, reader, io);
        }
        let mut departure = Departure { sa: Some(sa), ..Departure::new(whole, origin, tables) };
        departure.fate = wrap(&mut piece, &header, &mut departure, sa, endpoint);
        pieces.push(piece, departure);
    });
    done.map_or_else(Fate::Drop, |()| Fate::Pieces)
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
    departure.outer_dst = if sa.mode == Mode::Tunnel { endpoint.remote() } else { header.dst };
    match encapsulate(packet, header, sa, endpoint) {
        Ok(layout) => {
            departure.layout = layout;
            Fate::Protect
        }
        Err(reason) => Fate::Drop(reason),
    }
}

/// Numbers, seals and sends the burst, and leaves it empty.
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
    for (mut packet, departure) in departures.drain() {
        match departure.fate {
            Fate::Protect => {
                sealed += 1;
                bytes += u64::from(departure.inner_len);
                if let Some(sa) = departure.sa {
                    encapsulate::checksum(&mut packet, departure.layout, sa);
                }
                io.route(packet, departure.outer_dst, tables, reader);
            }
            Fate::Clear => forward::clear(packet, departure.header, tables, reader, io),
            Fate::Pieces => io.free(packet),
            Fate::Drop(reason) => io.drop(packet, reason),
            Fate::Refuse(problem, reason) => io.refuse(packet, problem, reason),
        }
    }
    io.counters().sealed.add(sealed);
    io.counters().sealed_bytes.add(bytes);
    io.mark(Stage::Route);
}

/// Counts packets against the lifetimes of their SAs, and gives each that is within them its sequence number: one
/// operation for a run of packets of one SA.
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
    let mut within = 0;
    for d in run.iter_mut().filter(|d| d.fate == Fate::Protect) {
        let tell = |due| io.tell(Event::Due { tunnel, inbound: false, due });
        if sa.life.charge(usize::from(d.inner_len), tell) {
            within += 1;
        } else {
            d.fate = Fate::Drop(DropReason::SaExpired);
        }
    }
    let first = sa.take_sequence(within);
    let protected = packets.iter_mut().zip(run).filter(|(_, d)| d.fate == Fate::Protect);
    for ((packet, d), seq) in protected.zip(first..) {
        d.seq = seq;
        if seq <= sa.last_sequence() {
            encapsulate::number(packet, d.layout, sa, seq);
            continue;
        }
        sa.life.once(Due::Sequence, |due| io.tell(Event::Due { tunnel, inbound: false, due }));
        d.fate = Fate::Drop(DropReason::SequenceExhausted);
    }
}
