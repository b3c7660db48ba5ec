//! Fragments of IP packets (RFC 791 §3.2, RFC 8200 §4.5).

use super::{
    be16, be32, extension,
    ip::{self, IpHeader, V4_HEADER, V6_HEADER, protocol},
    put16,
};
use arrayvec::ArrayVec;

/// Length of IPv6's fragment header in bytes.
pub const V6_FRAGMENT_HEADER: usize = extension::FRAGMENT_HEADER;

/// Longest header of a whole packet that was cut, in bytes: of IPv6, with the extension headers that
/// stand before the fragment header.
pub const MAX_WHOLE_HEADER: usize = V6_HEADER + extension::LONGEST;
/// Longest header of a fragment, in bytes: of IPv4 with options.
const MAX_HEAD: usize = 60;
pub(super) const MORE: u16 = 0x2000;
pub(super) const V6_MORE: u16 = 1;
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
    /// The length of the headers of the fragment itself, in bytes: IPv4's with options, IPv6's up to the
    /// fragment header. Those of two fragments of a packet may differ.
    pub head_len: usize,
    /// The protocol of what was cut. For IPv6, it may be an extension header.
    pub protocol: u8,
}

impl Part {
    /// Reads the part that `packet`, which begins with `header`, carries. Returns `None` if IPv6 has no
    /// fragment header, or more than 256 bytes of other extension headers before it.
    pub fn read(header: &IpHeader, packet: &[u8]) -> Option<Self> {
        if header.is_ipv4() {
            let field = be16(packet, 6);
            return Some(Self {
                id: be16(packet, 4).into(),
                offset: offset(field << 3),
                more: field & MORE != 0,
                head_len: header.header_len(),
                protocol: header.protocol,
            });
        }
        let (_, at) = extension::fragment_header(packet)?;
        let field = be16(packet, at + 2);
        Some(Self {
            id: be32(packet, at + 4),
            offset: offset(field),
            more: field & V6_MORE != 0,
            head_len: at + V6_FRAGMENT_HEADER,
            protocol: packet[at],
        })
    }
}

/// Returns the length of the headers of `fragment` itself, which [`Part::read`] could read, in bytes.
pub fn head_len(fragment: &[u8]) -> usize {
    if fragment[0] >> 4 == 4 {
        return usize::from(fragment[0] & 0xf) * 4;
    }
    extension::fragment_header(fragment).map_or(fragment.len(), |(_, at)| at + V6_FRAGMENT_HEADER)
}

/// Returns the bytes of a packet that `fragment` carries, which [`Part::read`] could read.
pub fn payload(fragment: &[u8]) -> &[u8] {
    fragment.get(head_len(fragment)..).unwrap_or_default()
}

/// Returns the offset in bytes of a field whose low three bits are not part of it.
pub(super) fn offset(field: u16) -> usize {
    usize::from(field & !7)
}

/// Returns the header of a whole packet with `payload` bytes behind it, as its first fragment `first`,
/// which [`Part::read`] could read, has it: with its options, or the extension headers before its
/// fragment header (RFC 791 §3.2, RFC 8200 §4.5).
pub fn whole_header(first: &[u8], payload: usize) -> ArrayVec<u8, MAX_WHOLE_HEADER> {
    let is_v4 = first[0] >> 4 == 4;
    let (named_at, at) = match is_v4 {
        true => (9, head_len(first)),
        false => extension::fragment_header(first).unwrap_or((6, V6_HEADER)),
    };
    let mut whole = ArrayVec::new();
    let fits = whole.try_extend_from_slice(&first[..at]);
    debug_assert!(fits.is_ok(), "neither header is longer");
    match is_v4 {
        true => put16(&mut whole, 6, 0),
        false => whole[named_at] = first[at],
    }
    ip::set_total_len(&mut whole, at, at + payload);
    whole
}

