//! Numbers and seals encapsulated packets, and sends them.

use super::{
    departure::{Departure, Departures, Fate},
    encapsulate::{self, whole_limit},
    forward,
    fragment::fragment_outer,
    io::Io,
    profile::Stage,
    rings::Event,
    tables::{Hop, Tables},
};
use wayfarer_dataplane::{
    crypto::{self, SealJob},
    drop::DropReason,
    packet::Packet,
    sa::{Due, OutboundSa},
    table::Reader,
    wire::{Address, icmp::Problem},
};

/// Numbers, seals and sends the burst, which is empty afterwards.
pub(super) fn seal(departures: &mut Departures<'_>, tables: &Tables, reader: &Reader, io: &mut Io) {
    if departures.is_empty() {
        return;
    }
    protect(departures, io);
    send(departures, tables, reader, io, |io, mut packet, departure, hop, dst| {
        if let Some(sa) = departure.sa {
            encapsulate::checksum(&mut packet, departure.layout, sa, || tables.fills_checksums(hop));
        }
        io.route_by(hop, packet, dst, tables);
    });
}

/// Does the same, and sends each sealed packet in fragments that fit its path.
#[cold]
pub(super) fn seal_and_cut(departures: &mut Departures<'_>, tables: &Tables, reader: &Reader, io: &mut Io) {
    protect(departures, io);
    send(departures, tables, reader, io, |io, mut packet, departure, hop, dst| {
        match send_pieces(&mut packet, departure, hop, dst, tables, io) {
            Ok(()) => io.free(packet),
            Err(reason) => io.drop(packet, reason),
        }
    });
}

/// Numbers and seals one packet in the worker's room, and sends it in fragments that fit its path. Gives
/// the room back.
///
/// # Errors
/// The reason why the packet, or the rest of it, is dropped.
#[cold]
pub(super) fn seal_in_room(
    packet: Packet,
    departure: Departure<'_>,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
) -> Result<(), DropReason> {
    let mut departures = Departures::default();
    departures.push(packet, departure);
    protect(&mut departures, io);
    let Some((mut packet, departure)) = departures.drain().next() else { return Ok(()) };
    let done = match departure.fate {
        Fate::Drop(reason) => Err(reason),
        _ => {
            io.counters().sealed.add(1);
            io.counters().sealed_bytes.add(departure.inner_len.into());
            let dst = departure.outer_dst();
            let hop = tables.routes.find(dst, reader).copied();
            send_pieces(&mut packet, &departure, hop, dst, tables, io)
        }
    };
    io.give_room(packet);
    done
}

/// Sends a sealed packet in fragments that fit its path.
fn send_pieces(
    packet: &mut Packet,
    departure: &Departure<'_>,
    hop: Option<Hop>,
    dst: Address,
    tables: &Tables,
    io: &mut Io,
) -> Result<(), DropReason> {
    let (sa, endpoint) = departure.way().ok_or(DropReason::NoEndpoint)?;
    encapsulate::checksum(packet, departure.layout, sa, || false);
    let id = sa.identification(departure.seq);
    fragment_outer(packet, endpoint.mtu(), id, io, |io, piece| io.route_by(hop, piece, dst, tables))
}

/// Numbers and seals the packets that an SA protects.
#[inline]
fn protect(departures: &mut Departures<'_>, io: &mut Io) {
    io.mark(Stage::Encapsulate);
    number(departures, io);
    io.mark(Stage::Number);
    crypto::seal_burst(departures.iter_mut().filter_map(|(packet, departure)| {
        let Departure { sa: Some(sa), layout, seq, fate: Fate::Protect, .. } = *departure else {
            return None;
        };
        let esp = &mut packet.data_mut()[layout.esp_at()..];
        Some(SealJob { key: &sa.key, seq, iv: sa.iv(seq), esn: sa.esn, esp })
    }));
    io.mark(Stage::Seal);
}

/// Sends or drops all packets. `emit` sends a sealed one by its hop to its outer destination.
#[inline]
fn send<'r>(
    departures: &mut Departures<'r>,
    tables: &Tables,
    reader: &Reader,
    io: &mut Io,
    emit: impl Fn(&mut Io, Packet, &Departure<'r>, Option<Hop>, Address),
) {
    let (mut sealed, mut bytes) = (0, 0);
    let mut way: Option<(Address, Option<&Hop>)> = None;
    for (packet, departure) in departures.drain() {
        match departure.fate {
            Fate::Protect => {
                sealed += 1;
                bytes += u64::from(departure.inner_len);
                let outer_dst = departure.outer_dst();
                let (_, hop) = match way {
                    Some(last) if last.0 == outer_dst => last,
                    _ => *way.insert((outer_dst, tables.routes.find(outer_dst, reader))),
                };
                emit(io, packet, &departure, hop.copied(), outer_dst);
            }
            Fate::Clear => forward::clear(packet, departure.header, tables, reader, io),
            Fate::Expired => io.refuse(packet, Problem::TimeExceeded, DropReason::HopLimit),
            // Packets to be fragmented were replaced before this.
            Fate::TooBig | Fate::Pieces | Fate::OuterPieces => {
                let limit = departure.way().map_or(0, |(sa, to)| whole_limit(sa, to, departure.header));
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

/// Returns whether both are the same SA, or none.
#[inline]
pub(super) fn same(a: Option<&OutboundSa>, b: Option<&OutboundSa>) -> bool {
    a.map(std::ptr::from_ref) == b.map(std::ptr::from_ref)
}

#[inline]
fn number_run(packets: &mut [Packet], run: &mut [Departure<'_>], sa: &OutboundSa, io: &mut Io) {
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
        d.fate = Fate::Drop(exhausted(sa, io));
    }
}

/// Tells the slow path that the numbers of `sa` have run out. Returns the reason for the packet's drop.
#[cold]
pub(super) fn exhausted(sa: &OutboundSa, io: &Io) -> DropReason {
    let tunnel = sa.tunnel;
    sa.life.once(Due::Sequence, |due| io.tell(Event::Due { tunnel, inbound: false, due }));
    DropReason::SequenceExhausted
}

/// Counts one packet, whose inner length is `length` bytes, against the limits of `sa`.
///
/// # Errors
/// `SaExpired`.
pub(super) fn charge_one(sa: &OutboundSa, length: u16, io: &Io) -> Result<(), DropReason> {
    let tunnel = sa.tunnel;
    let tell = |due| io.tell(Event::Due { tunnel, inbound: false, due });
    if sa.life.charge(length.into(), tell) { Ok(()) } else { Err(DropReason::SaExpired) }
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
    let mut within = 0;
    for d in run.iter_mut().filter(|d| d.fate == Fate::Protect) {
        match charge_one(sa, d.inner_len, io) {
            Ok(()) => within += 1,
            Err(reason) => d.fate = Fate::Drop(reason),
        }
    }
    within
}
