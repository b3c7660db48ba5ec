//! ESP packets of known SAs: opens and checks them, and forwards the inner ones.

mod inner;

use super::{
    super::{
        admission::charge,
        batch::Batch,
        decapsulate::{name_payload, renew_checksum},
        departure::Departures,
        encapsulate::KeptHeader,
        inbound::{self, Arrival, Numbered, Tally},
        io::Io,
        outbound,
        profile::Stage,
        rings::Event,
        tables::Tables,
    },
    entry::{Exit, InboundEntry, InnerEntry, InnerExit},
    key::{InboundKey, InnerKey, V6Destination, split_ports, v6_addresses, v6_destination, v6_ends},
    memory::{Memory, Missed},
    order::Rest,
    plain::{EspPlace, Shape},
};
use inner::{Inner, Outer, look_inside};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::{BURST, Packet},
    prefetch,
    sa::{Encap, InboundSa, Mode, Path},
    table::Reader,
    window::{self, Newest},
    wire::{
        Address, esp,
        ethernet::{self, Ethernet},
        ip::{self, IpHeader},
    },
};

/// A note on a plain ESP packet. The packet's data is its frame.
#[derive(Debug)]
pub(super) struct Note<'r> {
    key: InboundKey,
    sa: Option<&'r InboundSa>,
    /// The slot of the full sequence number, which is authentic only after the packet was opened.
    number: window::Slot,
    /// The tag of the path that the packet came by, if that is IPv4.
    tag: u64,
    /// The packet inside, if that is plain.
    inner: Option<Inner>,
    /// The outer source as in the packet, the first byte lowest, if that is IPv4.
    src: u32,
    slot: u32,
    esp: EspPlace,
    /// The offset of the end of the packet in its frame.
    end: u16,
    traffic_class: u8,
    /// The packet's place in its burst.
    place: u8,
    /// `true` if the number was the highest so far.
    newest: bool,
    /// The reason for a drop, if the packet is to be dropped.
    fate: Result<(), DropReason>,
}

/// Plain ESP packets, most of them of known SAs.
pub(super) type Known<'r> = Batch<Note<'r>>;

impl<'r> Note<'r> {
    /// Notes an ESP packet of this shape. The lower half of `addresses` is the source as in the packet, if
    /// that is IPv4.
    #[inline(always)]
    pub(super) fn new(
        addresses: u64,
        shape: Shape,
        key: InboundKey,
        slot: u32,
        esp: EspPlace,
        place: u8,
    ) -> Self {
        Self {
            key,
            sa: None,
            number: window::Slot::default(),
            tag: 0,
            inner: None,
            src: addresses as u32,
            slot,
            esp,
            end: ethernet::HEADER as u16 + shape.total_len,
            traffic_class: shape.traffic_class,
            place,
            newest: false,
            fate: Ok(()),
        }
    }

    /// Returns the offset of the ESP payload in the frame: of the packet inside in tunnel mode.
    #[inline(always)]
    fn payload_at(&self, sa: &InboundSa) -> usize {
        usize::from(self.esp.at) + esp::HEADER + sa.overhead.iv()
    }

    /// Returns source address and UDP ports as one number, if the packet is IPv4.
    #[inline(always)]
    fn from(&self) -> u64 {
        u64::from(self.src) | u64::from(self.esp.udp_ports) << 32
    }

    /// Returns the packet inside, now that this one is opened. `frame` is its frame.
    #[inline(always)]
    fn look_inside(&self, frame: &[u8], sa: &InboundSa) -> Option<Inner> {
        let payload = (self.payload_at(sa), usize::from(self.end));
        let (traffic_class, is_ipv4) = (self.traffic_class, self.key.is_ipv4());
        let outer = Outer { payload, traffic_class, is_ipv4, ends: || self.ends(frame) };
        look_inside(frame, outer, sa)
    }

    /// Returns outer source and destination. `frame` is the packet's.
    fn ends(&self, frame: &[u8]) -> (Address, Address) {
        match self.key.is_ipv4() {
            true => (Address::v4(self.src.swap_bytes()), self.key.dst(&V6Destination::default())),
            false => v6_addresses(&v6_ends(frame)),
        }
    }

    /// Returns the encapsulation of the packet.
    fn encap(&self) -> Encap {
        match self.esp.udp_ports {
            0 => Encap::None,
            ports => {
                let (remote, local) = split_ports(ports);
                Encap::Udp { local, remote }
            }
        }
    }

