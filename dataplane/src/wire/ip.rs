//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers, read into one form.

use super::{Address, FormatError, address, be16, be32, checksum, put16};
use std::net::IpAddr;

/// Length of an IPv4 header without options, in bytes.
pub const V4_HEADER: usize = 20;
/// Length of the IPv6 header in bytes.
pub const V6_HEADER: usize = 40;
/// The offset of the byte that names the protocol of an IPv4 packet.
pub const V4_PROTOCOL_AT: usize = 9;
/// The offset of the byte that names the next header of an IPv6 packet.
pub const V6_PROTOCOL_AT: usize = 6;
/// The smallest MTU of an IPv6 link, in bytes (RFC 8200 §5).
pub const V6_MIN_MTU: usize = 1280;

/// Protocol numbers (IANA).
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP: a tunnelled IPv4 packet.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP: a tunnelled IPv6 packet.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// GRE.
    pub const GRE: u8 = 47;
    /// ESP.
    pub const ESP: u8 = 50;
    /// Minimal encapsulation.
    pub const MINIMAL: u8 = 55;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// No next header: an ESP dummy packet.
    pub const NONE: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;

    /// Returns whether `protocol` is an IPv6 extension header that is stepped over to the upper layer.
    #[inline]
    pub fn is_extension(protocol: u8) -> bool {
        matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
    }
}

/// The number of extension headers after which a parser gives up.
const MAX_EXTENSIONS: usize = 8;

/// The position of a packet in a fragmented datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// The whole datagram.
    Whole,
    /// The first fragment, which has the upper-layer header.
    First,
    /// A later fragment, which does not have it.
    Later,
}

/// The content of an IP header of either version. All lengths lie within the bytes that were
/// parsed. Kept small, because stages carry one for each packet of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpHeader {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Upper-layer protocol, behind any extension headers.
    pub protocol: u8,
    protocol_at: u16,
    header_len: u16,
    total_len: u16,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    /// The position of the packet in a fragmented datagram.
    pub fragment: Fragment,
    /// `true` if routers must not fragment the packet. Always true for IPv6.
    pub dont_fragment: bool,
    forwardable: bool,
    to_group: bool,
    is_ipv4: bool,
}

const _: () = assert!(size_of::<IpHeader>() <= 48);

impl Default for IpHeader {
    /// Returns an empty header for [`IpHeader::read`].
    fn default() -> Self {
        Self {
            src: Address::UNSPECIFIED,
            dst: Address::UNSPECIFIED,
            protocol: 0,
            protocol_at: 0,
            header_len: 0,
            total_len: 0,
            traffic_class: 0,
            hop_limit: 0,
            fragment: Fragment::Whole,
            dont_fragment: false,
            forwardable: false,
            to_group: false,
            is_ipv4: false,
        }
    }
}

impl IpHeader {
    /// Returns the offset of the byte that names the upper-layer protocol.
    #[inline]
    pub fn protocol_at(&self) -> usize {
        usize::from(self.protocol_at)
    }

