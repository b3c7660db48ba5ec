//! Fragments of IP packets (RFC 791 §3.2, RFC 8200 §4.5).

use super::{
    be16, be32,
    ip::{self, IpHeader, V4_HEADER, V6_HEADER, protocol},
    put16,
};
use arrayvec::ArrayVec;

/// Length of IPv6's fragment header in bytes.
pub const V6_FRAGMENT_HEADER: usize = 8;

/// Longest header of a fragment, in bytes: of IPv4 with options.
const MAX_HEAD: usize = 60;
const MORE: u16 = 0x2000;
const V6_MORE: u16 = 1;
/// Options of IPv4 with this bit are copied to every fragment.
const COPIED: u8 = 0x80;

/// The part of a packet that a fragment carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The identification, which all fragments of a packet share.
    pub id: u32,
    /// The offset of the part from the packet's header, in bytes.
    pub offset: usize,
    /// `true` if there are later parts.
    pub more: bool,
}

impl Part {
    /// Reads the part that `packet`, which begins with `header`, carries. Returns `None` if there are
    /// IPv4 options, or IPv6 extension headers other than one fragment header.
    pub fn read(header: &IpHeader, packet: &[u8]) -> Option<Self> {
        if header.is_ipv4() {
            let field = be16(packet, 6);
            let (id, more) = (be16(packet, 4).into(), field & MORE != 0);
            return (header.header_len() == V4_HEADER).then_some(Self {
                id,
                offset: offset(field << 3),
                more,
            });
        }
        let is_alone =
            packet[6] == protocol::FRAGMENT && header.header_len() == V6_HEADER + V6_FRAGMENT_HEADER;
        is_alone.then(|| {
            let field = be16(packet, V6_HEADER + 2);
            Self { id: be32(packet, V6_HEADER + 4), offset: offset(field), more: field & V6_MORE != 0 }
        })
    }
}

/// Returns the offset in bytes of a field whose low three bits are not part of it.
fn offset(field: u16) -> usize {
    usize::from(field & !7)
}

/// Returns the header of a whole packet with `payload` bytes behind it, as its first fragment `first`,
/// which [`Part::read`] could read, has it.
pub fn whole_header(first: &[u8], payload: usize) -> ArrayVec<u8, V6_HEADER> {
    let header_len = if first[0] >> 4 == 4 { V4_HEADER } else { V6_HEADER };
    let mut whole = ArrayVec::new();
    let fits = whole.try_extend_from_slice(&first[..header_len]);
    debug_assert!(fits.is_ok(), "neither header is longer");
    match header_len {
        V4_HEADER => put16(&mut whole, 6, 0),
        _ => whole[6] = first[V6_HEADER],
    }
    ip::set_total_len(&mut whole, header_len, header_len + payload);
    whole
}

/// Moves the IPv6 header at the start of `packet` over the fragment header behind it. The packet then
/// begins [`V6_FRAGMENT_HEADER`] bytes later.
pub fn remove_v6_header(packet: &mut [u8]) {
    let payload = usize::from(be16(packet, 4)) - V6_FRAGMENT_HEADER;
    packet[6] = packet[V6_HEADER];
    put16(packet, 4, payload as u16);
    packet.copy_within(..V6_HEADER, V6_FRAGMENT_HEADER);
}

/// Cuts a packet into fragments, in their order.
#[derive(Debug)]
pub struct Cutter<'a> {
    head: [u8; MAX_HEAD],
    head_len: usize,
    payload: &'a [u8],
    /// Where the packet's payload begins in that of the packet that it may itself be a fragment of,
    /// in units of eight bytes.
    first: u16,
    /// `true` if the last piece is not the last fragment either.
    more: bool,
    mtu: usize,
    /// The number of bytes of `payload` that have been cut off.
    done: usize,
}

/// A reason why a packet cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutError {
    /// It is a fragment that ends beyond the longest packet, so offsets could overflow.
    BeyondLongest,
    /// The MTU leaves no room for eight bytes.
    Mtu,
}