    /// Returns the path that the packet came by. `frame` is the packet's.
    #[cold]
    fn path(&self, frame: &[u8]) -> Path {
        let (src, dst) = self.ends(frame);
        Path { local: dst.into(), remote: src.into(), encap: self.encap() }
    }

    /// Tells `sa` where its newest packet came from. `frame` is the packet's.
    #[inline(always)]
    fn tell_path(&self, sa: &InboundSa, frame: &[u8], io: &Io) {
        let tunnel = sa.tunnel;
        let report = |path| io.tell(Event::NewPath { tunnel, path });
        match self.key.is_ipv4() {
            true => sa.seen_on(self.tag, || self.path(frame), report),
            false => {
                let (src, dst) = v6_addresses(&v6_ends(frame));
                sa.seen_from(src, dst, self.encap(), report);
            }
        }
    }
}

impl<'r> Numbered<'r> for Note<'r> {
    #[inline(always)]
    fn authentic(&self) -> Option<(&'r InboundSa, &window::Slot)> {
        self.sa.filter(|_| self.fate.is_ok()).map(|sa| (sa, &self.number))
    }

    #[inline(always)]
    fn esp_in<'p>(&self, packet: &'p mut Packet) -> Option<&'p mut [u8]> {
        packet.data_mut().get_mut(usize::from(self.esp.at)..usize::from(self.end))
    }

    #[inline(always)]
    fn refuse(&mut self, reason: DropReason) {
        self.fate = Err(reason);
    }

    #[inline(always)]
    fn set_newest(&mut self, newest: Newest) {
        self.newest = newest;
    }
}

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
    for (packet, note) in arriving.iter_mut() {
        let dst = (!note.key.is_ipv4()).then(|| v6_destination(&v6_ends(packet.data())));
        let renew = |entry: &mut InboundEntry, _: &V6Destination| entry.sa.renew(reader);
        match memory.inbound.find(note.slot, note.key, dst.as_ref(), reader, renew) {
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
    for (_, note) in arriving.iter_mut() {
        if let Some(sa) = note.sa {
            check(note, sa);
        }
    }
    io.mark(Stage::LookUp);
    inbound::open(arriving);
    io.mark(Stage::Open);
    inbound::accept(arriving.columns().1);
    for (packet, note) in arriving.iter_mut() {
        let Some((sa, _)) = note.authentic() else { continue };
        if note.newest {
            note.tell_path(sa, packet.data(), io);
        }
        note.inner = note.look_inside(packet.data(), sa);
        if let Some(inner) = &mut note.inner {
            inner.slot = memory.expect_inner(InnerKey(inner.dst));
        }
    }
    finish(memory, arriving, rest, headers, tables, reader, io);
}

/// Checks the length of a packet, and finds its number.
#[inline(always)]
fn check(note: &mut Note<'_>, sa: &InboundSa) {
    let length = usize::from(note.end - note.esp.at);
    if length < esp::HEADER + sa.overhead.iv() + esp::TRAILER + sa.overhead.icv() {
        note.fate = Err(DropReason::EspTruncated);
        return;
    }
    let seq = if sa.esn { sa.window.infer(note.esp.seq) } else { note.esp.seq.into() };
    note.number = sa.window.slot(seq);
    sa.prefetch_parts(&note.number);
}

/// Forwards or drops all packets.
#[inline(always)]
fn finish<'r>(
    memory: &mut Memory,
    arriving: &mut Known<'r>,
    rest: &mut Rest,
    headers: &'r mut [IpHeader; BURST],
    tables: &'r Tables,
    reader: &'r Reader,
    io: &mut Io,
) {
    let (mut hits, mut opened, mut bytes) = (0, 0, 0);
    let mut tally = Tally::default();
    let mut departures = Departures::default();
    for ((mut packet, note), header) in arriving.finish().zip(headers) {
        let Some(sa) = note.sa else {
            rest.push(packet, note.place);
            continue;
        };
        match forward(memory, &mut packet, note, sa, tables, reader, io) {
            Some((port, length)) => {
                if let Err(reason) = charge(sa, length, io) {
                    io.drop(packet, reason);
                    continue;
                }
                hits += 1;
                opened += 1;
                bytes += length as u64;
                tally.add(sa, length as u64);
                io.send(packet, port);
            }
            None => {
                let length = whole_way(packet, note, header, &mut departures, tables, reader, io);
                if let Some(length) = length {
                    opened += 1;
                    bytes += length;
                    tally.add(sa, length);
                }
            }
        }
    }
    tally.flush();
    io.counters().flow_hits.add(hits);
    io.counters().opened.add(opened);
    io.counters().opened_bytes.add(bytes);
    io.mark(Stage::Decapsulate);
    outbound::run(&mut departures, tables, reader, io);
}

