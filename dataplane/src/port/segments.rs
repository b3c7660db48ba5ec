//! Cuts joined frames into the packets that they stand for. A sender or the kernel joins packets of
//! one flow, so that its network stack handles them as one (TSO, GSO, GRO).

use super::{
    link_layer::LinkLayer,
    vnet_header::{Joined, Unusable, VnetHeader, never_zero},
};
use crate::{
    packet::Packet,
    wire::{
        Address, be16, be32, checksum,
        ip::{Fragment, IpHeader, V6_HEADER, protocol},
        put16, udp,
    },
};

/// The longest joined frame, in bytes: an IP packet, and an Ethernet header with tags.
pub(super) const LONGEST: usize = 65_535 + 64;
/// The least payload of a full TCP segment of Linux, in bytes (TCP_MIN_SND_MSS). A joined frame that
/// stands for more packets than 64 KiB of such segments is refused.
const LEAST: usize = 48;
const MOST: usize = LONGEST / LEAST;

// Offsets in a TCP header (RFC 9293 §3.1).
const SEQUENCE: usize = 4;
const DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const TCP_HEADER: usize = 20;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

// Offsets in a UDP header (RFC 768).
const UDP_LENGTH: usize = 4;
const UDP_CHECKSUM: usize = 6;

// Offsets in IP headers (RFC 791 §3.1, RFC 8200 §3).
const V4_TOTAL: usize = 2;
const V4_ID: usize = 4;
const V4_CHECKSUM: usize = 10;
const V6_PAYLOAD: usize = 4;

/// A joined frame, and how much of it has been cut off.
pub(super) struct JoinedFrame {
    bytes: Box<[u8]>,
    rest: Option<Rest>,
}

/// The packets that are left of a joined frame. All offsets are into the frame, in ascending order.
#[derive(Clone, Copy, Debug)]
struct Rest {
    kind: Joined,
    ip: usize,
    transport: usize,
    payload: usize,
    /// The payload of the next packet.
    next: usize,
    end: usize,
    /// The payload of each packet but the last, in bytes.
    size: usize,
    src: Address,
    dst: Address,
}

impl JoinedFrame {
    /// Returns room for joined frames, one at a time.
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; LONGEST].into(), rest: None }
    }

    /// Returns the room for the next frame, for [`JoinedFrame::start`]. What was left of the last one
    /// is gone.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.rest = None;
        &mut self.bytes
    }

    /// Starts to cut the frame that is in the room, of `length` bytes, which its sender joined as
    /// `header` says.
    ///
    /// # Errors
    /// [`Unusable`], if it is longer than the room or not consistent in itself.
    pub(super) fn start(
        &mut self,
        length: usize,
        link: LinkLayer,
        header: &VnetHeader,
    ) -> Result<(), Unusable> {
        let frame = self.bytes.get(..length).ok_or(Unusable::Oversize)?;
        self.rest = Some(Rest::of(frame, link, header).ok_or(Unusable::Broken)?);
        Ok(())
    }

    /// Returns whether there are packets left.
    #[inline]
    pub(super) fn is_left(&self) -> bool {
        self.rest.is_some()
    }

    /// Puts the next packet into `to`, `headroom` bytes into its frame.
    ///
    /// # Errors
    /// `Oversize` if it is longer than the frame of `to`. The rest of the joined frame is gone then.
    pub(super) fn next(&mut self, to: &mut Packet, headroom: usize) -> Result<(), Unusable> {
        let rest = self.rest.take().ok_or(Unusable::Broken)?;
        let end = rest.end.min(rest.next + rest.size);
        let (header, payload) = (&self.bytes[..rest.payload], &self.bytes[rest.next..end]);
        let filled = to.fill(headroom, header).and_then(|()| to.set_len(header.len() + payload.len()));
        filled.ok_or(Unusable::Oversize)?;
        to.data_mut()[rest.payload..].copy_from_slice(payload);
        rest.finish(to.data_mut());
        self.rest = (end < rest.end).then_some(Rest { next: end, ..rest });
        Ok(())
    }
}

