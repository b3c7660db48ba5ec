//! ESP packets of known SAs: opens and checks them, and forwards the inner ones.

use super::{
    super::{
        admission::charge,
        batch::Batch,
        decapsulate::{self, decapsulated_class},
        departure::Departures,
        inbound::{self, Arrival, Numbered, Tally},
        io::Io,
        outbound,
        profile::Stage,
        rings::Event,
        tables::Tables,
    },
    entry::{InboundEntry, InboundKey, InnerEntry, InnerKey},
    memory::{Memory, Missed},
    order::Rest,
    plain::EspPlace,
};
use wayfarer_dataplane::{
    crypto::{self, OpenJob},
    drop::DropReason,
    packet::{BURST, Packet},
    prefetch,
    sa::{Encap, Flow, InboundSa, Path},
    table::Reader,
    window::{self, Newest, Replay},
    wire::{
        Address, esp,
        ethernet::{self, Ethernet},
        ip::{self, IpHeader, V4_HEADER, protocol},
        plain::PlainV4,
    },
};

/// A note on a plain ESP packet. The packet's data is its frame.
#[derive(Debug)]
pub(super) struct Note<'r> {
    key: InboundKey,
    sa: Option<&'r InboundSa>,
    /// The slot of the full sequence number, which is authentic only after the packet was opened.
    number: window::Slot,
    /// The tag of the path that the packet came by.
    tag: u64,
    /// The header of the packet inside.
    inner: PlainV4,
    /// Its ports, as [`PlainV4::ports`] gives them; `None` if it is not plain.
    inner_ports: Option<u32>,
    /// The slot of what is remembered of its destination.
    inner_slot: u32,
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
    #[inline(always)]
    pub(super) fn new(header: PlainV4, key: InboundKey, slot: u32, esp: EspPlace, place: u8) -> Self {
        Self {
            key,
            sa: None,
            number: window::Slot::default(),
            tag: 0,
            inner: header,
            inner_ports: None,
            inner_slot: 0,
            src: header.src(),
            slot,
            esp,
            end: (ethernet::HEADER + header.total_len()) as u16,
            traffic_class: header.traffic_class(),
            place,
            newest: false,
            fate: Ok(()),
        }
    }

    /// Returns the offset of the packet inside in the frame.
    #[inline(always)]
    fn inner_at(&self, sa: &InboundSa) -> usize {
        usize::from(self.esp.at) + esp::HEADER + sa.overhead.iv()
    }

    /// Returns source address and UDP ports as one number.
    #[inline(always)]
    fn from(&self) -> u64 {
        u64::from(self.src) | u64::from(self.esp.udp_ports) << 32
    }

    /// Returns the path that the packet came by.
    #[cold]
    fn path(&self) -> Path {
        let ports = self.esp.udp_ports;
        let udp_port = |bits: u32| (bits as u16).swap_bytes();
        let encap = match ports {
            0 => Encap::None,
            _ => Encap::Udp { local: udp_port(ports >> 16), remote: udp_port(ports) },
        };
        Path { local: self.key.dst().into(), remote: Address::v4(self.src).into(), encap }
    }
}