impl<'a> Cutter<'a> {
    /// Begins to cut the IPv4 packet that begins with `header` to fragments of at most `mtu` bytes.
    /// The caller checks that it may be fragmented.
    ///
    /// # Errors
    /// See [`CutError`].
    pub fn v4(packet: &'a [u8], header: &IpHeader, mtu: usize) -> Result<Self, CutError> {
        let field = be16(packet, 6);
        let (first, more) = (field & 0x1fff, field & MORE != 0);
        let mut head = [0; MAX_HEAD];
        head[..header.header_len()].copy_from_slice(&packet[..header.header_len()]);
        let payload = header.payload(packet);
        Self { head, head_len: header.header_len(), payload, first, more, mtu, done: 0 }.checked()
    }

    /// Does the same for an IPv6 packet of our own, without extension headers. Its fragments have the
    /// identification `id`.
    ///
    /// # Errors
    /// See [`CutError`].
    pub fn v6(packet: &'a [u8], header: &IpHeader, mtu: usize, id: u32) -> Result<Self, CutError> {
        let mut head = [0; MAX_HEAD];
        head[..V6_HEADER].copy_from_slice(&packet[..V6_HEADER]);
        head[V6_HEADER] = std::mem::replace(&mut head[6], protocol::FRAGMENT);
        head[V6_HEADER + 4..V6_HEADER + V6_FRAGMENT_HEADER].copy_from_slice(&id.to_be_bytes());
        let (head_len, payload) = (V6_HEADER + V6_FRAGMENT_HEADER, header.payload(packet));
        Self { head, head_len, payload, first: 0, more: false, mtu, done: 0 }.checked()
    }

    fn checked(self) -> Result<Self, CutError> {
        if usize::from(self.first) * 8 + self.payload.len() > usize::from(u16::MAX) {
            return Err(CutError::BeyondLongest);
        }
        // The first header is the longest.
        if self.mtu < self.head_len + 8 { Err(CutError::Mtu) } else { Ok(self) }
    }
}

impl<'a> Iterator for Cutter<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let left = self.payload.get(self.done..).filter(|left| !left.is_empty())?;
        // Every fragment but the last carries a multiple of eight bytes.
        let take = ((self.mtu - self.head_len) & !7).min(left.len());
        let more = self.more || take < left.len();
        let offset = self.first + (self.done / 8) as u16;
        let is_v4 = self.head[0] >> 4 == 4;
        match is_v4 {
            true => put16(&mut self.head, 6, offset | if more { MORE } else { 0 }),
            false => put16(&mut self.head, V6_HEADER + 2, offset << 3 | u16::from(more)),
        }
        let piece = Piece { head: self.head, head_len: self.head_len, payload: &left[..take] };
        self.done += take;
        if is_v4 {
            self.head_len = keep_copied_options(&mut self.head, self.head_len);
        }
        Some(piece)
    }
}

/// A fragment that is to be written.
#[derive(Debug)]
pub struct Piece<'a> {
    head: [u8; MAX_HEAD],
    head_len: usize,
    payload: &'a [u8],
}

impl Piece<'_> {
    /// Returns its length in bytes, with its header.
    #[allow(clippy::len_without_is_empty, reason = "a fragment is never empty")]
    pub fn len(&self) -> usize {
        self.head_len + self.payload.len()
    }

    /// Writes it to `out`, which must have its length.
    pub fn write(&self, out: &mut [u8]) {
        out[..self.head_len].copy_from_slice(&self.head[..self.head_len]);
        out[self.head_len..].copy_from_slice(self.payload);
        ip::set_total_len(out, self.head_len, self.len());
    }
}

