//! Packets of known flows from this side: numbers, seals and sends them.

use super::{
    super::{
        batch::Batch,
        encapsulate::{self, KeptHeader, Layout, emit_lengths, emit_outer, payload_limit},
        io::Io,
        profile::Stage,
        seal::{charge_one, exhausted, same},
        tables::Tables,
    },
    entry::Exit,
    key::{OutboundKey, v6_ends},
    memory::{Memory, Missed},
    order::{HeldFlows, Rest},
    plain::Shape,
};
use wayfarer_dataplane::{
    crypto::{self, SealJob},
    drop::DropReason,
    packet::Packet,
    port::Mac,
    prefetch,
    sa::{Endpoint, Mode, OutboundSa},
    table::Reader,
    wire::{
        esp,
        ethernet::{self, Ethernet},
        ip::{self, protocol},
    },
};

/// A note on a plain packet from this side. The packet's data is its frame.
#[derive(Debug)]
pub(super) struct Note<'r> {
    key: OutboundKey,
    /// `None` if the flow is not known, or the packet is not for the short way.
    sa: Option<&'r OutboundSa>,
    endpoint: Option<&'r Option<Endpoint>>,
    seq: u64,
    exit: Exit,
    slot: u32,
    shape: Shape,
    /// `true` if the sealed packet is UDP over IPv6, which has a checksum.
    has_checksum: bool,
    /// The packet's place in its burst.
    place: u8,
    /// The reason for a drop, if the packet is to be dropped.
    fate: Result<(), DropReason>,
}

const _: () = assert!(size_of::<Note<'_>>() == prefetch::LINE);

/// Plain packets from this side, most of them of known flows.
pub(super) type Known<'r> = Batch<Note<'r>>;

impl<'r> Note<'r> {
    #[inline(always)]
    pub(super) fn new(shape: Shape, key: OutboundKey, slot: u32, place: u8) -> Self {
        let (exit, has_checksum, fate) = (Exit::NONE, false, Ok(()));
        Self { key, sa: None, endpoint: None, seq: 0, exit, slot, shape, has_checksum, place, fate }
    }

    /// Returns the length of the packet in bytes.
    #[inline(always)]
    fn length(&self) -> usize {
        usize::from(self.shape.total_len)
    }

    #[inline(always)]
    fn endpoint(&self) -> Option<&'r Endpoint> {
        self.endpoint?.as_ref()
    }

    /// Returns the SA that the packet goes through, and the endpoint, unless it is dropped.
    #[inline(always)]
    fn way(&self) -> Option<(&'r OutboundSa, &'r Endpoint)> {
        self.fate.ok()?;
        Some((self.sa?, self.endpoint()?))
    }
}

/// Carries the packets of known flows all the way, and leaves the others in `rest`.
#[inline(never)]
pub(super) fn run<'r>(
    memory: &mut Memory,
    departing: &mut Known<'r>,
    rest: &mut Rest,
    tables: &'r Tables,
    reader: &'r Reader,
    io: &mut Io,
) {
    decide(memory, departing, tables, reader, io);
    io.mark(Stage::Policy);
    prepare(memory, departing, tables, reader);
    number(departing, io);
    io.mark(Stage::Number);
    let sealed = seal(departing, tables);
    io.mark(Stage::Seal);
    match sealed.exit {
        Some(port) if sealed.packets == departing.columns().0.len() as u64 => {
            io.send_all(departing.take_packets(), port);
        }
        _ => send(departing, rest, tables, io),
    }
    let counters = io.counters();
    counters.flow_hits.add(sealed.packets);
    counters.sealed.add(sealed.packets);
    counters.sealed_bytes.add(sealed.bytes);
    io.mark(Stage::Route);
}

// Each pass is a function of its own, so that a profile shows what it costs.

/// Finds what is remembered of the flows.
#[inline(never)]
fn decide<'r>(
    memory: &mut Memory,
    departing: &mut Known<'r>,
    tables: &'r Tables,
    reader: &'r Reader,
    io: &Io,
) {
    for (packet, note) in departing.iter_mut() {
        let ends = (!note.key.is_ipv4()).then(|| v6_ends(packet.data()));
        match memory.outbound.find(note.slot, note.key, ends.as_ref(), reader) {
            Some(entry) => {
                note.exit = entry.exit;
                if !entry.exit.is_none() {
                    note.sa = entry.sa.get(&tables.policies, reader);
                }
            }
            None => memory.miss(Missed::Outbound(note.key, ends.unwrap_or_default()), io),
        }
        if let Some(sa) = note.sa {
            prefetch::whole(sa);
        }
    }
}

/// Finds the endpoints, and prefetches what sealing reads.
#[inline(never)]
fn prepare<'r>(memory: &Memory, departing: &mut Known<'r>, tables: &Tables, reader: &'r Reader) {
    for note in departing.columns().1 {
        if let Some(sa) = note.sa {
            note.endpoint = Some(sa.prefetch_parts(reader));
        }
    }
    // The news is asked for after the endpoints: whoever has a new one then knows of it.
    if reader.has_news() {
        follow_moves(memory, departing, tables, reader);
    }
}