impl std::fmt::Debug for JoinedFrame {
    /// Shows no bytes, because they may be somebody's plaintext.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinedFrame {{ rest: {:?} }}", self.rest)
    }
}

impl Rest {
    /// Reads the headers of a joined frame. Returns `None` if they are not those of such a frame.
    fn of(frame: &[u8], link: LinkLayer, header: &VnetHeader) -> Option<Self> {
        let (kind, size) = header.joined().filter(|(_, size)| *size > 0)?;
        let packet = link.packet(frame)?;
        let ip = frame.len() - packet.len();
        let header = IpHeader::parse(packet).ok()?;
        let transport = ip + header.header_len();
        let bytes = header.payload(packet);
        let is_kind = match kind {
            Joined::TcpV4 => header.is_ipv4() && header.protocol == protocol::TCP,
            Joined::TcpV6 => !header.is_ipv4() && header.protocol == protocol::TCP,
            Joined::Udp => header.protocol == protocol::UDP,
        };
        let header_len = match kind {
            Joined::Udp => udp::HEADER,
            _ => usize::from(*bytes.get(DATA_OFFSET)? >> 4) * 4,
        };
        let least = if kind == Joined::Udp { udp::HEADER } else { TCP_HEADER };
        let count = bytes.len().checked_sub(header_len)?.div_ceil(size);
        let is_sound = is_kind
            && header.fragment == Fragment::Whole
            && header_len >= least
            && (1..=MOST).contains(&count);
        let payload = transport + header_len;
        is_sound.then_some(Self {
            kind,
            ip,
            transport,
            payload,
            next: payload,
            end: transport + bytes.len(),
            size,
            src: header.src,
            dst: header.dst,
        })
    }

    /// Makes the joined frame's header at the start of `frame` that of this packet, as Linux does
    /// (`inet_gso_segment`, `tcp_gso_segment`, `__udp_gso_segment`).
    fn finish(&self, frame: &mut [u8]) {
        let done = self.next - self.payload;
        let length = frame.len() - self.ip;
        let (packet, transport_at) = (&mut frame[self.ip..], self.transport - self.ip);
        if self.src.is_ipv4() {
            // Each packet has an identification of its own (RFC 6864 §4.3).
            let id = be16(packet, V4_ID).wrapping_add((done / self.size) as u16);
            put16(packet, V4_TOTAL, length as u16);
            put16(packet, V4_ID, id);
            put16(packet, V4_CHECKSUM, 0);
            let sum = checksum::of(&packet[..transport_at]);
            put16(packet, V4_CHECKSUM, sum);
        } else {
            put16(packet, V6_PAYLOAD, (length - V6_HEADER) as u16);
        }
        let transport = &mut packet[transport_at..];
        let (protocol, checksum_at) = match self.kind {
            Joined::Udp => {
                put16(transport, UDP_LENGTH, transport.len() as u16);
                (protocol::UDP, UDP_CHECKSUM)
            }
            Joined::TcpV4 | Joined::TcpV6 => {
                let sequence = be32(transport, SEQUENCE).wrapping_add(done as u32);
                transport[SEQUENCE..SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
                if self.next > self.payload {
                    transport[TCP_FLAGS] &= !CWR;
                }
                if self.next + self.size < self.end {
                    transport[TCP_FLAGS] &= !(FIN | PSH);
                }
                (protocol::TCP, TCP_CHECKSUM)
            }
        };
        put16(transport, checksum_at, 0);
        let sum = checksum::pseudo_header(self.src, self.dst, protocol, transport.len());
        let sum = checksum::finish(checksum::add(sum, transport));
        put16(transport, checksum_at, never_zero(sum));
    }
}

#[cfg(test)]
mod tests;
