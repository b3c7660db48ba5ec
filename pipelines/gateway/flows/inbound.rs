//! ESP packets of known SAs: opens and checks them, and forwards the inner ones.

mod forward;
mod inner;
mod note;

use super::{
    super::{
        admission::charge,
        departure::Departures,
        inbound::{self, Arrival, Numbered, Tally},
        io::Io,
        outbound,
        profile::Stage,
        tables::Tables,
    },
    key::{InnerKey, v6_destination, v6_ends},
    memory::{Memory, Missed},
    order::Rest,
};
pub(super) use note::{Known, Note};

use forward::{forward, forward_v6};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::{BURST, Packet},
    prefetch,
    sa::InboundSa,
    table::Reader,
    wire::{esp, ethernet, ip::IpHeader},
};

/// Opens the packets of known SAs and carries those that are plain inside all the way. Leaves the packets
/// of unknown SAs in `rest`. Inner headers of packets that take the rest of the whole way are read into
/// `headers`.
#[inline(never)]
pub(super) fn run<'r>(
    memory: &mut Memory,
    arriving: &mut Known<'r>,
    rest: &mut Rest,
    headers: &'r mut [IpHeader; BURST],
    tables: &'r Tables,
    reader: &'r Reader,
    io: &mut Io,
) {
    look_up(memory, arriving, tables, reader, io);
    check(arriving);
    io.mark(Stage::LookUp);
    inbound::open(arriving);
    io.mark(Stage::Open);
    look_inside(memory, arriving, io);
    find_exits(memory, arriving, tables, reader, io);
    let mut departures = Departures::default();
    send(arriving, rest, headers, &mut departures, tables, reader, io);
    io.mark(Stage::Decapsulate);
    outbound::run(&mut departures, tables, reader, io);
}

// Each pass is a function of its own, so that a profile shows what it costs.

/// Finds the SAs.
#[inline(never)]
fn look_up<'r>(
    memory: &mut Memory,
    arriving: &mut Known<'r>,
    tables: &'r Tables,
    reader: &'r Reader,
    io: &Io,
) {
    for (packet, note) in arriving.iter_mut() {
        let dst = (!note.key.is_ipv4()).then(|| v6_destination(&v6_ends(packet.data())));
        match memory.inbound.find(note.slot, note.key, dst.as_ref(), reader) {
            Some(entry) => {
                if note.key.is_ipv4() && (entry.from != note.from() || entry.tag == 0) {
                    // The tag is only a number of the path, authentic or not.
                    (entry.from, entry.tag) = (note.from(), note.path(packet.data()).tag());
                }
                note.tag = entry.tag;
                note.sa = entry.sa.get(&tables.inbound, reader);
            }
            None => memory.miss(Missed::Inbound(note.key, dst.unwrap_or_default()), io),
        }
        if let Some(sa) = note.sa {
            prefetch::whole(sa);
        }
    }
}

/// Checks the lengths of packets, and finds their numbers.
#[inline(never)]
fn check(arriving: &mut Known<'_>) {
    for note in arriving.columns().1 {
        let Some(sa) = note.sa else { continue };
        let length = usize::from(note.end - note.esp.at);
        if length < esp::HEADER + sa.overhead.iv() + esp::TRAILER + sa.overhead.icv() {
            note.fate = Err(DropReason::EspTruncated);
            continue;
        }
        let seq = if sa.esn { sa.window.infer(note.esp.seq) } else { note.esp.seq.into() };
        note.number = sa.window.slot(seq);
        sa.prefetch_parts(&note.number);
    }
}

/// Looks at the packets inside.
#[inline(never)]
fn look_inside(memory: &Memory, arriving: &mut Known<'_>, io: &Io) {
    for (packet, note) in arriving.iter_mut() {
        let Some((sa, _)) = note.authentic() else { continue };
        if note.newest {
            note.tell_path(sa, packet.data(), io);
        }
        note.look_inside(packet.data(), sa);
        if let Some(inner) = &note.inner {
            let (_, dst) = match inner.is_ipv4 {
                true => inner.v4_ends(),
                false => note.inner_v6_ends(packet.data(), sa),
            };
            note.inner_slot = memory.expect_inner(InnerKey(dst));
        }
    }
}

