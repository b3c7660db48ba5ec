//! Plain packets out of opened ones.

use super::super::{
    super::{
        decapsulate::{self, decapsulated_class},
        encapsulate::KeptHeader,
    },
    key::split_ports,
};
use wayfarer_dataplane::{
    sa::{Flow, InboundSa},
    wire::{
        Address, esp, ethernet,
        ip::{V4_HEADER, V6_HEADER, protocol},
        plain::{self, PlainHeader, PlainV4, PlainV6},
    },
};

/// The payload of an opened ESP packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload<'p> {
    /// The payload with padding, trailer and ICV.
    text: &'p [u8],
    /// Its length without them in bytes.
    length: usize,
    next_header: u8,
}

/// What is known of an ESP packet in transport mode, whose outer header is that of the packet inside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    /// Source and destination as in the packet, the first byte lowest, if it is IPv4.
    pub addresses: u64,
    pub is_ipv4: bool,
}

/// A plain packet out of an SA.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inner {
    /// Source and destination as in the packet, the first byte lowest, if it is IPv4.
    addresses: u64,
    /// Its ports, as [`PlainHeader::ports`] gives them.
    ports: u32,
    /// Its length in bytes.
    pub length: u16,
    pub protocol: u8,
    pub is_ipv4: bool,
}

impl Inner {
    /// Notes a packet with a plain `header`, and `addresses` if it is IPv4.
    #[inline(always)]
    fn new<H: PlainHeader>(header: H, addresses: u64, ports: u32) -> Self {
        let (length, is_ipv4) = (header.total_len() as u16, H::LENGTH == V4_HEADER);
        Self { addresses, ports, length, protocol: header.protocol(), is_ipv4 }
    }

    /// Returns source and destination, if the packet is IPv4.
    #[inline(always)]
    pub(super) fn v4_ends(&self) -> (Address, Address) {
        let v4 = |bits: u64| Address::v4((bits as u32).swap_bytes());
        (v4(self.addresses), v4(self.addresses >> 32))
    }

    /// Returns the flow that the packet, from `src` to `dst`, is of.
    #[inline(always)]
    pub(super) fn flow(&self, src: Address, dst: Address) -> Flow {
        let ports = Some(split_ports(self.ports));
        Flow { src, dst, protocol: self.protocol, ports, is_later_fragment: false }
    }

    #[inline(always)]
    pub(super) fn ethertype(&self) -> u16 {
        if self.is_ipv4 { ethernet::IPV4 } else { ethernet::IPV6 }
    }
}

impl<'p> Payload<'p> {
    /// Returns the payload of a packet of `sa`, which is `text` with the ICV, if its end is right.
    #[inline(always)]
    pub(super) fn new(text: &'p [u8], sa: &InboundSa) -> Option<Self> {
        let end = text.len().checked_sub(sa.overhead.icv())?;
        let [padding, next_header] = *text.get(..end)?.last_chunk()?;
        let length = (end - esp::TRAILER).checked_sub(usize::from(padding))?;
        Some(Self { text, length, next_header })
    }

    /// Returns whether an IPv4 packet is in it, if that came in tunnel mode.
    #[inline(always)]
    pub(super) fn is_ipv4(&self) -> bool {
        self.next_header == protocol::IPV4
    }

    /// Returns the IPv4 packet in it, if that is plain and not changed by the outer header, whose traffic class
    /// is `outer_class`.
    #[inline(always)]
    pub(super) fn look_inside_v4(&self, outer_class: u8) -> Option<Inner> {
        let header = PlainV4::read(self.text.first_chunk()?, false)?;
        let ports = header.ports(&self.text[V4_HEADER..])?;
        let is_plain = passes_as_it_is(header, self.length, outer_class);
        is_plain.then(|| Inner::new(header, header.addresses, ports))
    }

    /// Does the same for an IPv6 packet.
    #[inline(never)]
    pub(super) fn look_inside_v6(self, outer_class: u8) -> Option<Inner> {
        if self.next_header != protocol::IPV6 {
            return None;
        }
        let header = PlainV6::read(self.text.first_chunk()?)?;
        let ports = header.ports(&self.text[V6_HEADER..])?;
        passes_as_it_is(header, self.length, outer_class).then(|| Inner::new(header, 0, ports))
    }

    /// Returns the packet whose payload it is, if that is plain.
    #[inline(never)]
    pub(super) fn of_transport(self, outer: Outer) -> Option<Inner> {
        let (Outer { addresses, is_ipv4 }, protocol) = (outer, self.next_header);
        let ports = plain::ports(protocol, 0, self.length, self.text.get(..self.length)?)?;
        let length = (KeptHeader::plain(is_ipv4, protocol).length + self.length) as u16;
        Some(Inner { addresses, ports, length, protocol, is_ipv4 })
    }
}

/// Returns whether a packet with a plain `header`, of which `length` bytes are there, is whole, has hops
/// left, and is not changed by the outer header, whose traffic class is `outer`.
#[inline(always)]
fn passes_as_it_is(header: impl PlainHeader, length: usize, outer: u8) -> bool {
    let class = header.traffic_class();
    let is_changed = outer & decapsulate::ECN != 0 && decapsulated_class(outer, class) != Ok(class);
    header.total_len() <= length && header.hop_limit() > 1 && !is_changed
}
