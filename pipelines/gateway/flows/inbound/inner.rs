//! Plain packets out of opened ones.

use super::super::{
    super::{
        decapsulate::{self, decapsulated_class},
        encapsulate::KeptHeader,
    },
    key::split_ports,
};
use wayfarer_dataplane::{
    sa::{Flow, InboundSa, Mode},
    wire::{
        Address, esp, ethernet,
        ip::{V4_HEADER, V6_HEADER, protocol},
        plain::{self, PlainHeader, PlainV4, PlainV6},
    },
};

/// What is known of an opened packet around the one inside. `ends` returns its source and destination.
#[derive(Debug)]
pub(super) struct Outer<E> {
    /// Where the ESP payload with the ICV begins in the frame, and where it ends.
    pub payload: (usize, usize),
    pub traffic_class: u8,
    pub is_ipv4: bool,
    pub ends: E,
}

/// A plain packet out of an SA.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner {
    pub src: Address,
    pub dst: Address,
    /// Its ports, as [`PlainHeader::ports`] gives them.
    ports: u32,
    /// The slot of what is remembered of its destination.
    pub slot: u32,
    /// Its length in bytes.
    pub length: u16,
    pub protocol: u8,
    pub is_ipv4: bool,
}

impl Inner {
    /// Notes a packet with a plain `header` from and to `ends`.
    #[inline(always)]
    fn new<H: PlainHeader>(header: H, (src, dst): (Address, Address), ports: u32) -> Self {
        let (length, is_ipv4) = (header.total_len() as u16, H::LENGTH == V4_HEADER);
        Self { src, dst, ports, slot: 0, length, protocol: header.protocol(), is_ipv4 }
    }

    /// Returns the flow that the packet is of.
    #[inline(always)]
    pub(super) fn flow(&self) -> Flow {
        let Self { src, dst, protocol, .. } = *self;
        Flow { src, dst, protocol, ports: Some(split_ports(self.ports)), is_later_fragment: false }
    }

    #[inline(always)]
    pub(super) fn ethertype(&self) -> u16 {
        if self.is_ipv4 { ethernet::IPV4 } else { ethernet::IPV6 }
    }
}

/// Returns the packet within an opened one, whose frame is `frame`, if it is plain and not changed by the
/// outer header.
#[inline(always)]
pub(super) fn look_inside<E>(frame: &[u8], outer: Outer<E>, sa: &InboundSa) -> Option<Inner>
where
    E: Fn() -> (Address, Address),
{
    let text = frame.get(outer.payload.0..outer.payload.1)?;
    let [padding, next_header] = esp_end(text, sa)?;
    let length = text.len() - sa.overhead.icv() - esp::TRAILER;
    let length = length.checked_sub(usize::from(padding))?;
    match (sa.mode, next_header) {
        (Mode::Tunnel, protocol::IPV4) => {
            let header = PlainV4::read(text.first_chunk()?, false)?;
            let ports = header.ports(&text[V4_HEADER..])?;
            let ends = (Address::v4(header.src()), Address::v4(header.dst()));
            passes_as_it_is(header, length, outer.traffic_class).then(|| Inner::new(header, ends, ports))
        }
        (Mode::Tunnel, protocol::IPV6) => look_inside_v6(text, length, outer.traffic_class),
        (Mode::Tunnel, _) => None,
        (Mode::Transport, _) => {
            look_at_payload(text.get(..length)?, next_header, outer.is_ipv4, (outer.ends)())
        }
    }
}

/// Does the same for IPv6. The packet is the first `length` bytes of `text`, or less.
#[inline(never)]
fn look_inside_v6(text: &[u8], length: usize, outer_class: u8) -> Option<Inner> {
    let header = PlainV6::read(text.first_chunk()?)?;
    let ports = header.ports(&text[V6_HEADER..])?;
    passes_as_it_is(header, length, outer_class).then(|| Inner::new(header, (header.src, header.dst), ports))
}

/// Does the same in transport mode, in which the outer header is that of the packet.
#[inline(never)]
fn look_at_payload(
    payload: &[u8],
    protocol: u8,
    is_ipv4: bool,
    (src, dst): (Address, Address),
) -> Option<Inner> {
    let ports = plain::ports(protocol, 0, payload.len(), payload)?;
    let length = KeptHeader::plain(is_ipv4, protocol).length + payload.len();
    Some(Inner { src, dst, ports, slot: 0, length: length as u16, protocol, is_ipv4 })
}

/// Returns whether a packet with a plain `header`, of which `length` bytes are there, is whole, has hops
/// left, and is not changed by the outer header, whose traffic class is `outer`.
#[inline(always)]
fn passes_as_it_is(header: impl PlainHeader, length: usize, outer: u8) -> bool {
    let class = header.traffic_class();
    let is_changed = outer & decapsulate::ECN != 0 && decapsulated_class(outer, class) != Ok(class);
    header.total_len() <= length && header.hop_limit() > 1 && !is_changed
}

/// Returns pad length and next header of an opened packet: `text` with the ICV.
#[inline(always)]
fn esp_end(text: &[u8], sa: &InboundSa) -> Option<[u8; 2]> {
    let end = text.len().checked_sub(sa.overhead.icv())?;
    text.get(..end)?.last_chunk().copied()
}