/// Numbers the packets that fit their paths. The others, and those of the same flows behind them, lose their
/// SAs.
#[inline(never)]
fn number(departing: &mut Known<'_>, io: &Io) {
    let (mut held, mut is_shared) = (HeldFlows::default(), false);
    for note in departing.columns().1 {
        let Some(sa) = note.sa else { continue };
        let fits = |endpoint: &Endpoint| match sa.mode {
            Mode::Tunnel => note.length() <= endpoint.payload_limit(),
            Mode::Transport => note.length() <= payload_limit(sa, endpoint, note.key.header_len()),
        };
        if !note.endpoint().is_some_and(fits) || held.has(&note.key) {
            // It is cut, its sender told, or its next hop asked for.
            note.sa = None;
            held.hold(note.key);
        } else if sa.is_shared() {
            is_shared = true;
        } else {
            number_one(note, sa, io);
        }
    }
    if is_shared {
        number_shared(departing.columns().1, io);
    }
}

/// What was sealed.
struct Sealed {
    packets: u64,
    /// The sum of the lengths of the packets before they were sealed, in bytes.
    bytes: u64,
    /// The port by which all of them leave, if they are to leave as they are.
    exit: Option<u16>,
}

/// Makes packets ESP and seals them.
#[inline(never)]
fn seal(departing: &mut Known<'_>, tables: &Tables) -> Sealed {
    let first = departing.columns().1.first().map_or(Exit::NONE, |note| note.exit).port;
    let (mut packets, mut bytes, mut differences) = (0, 0, 0);
    crypto::seal_burst(departing.iter_mut().filter_map(|(packet, note)| {
        let (sa, endpoint) = note.way()?;
        let own = tables.settings.ports[usize::from(note.exit.port)].mac.get();
        let esp = match sa.mode {
            Mode::Tunnel => encapsulate(packet, note, sa, endpoint, own),
            Mode::Transport => encapsulate_payload(packet, note, sa, endpoint, own),
        };
        let Some(esp) = esp else {
            note.fate = Err(DropReason::NoHeadroom);
            return None;
        };
        packets += 1;
        bytes += u64::from(note.shape.total_len);
        differences |= (note.exit.port ^ first) | u16::from(note.has_checksum);
        Some(SealJob { key: &sa.key, seq: note.seq, iv: sa.iv(note.seq), esn: sa.esn, esp })
    }));
    Sealed { packets, bytes, exit: (differences == 0).then_some(first) }
}

/// Sends the sealed packets one by one, drops those that are to be dropped, and leaves the others in `rest`.
#[inline(never)]
fn send(departing: &mut Known<'_>, rest: &mut Rest, tables: &Tables, io: &mut Io) {
    for (mut packet, note) in departing.finish() {
        match (note.sa, note.fate) {
            (None, _) => rest.push(packet, note.place),
            (Some(sa), Ok(())) => {
                if note.has_checksum {
                    checksum(&mut packet, sa, note.exit, tables);
                }
                io.send(packet, note.exit.port);
            }
            (Some(_), Err(reason)) => io.drop(packet, reason),
        }
    }
}

/// Finds the exits of packets again whose endpoints may be new ones, which the remembered exits are not for. Those
/// without one lose their endpoints.
#[cold]
#[inline(never)]
fn follow_moves(memory: &Memory, departing: &mut Known<'_>, tables: &Tables, reader: &Reader) {
    for (packet, note) in departing.iter_mut() {
        // Nothing is learnt before the end of the burst.
        if memory.outbound.at(note.slot).is_some_and(|entry| !entry.sa.has_news(reader)) {
            continue;
        }
        if let (Some(sa), Some(endpoint)) = (note.sa, note.endpoint()) {
            let dst = note.key.dst(&v6_ends(packet.data()));
            note.exit = Exit::of_sealed(sa, endpoint, dst, tables, reader);
            note.endpoint = note.endpoint.filter(|_| !note.exit.is_none());
        }
    }
}

