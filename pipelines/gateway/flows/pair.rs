//! Packets in two fragments that follow one another, as a router sends them. Joined at once, they need not be
//! kept, and can take the short way.

use super::super::{
    classify,
    io::Io,
    reassembly::{Sender, Whole},
    tables::Tables,
};
use wayfarer_dataplane::{
    packet::{Packet, Taken},
    table::Reader,
    wire::{
        ethernet::{self, Ethernet},
        fragment::{Part, V6_FRAGMENT_HEADER},
        ip::{self, Fragment, IpHeader, V4_HEADER, V6_HEADER, protocol},
    },
};

/// Returns whether the frame may be that of a first fragment without options or other extension headers.
pub(super) fn may_begin(packet: &Packet) -> bool {
    const MORE_AND_OFFSET: u16 = 0x3fff;
    const MORE: u16 = 0x2000;
    let Some(h) = packet.data().first_chunk::<{ ethernet::HEADER + V4_HEADER }>() else { return false };
    let ip = &h[ethernet::HEADER..];
    match u16::from_be_bytes([h[12], h[13]]) {
        ethernet::IPV4 => u16::from_be_bytes([ip[6], ip[7]]) & MORE_AND_OFFSET == MORE,
        ethernet::IPV6 => ip[ip::V6_PROTOCOL_AT] == protocol::FRAGMENT,
        _ => false,
    }
}

/// Joins the fragment in the frame `first` with that in the next frame of `burst`, if the two are a packet of
/// ESP or IKE to the gateway. Returns the frame of the packet, or `first`.
#[inline(never)]
pub(super) fn join_next(
    mut first: Packet,
    burst: &mut Taken<'_>,
    (tables, reader): (&Tables, &Reader),
    io: &mut Io,
) -> Packet {
    let is_joined = burst.peek().is_some_and(|next| join(&mut first, next, (tables, reader), io).is_some());
    if is_joined && let Some(next) = burst.next() {
        io.free(next);
    }
    first
}

/// A fragment without options or other extension headers.
struct Piece<'p> {
    header: IpHeader,
    part: Part,
    /// The fragment, without the padding of its frame.
    bytes: &'p [u8],
}

impl<'p> Piece<'p> {
    /// Returns the fragment in a frame to the MAC address of its own port, if there is one.
    fn read(packet: &'p Packet, tables: &Tables) -> Option<Self> {
        let frame = Ethernet::parse(packet.data()).ok()?;
        let bytes = packet.data().get(ethernet::HEADER..)?;
        let mut header = IpHeader::default();
        header.read_received(bytes, packet.is_verified()).ok()?;
        let (ethertype, head_len) = match header.is_ipv4() {
            true => (ethernet::IPV4, V4_HEADER),
            false => (ethernet::IPV6, V6_HEADER + V6_FRAGMENT_HEADER),
        };
        let part = Part::read(&header, bytes)?;
        let own = tables.settings.ports[usize::from(packet.port())].mac.get();
        let is_plain = frame.dst == own && frame.ethertype == ethertype && part.head_len == head_len;
        let bytes = bytes.get(..header.total_len())?;
        is_plain.then_some(Self { header, part, bytes })
    }

    /// Returns the length of the part in bytes.
    fn length(&self) -> usize {
        self.bytes.len() - self.part.head_len
    }

    /// Returns whether the rest of the packet, of which this is the first fragment, is in `last`, and both say
    /// the same of congestion.
    fn is_completed_by(&self, last: &Self) -> bool {
        let key = |piece: &Self| {
            let IpHeader { src, dst, traffic_class, .. } = piece.header;
            (src, dst, traffic_class, piece.part.protocol, piece.part.id)
        };
        self.header.fragment == Fragment::First
            && last.header.fragment == Fragment::Later
            && key(self) == key(last)
            && last.part.offset == self.length()
            && !last.part.more
            && last.length() > 0
    }
}

/// Joins the fragments in two frames in that of the first. Returns `None` if nothing was joined.
fn join(first: &mut Packet, last: &Packet, (tables, reader): (&Tables, &Reader), io: &mut Io) -> Option<()> {
    let (a, b) = (Piece::read(first, tables)?, Piece::read(last, tables)?);
    let is_ours = a.is_completed_by(&b)
        && tables.is_own(a.header.dst, reader)
        && classify::is_for_gateway(&a.header, a.bytes, tables)
        && !tables.nat.is_for(&a.header, a.bytes, reader);
    // Others of the same identification may wait, with which it would be refused (RFC 5722).
    if !is_ours || !io.keeps_none_of(Sender::Wire, a.header.src, a.part.id) {
        return None;
    }
    let (whole, length) = (Whole::cut_here(&a.header), a.bytes.len());
    let ethernet: [u8; ethernet::HEADER] = *first.data().first_chunk()?;
    first.pull_front(ethernet::HEADER)?;
    let is_joined = first.set_len(length).and_then(|()| whole.join_in_first(first, [b.bytes].into_iter()));
    first.push_front(ethernet::HEADER)?;
    // IPv6 begins where its fragment header was.
    *first.data_mut().first_chunk_mut()? = ethernet;
    is_joined
}
