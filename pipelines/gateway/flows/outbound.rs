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
    entry::{Exit, OutboundEntry},
    key::{OutboundKey, V6Ends, v6_ends},
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
    endpoint: Option<&'r Endpoint>,
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

    /// Returns the SA that the packet goes through, and the endpoint, unless it is dropped.
    #[inline(always)]
    fn way(&self) -> Option<(&'r OutboundSa, &'r Endpoint)> {
        self.fate.ok()?;
        Some((self.sa?, self.endpoint?))
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
    for (packet, note) in departing.iter_mut() {
        let renew = |entry: &mut OutboundEntry, ends: &V6Ends| entry.renew(ends, tables, reader);
        let ends = (!note.key.is_ipv4()).then(|| v6_ends(packet.data()));
        match memory.outbound.find(note.slot, note.key, ends.as_ref(), reader, renew) {
            Some(entry) => {
                note.exit = entry.exit;
                note.sa = entry.sa.get(&tables.policies, reader).filter(|_| !entry.exit.is_none());
            }
            None => memory.miss(Missed::Outbound(note.key, ends.unwrap_or_default()), io),
        }
        if let Some(sa) = note.sa {
            prefetch::whole(sa);
        }
    }
    io.mark(Stage::Policy);
    for (_, note) in departing.iter_mut() {
        if let Some(sa) = note.sa {
            sa.prefetch_parts();
        }
    }
    let mut held = HeldFlows::default();
    for (_, note) in departing.iter_mut() {
        let Some(sa) = note.sa else { continue };
        note.endpoint = sa.endpoint(reader);
        let fits = |endpoint: &Endpoint| note.length() <= payload_limit(sa, endpoint, note.key.header_len());
        if !note.endpoint.is_some_and(fits) || held.has(&note.key) {
            // It is cut, or its sender told.
            note.sa = None;
            held.hold(note.key);
        }
    }
    if reader.has_news() {
        follow_moves(departing, tables, reader);
    }
    let mut is_shared = false;
    for (_, note) in departing.iter_mut() {
        let Some(sa) = note.sa else { continue };
        is_shared |= sa.is_shared();
        if !sa.is_shared() {
            number(std::slice::from_mut(note), sa, io);
        }
    }
    if is_shared {
        number_shared(departing.columns().1, io);
    }
    io.mark(Stage::Number);
    crypto::seal_burst(departing.iter_mut().filter_map(|(packet, note)| {
        let (sa, endpoint) = note.way()?;
        let own = tables.settings.ports[usize::from(note.exit.port)].mac.get();
        let esp = match sa.mode {
            Mode::Tunnel => encapsulate(packet, note, sa, endpoint, own),
            Mode::Transport => encapsulate_payload(packet, note, sa, endpoint, own),
        };
        match esp {
            Some(esp) => Some(SealJob { key: &sa.key, seq: note.seq, iv: sa.iv(note.seq), esn: sa.esn, esp }),
            None => {
                note.fate = Err(DropReason::NoHeadroom);
                None
            }
        }
    }));
    io.mark(Stage::Seal);
    let (mut sealed, mut bytes) = (0, 0);
    for (mut packet, note) in departing.finish() {
        match (note.sa, note.fate) {
            (None, _) => rest.push(packet, note.place),
            (Some(sa), Ok(())) => {
                sealed += 1;
                bytes += u64::from(note.shape.total_len);
                if note.has_checksum {
                    checksum(&mut packet, sa, note.exit, tables);
                }
                io.send(packet, note.exit.port);
            }
            (Some(_), Err(reason)) => io.drop(packet, reason),
        }
    }
    let counters = io.counters();
    counters.flow_hits.add(sealed);
    counters.sealed.add(sealed);
    counters.sealed_bytes.add(bytes);
    io.mark(Stage::Route);
}

/// Finds the exits of packets again. An endpoint may be a new one, which the remembered exit is not for.
#[cold]
#[inline(never)]
fn follow_moves(departing: &mut Known<'_>, tables: &Tables, reader: &Reader) {
    let mut held = HeldFlows::default();
    for (packet, note) in departing.iter_mut() {
        let (Some(sa), Some(endpoint)) = (note.sa, note.endpoint) else { continue };
        let dst = note.key.dst(&v6_ends(packet.data()));
        note.exit = Exit::of_sealed(sa, endpoint, dst, tables, reader);
        if note.exit.is_none() || held.has(&note.key) {
            note.sa = None;
            held.hold(note.key);
        }
    }
}

/// Numbers the packets of SAs that several workers use, by one operation for each run of packets of one
/// SA.
#[inline(never)]
fn number_shared(notes: &mut [Note<'_>], io: &mut Io) {
    for run in notes.chunk_by_mut(|a, b| same(a.sa, b.sa)) {
        if let Some(sa) = run[0].sa.filter(|sa| sa.is_shared()) {
            number(run, sa, io);
        }
    }
}

/// Counts a run of packets against the lifetime of their SA, and numbers those within it.
#[inline(always)]
fn number(run: &mut [Note<'_>], sa: &OutboundSa, io: &mut Io) {
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
    let esp_at = ethernet::HEADER + endpoint.outer_len();
    let head = esp_at + esp::HEADER + sa.overhead.iv();
    let tail = esp::padding(length, sa.overhead.align()) + esp::TRAILER;
    let headroom = (packet.headroom() + ethernet::HEADER).checked_sub(head)?;
    packet.reshape(headroom, head + length + tail + sa.overhead.icv())?;
    let frame = packet.data_mut();
    let (head, inner) = frame.split_at_mut_checked(head)?;
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
    let ethertype = match endpoint.is_ipv4() {
        true => ethernet::IPV4,
        false => {
            note.has_checksum = endpoint.has_udp();
            ethernet::IPV6
        }
    };
    Ethernet { dst: note.exit.mac, src: own, ethertype }.emit(head);
    emit_outer(
        &mut frame[ethernet::HEADER..],
        note.shape.traffic_class,
        note.shape.dont_fragment,
        sa,
        endpoint,
        note.seq,
    );
    let esp = frame.get_mut(esp_at..)?;
    esp::emit_header(esp, sa.spi.0, note.seq);
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
    esp::emit_header(esp, sa.spi.0, note.seq);
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