    /// Returns the number of bytes before the upper-layer header, including options and extension
    /// headers.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.header_len)
    }

    /// Returns the length of the whole packet in bytes.
    #[inline]
    pub fn total_len(&self) -> usize {
        usize::from(self.total_len)
    }

    /// Reads the header of the IP packet at the start of `bytes`. Bytes beyond its total length may
    /// follow.
    ///
    /// # Errors
    /// See [`FormatError`]. The IPv4 header checksum is verified. An IPv6 header with an
    /// IPv4-mapped address returns `Field`.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut this = Self::default();
        this.read(bytes)?;
        Ok(this)
    }

    /// Does the same as [`IpHeader::parse`], into `self`. A result that is returned through memory
    /// and moved at once makes the processor wait for its own stores, longer than the parsing
    /// takes. After an error the header has no meaning.
    ///
    /// # Errors
    /// Those of [`IpHeader::parse`].
    #[inline(always)]
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        self.read_received(bytes, false)
    }

    /// Does the same as [`IpHeader::read`] for a packet as a port received it. With `is_verified`
    /// the port has verified the checksum of an IPv4 header, which is then not verified again.
    ///
    /// # Errors
    /// Those of [`IpHeader::parse`].
    #[inline(always)]
    pub fn read_received(&mut self, bytes: &[u8], is_verified: bool) -> Result<(), FormatError> {
        match bytes.first().ok_or(FormatError::Truncated)? >> 4 {
            4 => self.read_v4(bytes, is_verified),
            6 => {
                *self = Self::parse_v6(bytes)?;
                Ok(())
            }
            _ => Err(FormatError::Version),
        }
    }

    #[inline(always)]
    fn read_v4(&mut self, bytes: &[u8], is_verified: bool) -> Result<(), FormatError> {
        let h = bytes.first_chunk::<V4_HEADER>().ok_or(FormatError::Truncated)?;
        let header_len = usize::from(h[0] & 0xf) * 4;
        let total_len = usize::from(be16(h, 2));
        if header_len < V4_HEADER || header_len > bytes.len() {
            return Err(FormatError::HeaderLength);
        }
        if total_len < header_len || total_len > bytes.len() {
            return Err(FormatError::TotalLength);
        }
        // Nearly every header has twenty bytes. For these the sum needs no loop.
        let sound = is_verified
            || if header_len == V4_HEADER {
                checksum::is_zero_of_v4(h)
            } else {
                checksum::of(&bytes[..header_len]) == 0
            };
        if !sound {
            return Err(FormatError::Checksum);
        }
        let fragment = be16(h, 6);
        let (src, dst) = (be32(h, 12), be32(h, 16));
        self.src = Address::v4(src);
        self.dst = Address::v4(dst);
        self.is_ipv4 = true;
        self.to_group = dst >> 28 == 0xe;
        self.forwardable = address::is_routable_v4(src) && address::is_routable_v4(dst);
        self.protocol = h[V4_PROTOCOL_AT];
        self.protocol_at = V4_PROTOCOL_AT as u16;
        self.header_len = header_len as u16;
        self.total_len = total_len as u16;
        self.traffic_class = h[1];
        self.hop_limit = h[8];
        self.fragment = match (fragment & 0x1fff, fragment & 0x2000) {
            (0, 0) => Fragment::Whole,
            (0, _) => Fragment::First,
            _ => Fragment::Later,
        };
        self.dont_fragment = fragment & 0x4000 != 0;
        Ok(())
    }

    fn parse_v6(bytes: &[u8]) -> Result<Self, FormatError> {
        let h = bytes.first_chunk::<V6_HEADER>().ok_or(FormatError::Truncated)?;
        let total_len = V6_HEADER + usize::from(be16(h, 4));
        // A payload of almost 64 KiB makes a packet that no frame can hold.
        let fits = u16::try_from(total_len).ok().filter(|_| total_len <= bytes.len());
        let mut this = Self {
            src: v6_at(h, 8).ok_or(FormatError::Field)?,
            dst: v6_at(h, 24).ok_or(FormatError::Field)?,
            protocol: h[V6_PROTOCOL_AT],
            protocol_at: V6_PROTOCOL_AT as u16,
            header_len: V6_HEADER as u16,
            total_len: fits.ok_or(FormatError::TotalLength)?,
            traffic_class: h[0] << 4 | h[1] >> 4,
            hop_limit: h[7],
            fragment: Fragment::Whole,
            dont_fragment: true,
            forwardable: false,
            to_group: false,
            is_ipv4: false,
        };
        this.to_group = this.dst.is_multicast();
        this.forwardable = this.src.is_routable() && this.dst.is_routable();
        this.walk_extensions(&bytes[..total_len])?;
        Ok(this)
    }

    /// Steps over extension headers (RFC 8200 §4) to the upper layer, or to the payload of a later
    /// fragment.
    fn walk_extensions(&mut self, packet: &[u8]) -> Result<(), FormatError> {
        let mut is_cut = false;
        for _ in 0..=MAX_EXTENSIONS {
            let at = self.header_len();
            let length = match self.protocol {
                protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION => {
                    8 * (1 + usize::from(*packet.get(at + 1).ok_or(FormatError::HeaderLength)?))
                }
                protocol::FRAGMENT => 8,
                _ => return Ok(()),
            };
            if at + length > packet.len() {
                return Err(FormatError::HeaderLength);
            }
            if self.protocol == protocol::FRAGMENT {
                // A packet is cut once. Behind a second such header, nobody could tell what the first one
                // says.
                if std::mem::replace(&mut is_cut, true) {
                    return Err(FormatError::HeaderLength);
                }
                let field = be16(packet, at + 2);
                self.fragment = match (field & 0xfff8, field & 1) {
                    (0, 0) => Fragment::Whole,
                    (0, _) => Fragment::First,
                    _ => Fragment::Later,
                };
            }
            self.protocol = packet[at];
            // Both lie within the packet, whose length has 16 bits.
            self.protocol_at = at as u16;
            self.header_len = (at + length) as u16;
            if self.fragment == Fragment::Later {
                return Ok(());
            }
        }
        Err(FormatError::HeaderLength)
    }

    /// Returns whether the header has IPv4 options or IPv6 extension headers.
    #[inline]
    pub fn has_options(&self) -> bool {
        self.header_len() != if self.src.is_ipv4() { V4_HEADER } else { V6_HEADER }
    }

    /// Returns whether the header is IPv4.
    #[inline]
    pub fn is_ipv4(&self) -> bool {
        self.is_ipv4
    }

    /// Returns whether the destination is a multicast address.
    #[inline]
    pub fn is_to_group(&self) -> bool {
        self.to_group
    }

    /// Returns whether a router may forward the packet: both of its addresses are routable
    /// ([`Address::is_routable`]; RFC 1812 §5.3.7, RFC 4291 §2.5).
    #[inline]
    pub fn is_forwardable(&self) -> bool {
        self.forwardable
    }

    /// Returns the bytes behind the header in `packet`, from which this header was read, or none if
    /// `packet` has become shorter.
    #[inline]
    pub fn payload<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        // A packet that has been cut since has no bytes behind its end.
        packet.get(self.header_len()..self.total_len()).unwrap_or_default()
    }

    /// Notes that the packet was cut to `total_len` bytes, which is no more than before.
    #[inline]
    pub fn set_cut(&mut self, total_len: usize) {
        debug_assert!((self.header_len()..=self.total_len()).contains(&total_len));
        self.total_len = total_len as u16;
    }
}