/// Numbers the packets of SAs that several workers use, by one operation for each run of packets of one
/// SA.
#[inline(never)]
fn number_shared(notes: &mut [Note<'_>], io: &Io) {
    for run in notes.chunk_by_mut(|a, b| same(a.sa, b.sa)) {
        if let Some(sa) = run[0].sa.filter(|sa| sa.is_shared()) {
            number_run(run, sa, io);
        }
    }
}

/// Counts a packet against the lifetime of its SA, which no other worker uses, and numbers it if it is
/// within.
#[inline(always)]
fn number_one(note: &mut Note<'_>, sa: &OutboundSa, io: &Io) {
    let length = note.shape.total_len;
    if !sa.life.charge_run(1, length.into())
        && let Err(reason) = charge_one(sa, length, io)
    {
        note.fate = Err(reason);
        return;
    }
    note.seq = sa.take_sequence(1);
    if note.seq > sa.last_sequence() {
        note.fate = Err(exhausted(sa, io));
    }
}

/// Counts a run of packets against the lifetime of their SA, and numbers those within it.
fn number_run(run: &mut [Note<'_>], sa: &OutboundSa, io: &Io) {
    let bytes = run.iter().map(|note| u64::from(note.shape.total_len)).sum();
    if !sa.life.charge_run(run.len() as u64, bytes) {
        run.iter_mut().for_each(|note| note.fate = charge_one(sa, note.shape.total_len, io));
    }
    let within = run.iter().filter(|note| note.fate.is_ok()).count();
    let first = sa.take_sequence(within as u64);
    for (note, seq) in run.iter_mut().filter(|note| note.fate.is_ok()).zip(first..) {
        note.seq = seq;
        if seq > sa.last_sequence() {
            note.fate = Err(exhausted(sa, io));
        }
    }
}

/// Makes the frame a numbered ESP packet in tunnel mode from the MAC address `own`, of which only the
/// cryptography and a UDP checksum are missing. Returns its ESP.
#[inline(always)]
fn encapsulate<'p>(
    packet: &'p mut Packet,
    note: &mut Note<'_>,
    sa: &OutboundSa,
    endpoint: &Endpoint,
    own: Mac,
) -> Option<&'p mut [u8]> {
    let length = note.length();
    let tail = esp::padding(length, sa.overhead.align()) + esp::TRAILER;
    packet.set_len(ethernet::HEADER + length + tail + sa.overhead.icv())?;
    let inner = packet.data_mut().get_mut(ethernet::HEADER..)?;
    let next_header = match note.key.is_ipv4() {
        true => {
            ip::decrement_ttl(inner.first_chunk_mut()?);
            protocol::IPV4
        }
        false => {
            ip::decrement_hop_limit(inner);
            protocol::IPV6
        }
    };
    let behind = inner.get_mut(length..)?;
    match behind.first_chunk_mut() {
        Some(space) if tail <= space.len() => esp::emit_short_trailer(space, tail, next_header),
        _ => esp::emit_trailer(behind.get_mut(..tail)?, next_header),
    }
    let outer_len = endpoint.outer_len();
    packet.push_front(outer_len + esp::HEADER + sa.overhead.iv())?;
    let (ethernet, outer) = packet.data_mut().split_first_chunk_mut::<{ ethernet::HEADER }>()?;
    let ethertype = match endpoint.is_ipv4() {
        true => ethernet::IPV4,
        false => {
            note.has_checksum = endpoint.has_udp();
            ethernet::IPV6
        }
    };
    Ethernet { dst: note.exit.mac, src: own, ethertype }.emit(ethernet);
    let Shape { traffic_class, dont_fragment, .. } = note.shape;
    emit_outer(outer, traffic_class, dont_fragment, sa, endpoint, note.seq);
    let esp = outer.get_mut(outer_len..)?;
    esp::emit_sequence(esp, note.seq);
    Some(esp)
}

/// Does the same in transport mode.
#[inline(never)]
fn encapsulate_payload<'p>(
    packet: &'p mut Packet,
    note: &mut Note<'_>,
    sa: &OutboundSa,
    endpoint: &Endpoint,
    own: Mac,
) -> Option<&'p mut [u8]> {
    let is_ipv4 = note.key.is_ipv4();
    packet.pull_front(ethernet::HEADER)?;
    // Without the padding of its frame.
    packet.set_len(note.length())?;
    let header = KeptHeader::plain(is_ipv4, note.key.protocol());
    let layout = encapsulate::transport(packet, header, sa, endpoint)?;
    emit_lengths(packet.data_mut(), layout);
    packet.push_front(ethernet::HEADER)?;
    note.has_checksum = !is_ipv4 && endpoint.has_udp();
    let frame = packet.data_mut();
    let ethertype = if is_ipv4 { ethernet::IPV4 } else { ethernet::IPV6 };
    Ethernet { dst: note.exit.mac, src: own, ethertype }.emit(frame);
    let esp = frame.get_mut(ethernet::HEADER + layout.esp_at()..)?;
    esp::emit_sequence(esp, note.seq);
    Some(esp)
}

/// Writes the UDP checksum of a sealed packet over IPv6, or leaves it to the port by which the packet leaves.
#[inline(never)]
fn checksum(packet: &mut Packet, sa: &OutboundSa, exit: Exit, tables: &Tables) {
    let port_fills = || tables.settings.ports[usize::from(exit.port)].fills_checksums;
    if packet.pull_front(ethernet::HEADER).is_some() {
        encapsulate::checksum(packet, Layout::UDP_OVER_V6, sa, port_fills);
        let is_whole = packet.push_front(ethernet::HEADER).is_some();
        debug_assert!(is_whole, "the header is still there");
    }
}