impl<'r> Numbered<'r> for Note<'r> {
    #[inline(always)]
    fn authentic(&self) -> Option<(&'r InboundSa, &window::Slot)> {
        self.sa.filter(|_| self.fate.is_ok()).map(|sa| (sa, &self.number))
    }

    #[inline(always)]
    fn accepted(&mut self, sa: &InboundSa, result: Result<Newest, Replay>) {
        match result {
            Ok(newest) => self.newest = newest,
            Err(why) => self.fate = Err(inbound::replayed(sa, why)),
        }
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
    for (_, note) in arriving.iter_mut() {
        match memory
            .inbound
            .find(note.slot, note.key, reader, |entry: &mut InboundEntry| entry.sa.renew(reader))
        {
            Some(entry) => {
                if entry.from != note.from() || entry.tag == 0 {
                    // The tag is only a number of the path, authentic or not.
                    (entry.from, entry.tag) = (note.from(), note.path().tag());
                }
                note.tag = entry.tag;
                note.sa = entry.sa.get(&tables.inbound, reader);
            }
            None => memory.miss(Missed::Inbound(note.key), io),
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
    open(arriving);
    io.mark(Stage::Open);
    inbound::accept(arriving.columns().1);
    for (packet, note) in arriving.iter_mut() {
        let Some((sa, _)) = note.authentic() else { continue };
        if note.newest {
            let tunnel = sa.tunnel;
            sa.seen_on(note.tag, || note.path(), |path| io.tell(Event::NewPath { tunnel, path }));
        }
        look_inside(packet, note, sa, memory);
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

/// Opens the whole burst at once, except for packets that the window already refuses.
#[inline(always)]
fn open(arriving: &mut Known<'_>) {
    let authentic = crypto::open_burst(arriving.iter_mut().filter_map(|(packet, note)| {
        let (sa, number) = note.authentic()?;
        if let Err(why) = sa.window.check_at(number) {
            note.fate = Err(inbound::replayed(sa, why));
            return None;
        }
        let seq = number.seq();
        match packet.data_mut().get_mut(usize::from(note.esp.at)..usize::from(note.end)) {
            Some(esp) => Some(OpenJob { key: &sa.key, seq, esn: sa.esn, esp, authentic: false }),
            None => {
                note.fate = Err(DropReason::EspTruncated);
                None
            }
        }
    }));
    let tried = arriving.iter_mut().filter(|(_, note)| note.authentic().is_some());
    for (i, (_, note)) in tried.enumerate() {
        if authentic >> i & 1 == 0 {
            note.fate = Err(inbound::forged(note.sa));
        }
    }
}

/// Reads the packet within an opened one, if it is plain and not changed by the outer header. Prefetches
/// what is remembered of its destination.
#[inline(always)]
fn look_inside(packet: &Packet, note: &mut Note<'_>, sa: &InboundSa, memory: &Memory) -> Option<()> {
    let at = note.inner_at(sa);
    let text = packet.data().get(at..usize::from(note.end))?;
    let ([padding, next_header], ip) = (esp_end(text, sa)?, text.first_chunk::<V4_HEADER>()?);
    let header = PlainV4::read(ip, false)?;
    let ports = header.ports(text[V4_HEADER..].first_chunk()?)?;
    let length = text.len() - sa.overhead.icv() - esp::TRAILER;
    let is_changed = note.traffic_class & decapsulate::ECN != 0
        && decapsulated_class(note.traffic_class, header.traffic_class()) != Ok(header.traffic_class());
    let is_longer = header.total_len() + usize::from(padding) > length;
    if next_header != protocol::IPV4 || is_longer || header.hop_limit() <= 1 || is_changed {
        return None;
    }
    note.inner = header;
    note.inner_ports = Some(ports);
    note.inner_slot = memory.expect_inner(InnerKey(header.dst()));
    Some(())
}

/// Returns pad length and next header of an opened packet: `text` with the ICV.
#[inline(always)]
fn esp_end(text: &[u8], sa: &InboundSa) -> Option<[u8; 2]> {
    let end = text.len().checked_sub(sa.overhead.icv())?;
    text.get(..end)?.last_chunk().copied()
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
    let (header, ports, slot) = (note.inner, note.inner_ports?, note.inner_slot);
    let (key, length) = (InnerKey(header.dst()), header.total_len());
    let renew = |entry: &mut InnerEntry| entry.stamp.renew(reader);
    let Some(entry) = memory.inner.find(slot, key, reader, renew) else {
        memory.miss(Missed::Inner(key), io);
        return None;
    };
    let exit = entry.exit?;
    let udp_port = |bits: u32| (bits as u16).swap_bytes();
    let flow = Flow {
        src: Address::v4(header.src()),
        dst: Address::v4(header.dst()),
        protocol: header.protocol(),
        ports: Some((udp_port(ports), udp_port(ports >> 16))),
        is_later_fragment: false,
    };
    sa.selector_of(&flow)?;
    if !flow.src.is_routable() || length > tables.settings.ports[usize::from(exit.port)].mtu() {
        return None;
    }
    // In front of the packet there is room for its Ethernet header, since ESP was there.
    let headroom = packet.headroom() + note.inner_at(sa) - ethernet::HEADER;
    packet.reshape(headroom, ethernet::HEADER + length)?;
    let (head, inner) = packet.data_mut().split_first_chunk_mut::<{ ethernet::HEADER }>()?;
    let own = tables.settings.ports[usize::from(exit.port)].mac.get();
    Ethernet { dst: exit.mac, src: own, ethertype: ethernet::IPV4 }.emit(head);
    ip::decrement_ttl(inner.first_chunk_mut()?);
    Some((exit.port, length))
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