/// Makes the packets inside ready to leave, if they are for the short way.
#[inline(never)]
fn find_exits(memory: &mut Memory, arriving: &mut Known<'_>, tables: &Tables, reader: &Reader, io: &Io) {
    for (packet, note) in arriving.iter_mut() {
        let (Some(sa), Some(inner)) = (note.sa, &note.inner) else { continue };
        let (what, at) = ((sa, inner), (tables, reader));
        note.exit = match inner.is_ipv4 {
            true => forward(memory, packet, note, what, inner.v4_ends(), at, io),
            false => forward_v6(memory, packet, note, what, at, io),
        };
    }
}

/// Packets that were opened and let in.
#[derive(Default)]
struct Opened<'r> {
    tally: Tally<'r>,
    packets: u64,
    bytes: u64,
}

impl<'r> Opened<'r> {
    #[inline(always)]
    fn add(&mut self, sa: &'r InboundSa, length: u64) {
        self.packets += 1;
        self.bytes += length;
        self.tally.add(sa, length);
    }

    /// Counts a packet that takes the short way against the lifetime of its SA.
    ///
    /// # Errors
    /// `SaExpired`.
    #[inline(always)]
    fn charge(&mut self, note: &Note<'r>, io: &Io) -> Result<(), DropReason> {
        let (Some(sa), Some(inner)) = (note.sa, &note.inner) else { return Ok(()) };
        charge(sa, inner.length.into(), io)?;
        self.add(sa, inner.length.into());
        Ok(())
    }
}

/// Counts and sends the packets that take the short way, drops those that are to be dropped, and takes the
/// others the rest of the whole way, all in their order, since an SA may expire between two. Leaves those of
/// unknown SAs in `rest`.
#[inline(never)]
fn send<'r>(
    arriving: &mut Known<'r>,
    rest: &mut Rest,
    headers: &'r mut [IpHeader; BURST],
    departures: &mut Departures<'r>,
    tables: &'r Tables,
    reader: &'r Reader,
    io: &mut Io,
) {
    let (mut opened, mut others) = (Opened::default(), 0);
    let notes = arriving.columns().1;
    let exit = notes.first().and_then(|note| note.exit);
    let are_alike = exit.is_some() && notes.iter().all(|note| note.exit == exit);
    let mut all_leave = are_alike;
    if are_alike {
        for note in notes {
            note.fate = opened.charge(note, io);
            all_leave &= note.fate.is_ok();
        }
    }
    match exit {
        Some(port) if all_leave => io.send_all(arriving.take_packets(), port),
        _ => {
            for ((packet, note), header) in arriving.finish().zip(headers) {
                match (note.sa, note.exit) {
                    (None, _) => rest.push(packet, note.place),
                    (Some(_), Some(port)) => {
                        let fate = if are_alike { note.fate } else { opened.charge(note, io) };
                        match fate {
                            Ok(()) => io.send(packet, port),
                            Err(reason) => io.drop(packet, reason),
                        }
                    }
                    (Some(sa), None) => {
                        let length = whole_way(packet, note, header, departures, tables, reader, io);
                        if let Some(length) = length {
                            others += 1;
                            opened.add(sa, length);
                        }
                    }
                }
            }
        }
    }
    opened.tally.flush();
    let counters = io.counters();
    counters.flow_hits.add(opened.packets - others);
    counters.opened.add(opened.packets);
    counters.opened_bytes.add(opened.bytes);
}

/// Takes an opened packet the rest of the whole way. Returns its inner length in bytes if it was accepted.
#[cold]
#[inline(never)]
fn whole_way<'r>(
    mut packet: Packet,
    note: &Note<'r>,
    header: &'r mut IpHeader,
    departures: &mut Departures<'r>,
    tables: &'r Tables,
    reader: &'r Reader,
    io: &mut Io,
) -> Option<u64> {
    let is_cut = packet.set_len(note.end.into()).and_then(|()| packet.pull_front(ethernet::HEADER));
    let (Some(()), Ok(outer), Some(sa)) = (is_cut, IpHeader::parse(packet.data()), note.sa) else {
        io.drop(packet, DropReason::IpTruncated);
        return None;
    };
    let esp_at = note.esp.at - ethernet::HEADER as u16;
    let arrival = Arrival::opened(&outer, esp_at, sa, note.fate);
    inbound::conclude(packet, &arrival, header, departures, tables, reader, io)
}
