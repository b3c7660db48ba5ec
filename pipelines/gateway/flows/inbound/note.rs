//! Notes on ESP packets, which the passes over a burst fill in.

use super::super::{
    super::{batch::Batch, inbound::Numbered, io::Io, rings::Event},
    key::{InboundKey, V6Destination, split_ports, v6_addresses, v6_ends},
    plain::{EspPlace, Shape},
};
use super::inner::{Inner, Outer, Payload};
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::{Encap, InboundSa, Mode, Path},
    window::{self, Newest},
    wire::{Address, esp, ethernet},
};

/// A note on a plain ESP packet. The packet's data is its frame.
#[derive(Debug)]
pub(in super::super) struct Note<'r> {
    pub(super) key: InboundKey,
    pub(super) sa: Option<&'r InboundSa>,
    /// The slot of the full sequence number, which is authentic only after the packet was opened.
    pub(super) number: window::Slot,
    /// The tag of the path that the packet came by, if that is IPv4.
    pub(super) tag: u64,
    /// Source and destination as in the packet, the first byte lowest, if it is IPv4.
    pub(super) addresses: u64,
    /// The packet inside, if that is plain.
    pub(super) inner: Option<Inner>,
    /// The slot of what is remembered of its destination.
    pub(super) inner_slot: u32,
    pub(super) slot: u32,
    pub(super) esp: EspPlace,
    /// The offset of the end of the packet in its frame.
    pub(super) end: u16,
    pub(super) traffic_class: u8,
    /// The packet's place in its burst.
    pub(super) place: u8,
    /// `true` if the number was the highest so far.
    pub(super) newest: bool,
    /// The port by which the packet inside leaves, if it takes the short way.
    pub(super) exit: Option<u16>,
    /// The reason for a drop, if the packet is to be dropped.
    pub(super) fate: Result<(), DropReason>,
}

/// Plain ESP packets, most of them of known SAs.
pub(in super::super) type Known<'r> = Batch<Note<'r>>;

impl<'r> Note<'r> {
    /// Notes an ESP packet of this shape. `addresses` are as in the packet, if that is IPv4.
    #[inline(always)]
    pub(in super::super) fn new(
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
            addresses,
            inner: None,
            inner_slot: 0,
            slot,
            esp,
            end: ethernet::HEADER as u16 + shape.total_len,
            traffic_class: shape.traffic_class,
            place,
            newest: false,
            exit: None,
            fate: Ok(()),
        }
    }

    /// Returns the offset of the ESP payload in the frame: of the packet inside in tunnel mode.
    #[inline(always)]
    pub(super) fn payload_at(&self, sa: &InboundSa) -> usize {
        usize::from(self.esp.at) + esp::HEADER + sa.overhead.iv()
    }

    /// Returns source address and UDP ports as one number, if the packet is IPv4.
    #[inline(always)]
    pub(super) fn from(&self) -> u64 {
        u64::from(self.addresses as u32) | u64::from(self.esp.udp_ports) << 32
    }

    /// Looks at the packet inside, now that this one is opened. `frame` is its frame.
    #[inline(always)]
    pub(super) fn look_inside(&mut self, frame: &[u8], sa: &InboundSa) {
        let text = frame.get(self.payload_at(sa)..usize::from(self.end));
        let Some(payload) = text.and_then(|text| Payload::new(text, sa)) else { return };
        match sa.mode {
            Mode::Tunnel if payload.is_ipv4() => self.inner = payload.look_inside_v4(self.traffic_class),
            Mode::Tunnel => self.inner = payload.look_inside_v6(self.traffic_class),
            Mode::Transport => {
                let outer = Outer { addresses: self.addresses, is_ipv4: self.key.is_ipv4() };
                self.inner = payload.of_transport(outer);
            }
        }
    }

    /// Returns source and destination of the packet inside, which is IPv6. `frame` is this packet's.
    #[inline(never)]
    pub(super) fn inner_v6_ends(&self, frame: &[u8], sa: &InboundSa) -> (Address, Address) {
        let from = match sa.mode {
            Mode::Tunnel => self.payload_at(sa) - ethernet::HEADER,
            Mode::Transport => 0,
        };
        v6_addresses(&v6_ends(frame.get(from..).unwrap_or_default()))
    }

    /// Returns outer source and destination. `frame` is the packet's.
    fn ends(&self, frame: &[u8]) -> (Address, Address) {
        match self.key.is_ipv4() {
            true => {
                let src = Address::v4((self.addresses as u32).swap_bytes());
                (src, self.key.dst(&V6Destination::default()))
            }
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
    pub(super) fn path(&self, frame: &[u8]) -> Path {
        let (src, dst) = self.ends(frame);
        Path { local: dst.into(), remote: src.into(), encap: self.encap() }
    }

    /// Tells `sa` where its newest packet came from. `frame` is the packet's.
    #[inline(always)]
    pub(super) fn tell_path(&self, sa: &InboundSa, frame: &[u8], io: &Io) {
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
        match (self.sa, self.fate) {
            (Some(sa), Ok(())) => Some((sa, &self.number)),
            _ => None,
        }
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