/// Moves what stands before the fragment header of IPv6 over that. `packet`, which [`Part::read`] could
/// read, then begins [`V6_FRAGMENT_HEADER`] bytes later.
pub fn remove_v6_header(packet: &mut [u8]) {
    let Some((named_at, at)) = extension::fragment_header(packet) else { return };
    let length = usize::from(be16(packet, 4)) - V6_FRAGMENT_HEADER;
    packet[named_at] = packet[at];
    put16(packet, 4, length as u16);
    packet.copy_within(..at, V6_FRAGMENT_HEADER);
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
        let mut behind_options = with_options(&atomic, 2);
        remove_v6_header(&mut atomic);
        assert_eq!(atomic[V6_FRAGMENT_HEADER..], packet);
        remove_v6_header(&mut behind_options);
        assert_eq!(behind_options[V6_FRAGMENT_HEADER..], with_options(&packet, 2));
    }

    /// Puts this many destination options of eight bytes behind the IPv6 header of a packet.
    fn with_options(packet: &[u8], count: usize) -> Vec<u8> {
        let mut out = packet[..V6_HEADER].to_vec();
        let kind = std::mem::replace(&mut out[6], protocol::DESTINATION);
        for left in (0..count).rev() {
            out.extend([if left == 0 { kind } else { protocol::DESTINATION }, 0, 1, 4, 0, 0, 0, 0]);
        }
        out.extend(&packet[V6_HEADER..]);
        let total = out.len();
        ip::set_total_len(&mut out, V6_HEADER, total);
        out
    }

    /// Options of the first fragment are those of the whole packet. Others may lack some (RFC 791 §3.1).
    #[test]
    fn ipv4_options_belong_to_the_fragment() {
        let mut packet = whole("v4", 4000);
        // A timestamp, which is not copied, and router alert, which is (RFC 2113).
        packet.splice(20..20, [68, 4, 5, 0, 0x94, 4, 0, 0]);
        packet[0] = 0x47;
        packet[4..8].copy_from_slice(&[7, 8, 0, 0]);
        let total = packet.len();
        ip::set_total_len(&mut packet, 28, total);
        let pieces = pieces(&packet, 1280);
        let heads: Vec<_> = pieces.iter().map(|piece| head_len(piece)).collect();
        assert_eq!(heads, [28, 24, 24, 24]);
        let mut joined = whole_header(&pieces[0], 4000).to_vec();
        for piece in &pieces {
            let header = IpHeader::parse(piece).unwrap();
            let part = Part::read(&header, piece).unwrap();
            assert_eq!((part.offset, part.head_len), (joined.len() - 28, header.header_len()));
            joined.extend(payload(piece));
        }
        assert!(joined == packet);
    }

    #[test]
    fn headers_before_the_fragment_header_belong_to_the_fragment() {
        let packet = whole("v6", 2000);
        for count in [1, 3] {
            let pieces: Vec<_> =
                pieces(&packet, 1280).iter().map(|piece| with_options(piece, count)).collect();
            let mut joined = whole_header(&pieces[0], 2000).to_vec();
            for piece in &pieces {
                let part = Part::read(&IpHeader::parse(piece).unwrap(), piece).unwrap();
                assert_eq!((part.head_len, part.protocol), (48 + 8 * count, protocol::UDP));
                assert_eq!(part.offset, joined.len() - V6_HEADER - 8 * count);
                joined.extend(payload(piece));
            }
            assert!(joined == with_options(&packet, count));
        }
    }

    #[test]
    fn headers_behind_the_fragment_header_belong_to_what_was_cut() {
        let packet = with_options(&whole("v6", 2000), 1);
        // It is cut right behind the IPv6 header.
        let mut pieces = pieces(&whole("v6", 2008), 1280);
        pieces.iter_mut().for_each(|piece| piece[V6_HEADER] = protocol::DESTINATION);
        pieces[0][48..56].copy_from_slice(&packet[V6_HEADER..48]);
        for piece in &pieces {
            let part = Part::read(&IpHeader::parse(piece).unwrap(), piece).unwrap();
            assert_eq!((part.head_len, part.protocol), (48, protocol::DESTINATION));
        }
        assert_eq!(whole_header(&pieces[0], 2008)[..], packet[..V6_HEADER]);
    }

    #[test]
    fn other_headers_are_not_read_as_fragments() {
        let packet = whole("v6", 64);
        assert_eq!(Part::read(&IpHeader::parse(&packet).unwrap(), &packet), None);
        let packet = with_options(&packet, 2);
        assert_eq!(Part::read(&IpHeader::parse(&packet).unwrap(), &packet), None);
        // Nor is a fragment header found behind more than is read.
        let mut long = with_options(&pieces(&whole("v6", 2000), 1280)[0], 34);
        long.drain(48..40 + 33 * 8);
        long[41] = 32;
        long[42..44].copy_from_slice(&[1, 252]);
        long.splice(48..48, vec![0; 256]);
        let total = long.len();
        ip::set_total_len(&mut long, V6_HEADER, total);
        let header = IpHeader::parse(&long).unwrap();
        assert_eq!((header.fragment, Part::read(&header, &long)), (ip::Fragment::First, None));
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