/// Returns the IPv6 address at offset `at` of `bytes`, which must hold 16 bytes there, or `None`
/// for an IPv4-mapped one, which no packet may carry.
pub(crate) fn v6_at(bytes: &[u8], at: usize) -> Option<Address> {
    let mut octets = [0; 16];
    octets.copy_from_slice(&bytes[at..at + 16]);
    Address::v6(octets)
}

/// Decrements the hop limit of the packet at the start of `bytes`, which was already parsed, and
/// corrects the IPv4 checksum.
#[inline]
pub fn decrement_hop_limit(bytes: &mut [u8]) {
    if bytes[0] >> 4 == 4
        && let Some(h) = bytes.first_chunk_mut()
    {
        decrement_ttl(h);
    } else {
        bytes[7] -= 1;
    }
}

/// Decrements the time to live, which is not 0, of an IPv4 header, and corrects its checksum.
#[inline]
pub fn decrement_ttl(h: &mut [u8; V4_HEADER]) {
    // One less in the high half of a word is one more in that half of the sum's complement (RFC 1141).
    // Of the two zeros it is the positive one (RFC 1624 §3).
    let sum = u32::from(be16(h, 10)) + 0x0100;
    h[8] -= 1;
    h[10..12].copy_from_slice(&((sum + u32::from(sum >= 0xffff)) as u16).to_be_bytes());
}

/// Replaces DSCP and ECN of the packet at the start of `bytes`, which was already parsed.
#[inline]
pub fn set_traffic_class(bytes: &mut [u8], class: u8) {
    if bytes[0] >> 4 == 4 {
        let (old, sum) = (be16(bytes, 0), be16(bytes, 10));
        bytes[1] = class;
        put16(bytes, 10, checksum::update(sum, old, be16(bytes, 0)));
    } else {
        bytes[0] = 0x60 | class >> 4;
        bytes[1] = bytes[1] & 0x0f | class << 4;
    }
}

/// Writes the total length, and for IPv4 a new header checksum, into the header of `header_len`
/// bytes at the start of `bytes`. Panics if `total_len` is shorter than the fixed header.
pub fn set_total_len(bytes: &mut [u8], header_len: usize, total_len: usize) {
    if bytes[0] >> 4 == 4 {
        put16(bytes, 2, total_len as u16);
        put16(bytes, 10, 0);
        let sum = checksum::of(&bytes[..header_len]);
        put16(bytes, 10, sum);
    } else {
        put16(bytes, 4, (total_len - V6_HEADER) as u16);
    }
}

/// Allows routers to cut the whole IPv4 packet that begins with a header of `header_len` bytes, and
/// gives it the identification `id`, which must not come again soon (RFC 6864 §4.2).
pub fn allow_fragments(packet: &mut [u8], header_len: usize, id: u16) {
    let total_len = usize::from(be16(packet, 2));
    put16(packet, 4, id);
    put16(packet, 6, 0);
    set_total_len(packet, header_len, total_len);
}

/// Writes an IPv4 or IPv6 header without options to the start of `bytes`, and returns its length in
/// bytes. An IPv4 header has identification 0 and DF set (RFC 6864 §4.1). Panics if the addresses
/// are of two families.
pub fn emit(
    bytes: &mut [u8],
    src: impl Into<IpAddr>,
    dst: impl Into<IpAddr>,
    protocol: u8,
    payload: usize,
) -> usize {
    match (src.into(), dst.into()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            bytes[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
            bytes[12..16].copy_from_slice(&src.octets());
            bytes[16..20].copy_from_slice(&dst.octets());
            set_total_len(bytes, V4_HEADER, V4_HEADER + payload);
            V4_HEADER
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            bytes[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, protocol, 64]);
            bytes[8..24].copy_from_slice(&src.octets());
            bytes[24..40].copy_from_slice(&dst.octets());
            set_total_len(bytes, V6_HEADER, V6_HEADER + payload);
            V6_HEADER
        }
        _ => panic!("addresses of two families in one header"),
    }
}
