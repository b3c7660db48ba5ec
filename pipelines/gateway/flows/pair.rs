//! Packets of which both fragments are in one burst, as a router sends them. Joined at once, they need not be
//! kept, and can take the short way.

use super::super::{classify, io::Io, reassembly::Sender, tables::Tables};
use wayfarer_dataplane::{
    packet::{Packet, Taken},
    table::Reader,
    wire::{
        ethernet,
        fragment::{self, V6_FRAGMENT_HEADER},
        ip::{self, IpHeader, V4_HEADER, V6_HEADER, protocol},
        plain_fragment::{PlainFragment, V6_HEADERS},
    },
};

/// What marks a fragment in the seventh and eighth byte of an IPv4 header.
const MORE_AND_OFFSET: u16 = 0x3fff;

/// Returns whether the frame may be that of a first fragment without options or other extension headers: of
/// IPv6, of any fragment.
pub(super) fn may_begin(packet: &Packet) -> bool {
    const MORE: u16 = 0x2000;
    let Some(h) = packet.data().first_chunk::<{ ethernet::HEADER + V4_HEADER }>() else { return false };
    let ip = &h[ethernet::HEADER..];
    match u16::from_be_bytes([h[12], h[13]]) {
        ethernet::IPV4 => u16::from_be_bytes([ip[6], ip[7]]) & MORE_AND_OFFSET == MORE,
        ethernet::IPV6 => ip[ip::V6_PROTOCOL_AT] == protocol::FRAGMENT,
        _ => false,
    }
}

/// Returns how many frames of `unread` come before the next fragment of the packet that begins in `first`, if
/// that is ESP or IKE to the gateway, and no others of it wait, with which it may be complete before, or
/// refused (RFC 5722).
#[inline(never)]
pub(super) fn distance(
    first: &Packet,
    unread: &[Packet],
    at: (&Tables, &Reader),
    io: &mut Io,
) -> Option<usize> {
    let begun = read(first, at.0).filter(|fragment| fragment.offset == 0 && fragment.more)?;
    if !is_ours(&begun, first, at) || !io.keeps_none_of(Sender::Wire, begun.src, begun.id) {
        return None;
    }
    let frame = first.data();
    match begun.dst.is_ipv4() {
        true => unread.iter().position(|other| is_of_one_v4(frame, other.data())),
        false => unread.iter().position(|other| is_of_one_v6(frame, other.data())),
    }
}

/// Returns whether two frames have fragments of one packet. The first has one of IPv4.
#[inline(always)]
fn is_of_one_v4(a: &[u8], b: &[u8]) -> bool {
    const IP: usize = ethernet::HEADER;
    has_same::<2>(a, b, IP + 4)
        && has_same::<8>(a, b, IP + 12)
        && has_same::<2>(a, b, ethernet::TYPE_AT)
        && field(b, IP + 6).is_some_and(|bytes| u16::from_be_bytes(bytes) & MORE_AND_OFFSET != 0)
}

/// Does the same for a fragment of IPv6 without other extension headers.
#[inline(always)]
fn is_of_one_v6(a: &[u8], b: &[u8]) -> bool {
    const IP: usize = ethernet::HEADER;
    has_same::<4>(a, b, IP + V6_HEADER + 4)
        && has_same::<32>(a, b, IP + 8)
        && has_same::<2>(a, b, ethernet::TYPE_AT)
        && has_same::<1>(a, b, IP + ip::V6_PROTOCOL_AT)
}

/// Returns `N` bytes of a frame, if it has them.
#[inline(always)]
fn field<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..at + N)?.try_into().ok()
}

/// Returns whether `N` bytes of two frames are there and the same.
#[inline(always)]
fn has_same<const N: usize>(a: &[u8], b: &[u8], at: usize) -> bool {
    field::<N>(a, at).is_some_and(|bytes| field(b, at) == Some(bytes))
}

/// Joins the fragment in the frame `first`, whose next one is at a [`distance`], with that in the next frame of
/// `burst`, if the two are a packet. Returns the frame of the packet, or `first`.
#[inline(never)]
pub(super) fn join_next(mut first: Packet, burst: &mut Taken<'_>, tables: &Tables, io: &mut Io) -> Packet {
    let is_joined = burst.unread().first().is_some_and(|next| join(&mut first, next, tables).is_some());
    if is_joined && let Some(next) = burst.next() {
        io.free(next);
    }
    first
}

/// Joins the fragments in two frames in that of the first. Returns `None` if nothing was joined.
fn join(first: &mut Packet, last: &Packet, tables: &Tables) -> Option<()> {
    let (begun, rest) = (read(first, tables)?, read(last, tables)?);
    if !begun.is_completed_by(&rest) {
        return None;
    }
    let headers = if begun.dst.is_ipv4() { V4_HEADER } else { V6_HEADERS };
    let end = ethernet::HEADER + headers + begun.payload.len();
    // Without the padding of the frame.
    first.set_len(end + rest.payload.len())?;
    first.data_mut()[end..].copy_from_slice(rest.payload);
    make_whole(first)
}

/// Returns the fragment in a frame to the MAC address of its own port, if it is plain.
#[inline(always)]
fn read<'p>(packet: &'p Packet, tables: &Tables) -> Option<PlainFragment<'p>> {
    let own = tables.settings.ports[usize::from(packet.port())].mac.get();
    let (header, ip) = packet.data().split_first_chunk::<{ ethernet::HEADER }>()?;
    if !header.starts_with(&own) {
        return None;
    }
    match u16::from_be_bytes([header[12], header[13]]) {
        ethernet::IPV4 => PlainFragment::read_v4(ip, packet.is_verified()),
        ethernet::IPV6 => PlainFragment::read_v6(ip),
        _ => None,
    }
}

/// Returns whether the packet that begins in the frame `first` is ESP or IKE to the gateway.
#[inline(always)]
fn is_ours(begun: &PlainFragment<'_>, first: &Packet, (tables, reader): (&Tables, &Reader)) -> bool {
    let is_ours = match begun.protocol {
        protocol::ESP => true,
        protocol::UDP => {
            let (mut header, bytes) = (IpHeader::default(), &first.data()[ethernet::HEADER..]);
            header.read_received(bytes, true).is_ok()
                && classify::is_for_gateway(&header, bytes, tables)
                && !tables.nat.is_for(&header, bytes, reader)
        }
        _ => false,
    };
    is_ours && tables.is_own(begun.dst, reader)
}

/// Makes the first fragment in a frame, which is plain, the whole packet in the frame.
#[inline(always)]
fn make_whole(packet: &mut Packet) -> Option<()> {
    let (ethernet, ip) = packet.data_mut().split_first_chunk_mut::<{ ethernet::HEADER }>()?;
    if ip[0] >> 4 == 4 {
        ip[6..8].fill(0);
        ip::set_total_len(ip, V4_HEADER, ip.len());
        return Some(());
    }
    ip::set_total_len(ip, V6_HEADER, ip.len());
    fragment::remove_v6_header(ip);
    // The packet begins where its fragment header was.
    let ethernet = *ethernet;
    packet.pull_front(V6_FRAGMENT_HEADER)?;
    *packet.data_mut().first_chunk_mut()? = ethernet;
    Some(())
}