/// Reduces a header to the options that every fragment carries, padded to four bytes; returns its
/// new length.
fn keep_copied_options(head: &mut [u8; MAX_HEAD], head_len: usize) -> usize {
    let (mut from, mut to) = (V4_HEADER, V4_HEADER);
    while from < head_len {
        let length = match head[from] {
            0 => break,
            1 => 1,
            _ => usize::from(*head.get(from + 1).unwrap_or(&0)),
        };
        if length == 0 || from + length > head_len || (head[from] != 1 && length < 2) {
            break;
        }
        if head[from] & COPIED != 0 {
            head.copy_within(from..from + length, to);
            to += length;
        }
        from += length;
    }
    let end = to.next_multiple_of(4);
    head[to..end].fill(0);
    head[0] = 0x40 | (end / 4) as u8;
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(family: &str, payload: usize) -> Vec<u8> {
        let address = |n: u8| match family {
            "v4" => std::net::IpAddr::from([192, 0, 2, n]),
            _ => std::net::IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)]),
        };
        let mut packet = vec![0; V6_HEADER];
        let header_len = ip::emit(&mut packet, address(1), address(2), protocol::UDP, payload);
        packet.truncate(header_len);
        packet.extend((0..payload).map(|at| (at * 7) as u8));
        packet
    }

    fn pieces(packet: &[u8], mtu: usize) -> Vec<Vec<u8>> {
        let header = IpHeader::parse(packet).unwrap();
        let cutter = match header.is_ipv4() {
            true => Cutter::v4(packet, &header, mtu).unwrap(),
            false => Cutter::v6(packet, &header, mtu, 0x0102_0304).unwrap(),
        };
        let write = |piece: Piece<'_>| {
            let mut out = vec![0; piece.len()];
            piece.write(&mut out);
            out
        };
        cutter.map(write).collect()
    }

    #[test]
    fn pieces_fit_and_join_to_the_same_packet() {
        for (family, length) in [("v4", 1), ("v4", 4000), ("v6", 1233), ("v6", 65_495)] {
            let mut packet = whole(family, length);
            if family == "v4" {
                packet[4..8].copy_from_slice(&[7, 8, 0, 0]);
                ip::set_total_len(&mut packet, V4_HEADER, V4_HEADER + length);
            }
            let pieces = pieces(&packet, 1280);
            let mut joined = whole_header(&pieces[0], length).to_vec();
            for (index, piece) in pieces.iter().enumerate() {
                let header = IpHeader::parse(piece).unwrap();
                assert_eq!((header.total_len(), piece.len() <= 1280), (piece.len(), true));
                let part = Part::read(&header, piece).unwrap();
                assert_eq!(part.id, if family == "v4" { 0x0708 } else { 0x0102_0304 });
                let header_len = if family == "v4" { V4_HEADER } else { V6_HEADER };
                assert_eq!(part.offset, joined.len() - header_len);
                assert_eq!(part.more, index + 1 < pieces.len());
                joined.extend_from_slice(header.payload(piece));
            }
            assert!(IpHeader::parse(&joined).is_ok());
            if family == "v4" {
                joined[4..6].copy_from_slice(&packet[4..6]);
            }
            assert!(joined == packet, "{family} {length}");
        }
    }

    #[test]
    fn fragment_header_of_a_whole_packet_is_removed() {
        let packet = whole("v6", 64);
        let mut atomic = pieces(&packet, 1280).remove(0);
        remove_v6_header(&mut atomic);
        assert_eq!(atomic[V6_FRAGMENT_HEADER..], packet);
    }

    #[test]
    fn other_headers_are_not_read_as_fragments() {
        let mut packet = whole("v4", 64);
        packet[0] = 0x46;
        ip::set_total_len(&mut packet, 24, 84);
        assert_eq!(Part::read(&IpHeader::parse(&packet).unwrap(), &packet), None);
        let packet = whole("v6", 64);
        assert_eq!(Part::read(&IpHeader::parse(&packet).unwrap(), &packet), None);
    }

    #[test]
    fn packets_that_cannot_be_cut_are_refused() {
        let packet = whole("v4", 100);
        let header = IpHeader::parse(&packet).unwrap();
        assert!(Cutter::v4(&packet, &header, 28).is_ok());
        assert_eq!(Cutter::v4(&packet, &header, 27).unwrap_err(), CutError::Mtu);
        let mut last = packet.clone();
        last[6..8].copy_from_slice(&[0x1f, 0xff]);
        assert_eq!(Cutter::v4(&last, &header, 576).unwrap_err(), CutError::BeyondLongest);
    }
}