/// Makes the inner packet of `packet` ready to leave, and returns where and its length in bytes. Returns
/// `None` and changes nothing if it is not for the short way.
#[inline(always)]
fn forward(
    memory: &mut Memory,
    packet: &mut Packet,
    note: &Note<'_>,
    sa: &InboundSa,
    tables: &Tables,
    reader: &Reader,
    io: &Io,
) -> Option<(u16, usize)> {
    note.fate.ok()?;
    let inner = note.inner.as_ref()?;
    let key = InnerKey(inner.dst);
    let renew = |entry: &mut InnerEntry, _: &()| entry.stamp.renew(reader);
    let Some(entry) = memory.inner.find(inner.slot, key, None, reader, renew) else {
        memory.miss(Missed::Inner(key), io);
        return None;
    };
    let exit = entry.exit?;
    sa.selector_of(&inner.flow())?;
    match (exit, sa.mode) {
        (InnerExit::Station(exit), Mode::Tunnel) => to_station(packet, note, inner, sa, exit, tables),
        (InnerExit::Station(_), Mode::Transport) => None,
        (InnerExit::Host, _) => to_host(packet, note, inner, sa, tables),
    }
}

/// Does the same for a packet that is forwarded.
#[inline(always)]
fn to_station(
    packet: &mut Packet,
    note: &Note<'_>,
    inner: &Inner,
    sa: &InboundSa,
    exit: Exit,
    tables: &Tables,
) -> Option<(u16, usize)> {
    let (port, length) = (&tables.settings.ports[usize::from(exit.port)], usize::from(inner.length));
    if !inner.src.is_routable() || length > port.mtu() {
        return None;
    }
    // In front of the packet there is room for its Ethernet header, since ESP was there.
    let headroom = packet.headroom() + note.payload_at(sa) - ethernet::HEADER;
    packet.reshape(headroom, ethernet::HEADER + length)?;
    let (head, ip) = packet.data_mut().split_first_chunk_mut::<{ ethernet::HEADER }>()?;
    Ethernet { dst: exit.mac, src: port.mac.get(), ethertype: inner.ethertype() }.emit(head);
    match inner.is_ipv4 {
        true => ip::decrement_ttl(ip.first_chunk_mut()?),
        false => ip::decrement_hop_limit(ip),
    }
    Some((exit.port, length))
}

/// Does the same for a packet to the host's own stack, which is no hop.
#[inline(never)]
fn to_host(
    packet: &mut Packet,
    note: &Note<'_>,
    inner: &Inner,
    sa: &InboundSa,
    tables: &Tables,
) -> Option<(u16, usize)> {
    // Packets from the host must not go back to it.
    let host = tables.settings.host.as_ref().filter(|host| host.port != packet.port())?;
    let KeptHeader { length: header_len, protocol_at, protocol } =
        KeptHeader::plain(inner.is_ipv4, inner.protocol);
    let (payload_at, length) = (note.payload_at(sa), usize::from(inner.length));
    let start = match sa.mode {
        Mode::Tunnel => payload_at,
        Mode::Transport => {
            packet
                .data_mut()
                .copy_within(ethernet::HEADER..ethernet::HEADER + header_len, payload_at - header_len);
            payload_at - header_len
        }
    };
    // It becomes shorter.
    packet.reshape(packet.headroom() + start - ethernet::HEADER, ethernet::HEADER + length)?;
    let (head, ip) = packet.data_mut().split_first_chunk_mut::<{ ethernet::HEADER }>()?;
    if sa.mode == Mode::Transport {
        name_payload(ip, header_len, protocol_at, protocol);
        if note.esp.udp_ports != 0 {
            renew_checksum(ip, header_len, protocol, (inner.src, inner.dst));
        }
    }
    let src = tables.settings.ports[usize::from(host.port)].mac.get();
    Ethernet { dst: host.mac.get(), src, ethertype: inner.ethertype() }.emit(head);
    Some((host.port, length))
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
