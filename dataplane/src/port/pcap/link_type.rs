//! Link types of captures (tcpdump.org/linktypes.html), and how their packets become Ethernet frames.

use super::report::Skip;
use crate::{
    port::Mac,
    wire::{
        be16,
        ethernet::{self, Ethernet},
    },
};

/// How the packets of a capture begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkType {
    Ethernet,
    /// LINUX_SLL: "cooked", as from tcpdump's device `any`.
    Sll,
    /// LINUX_SLL2: the same with the number of the device.
    Sll2,
    /// An IP packet alone.
    Raw,
    /// An IP packet behind four bytes that name its family.
    Null,
}

/// Where the fields of a header of LINUX_SLL or LINUX_SLL2 are, and its length, in bytes. Of packet
/// type and address length, which are small numbers, it is the low byte.
struct Cooked {
    packet_type: usize,
    device_type: usize,
    address_len: usize,
    address: usize,
    protocol: usize,
    len: usize,
}

const SLL: Cooked =
    Cooked { packet_type: 1, device_type: 2, address_len: 5, address: 6, protocol: 14, len: 16 };
const SLL2: Cooked =
    Cooked { packet_type: 10, device_type: 8, address_len: 11, address: 12, protocol: 0, len: 20 };

/// Packet types of cooked captures. All others count as sent to the gateway.
const TO_ALL: u8 = 1;
const TO_GROUP: u8 = 2;

/// The device type of Ethernet (ARPHRD_ETHER).
const ETHERNET_DEVICE: u16 = 1;
/// The smallest EtherType; below are lengths and Linux's own protocol numbers (IEEE 802.3 §3.2.6).
const FIRST_ETHERTYPE: u16 = 0x0600;

impl LinkType {
    /// Returns the link type of a number in a capture; `None` if it is not supported.
    pub(super) fn new(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Ethernet),
            113 => Some(Self::Sll),
            276 => Some(Self::Sll2),
            // RAW, what BSDs wrote for it, IPV4 and IPV6.
            101 | 12 | 14 | 228 | 229 => Some(Self::Raw),
            // NULL and LOOP.
            0 | 108 => Some(Self::Null),
            _ => None,
        }
    }

    /// Returns the Ethernet header that a packet lacks, and the packet without the header that it
    /// has instead. The header says that the frame was sent to `mac`, unless the capture says that
    /// it was sent to a group.
    ///
    /// # Errors
    /// `NoHeader` or `NoIp`.
    pub(super) fn ethernet(self, packet: &[u8], mac: Mac) -> Result<(Option<Ethernet>, &[u8]), Skip> {
        let plain = |packet| {
            let ethertype = ip_ethertype(packet).ok_or(Skip::NoIp)?;
            Ok((Some(Ethernet { dst: mac, src: [0; 6], ethertype }), packet))
        };
        match self {
            Self::Ethernet => Ok((None, packet)),
            Self::Raw => plain(packet),
            // The family's number depends on the system that captured; the packet shows it anyway.
            Self::Null => plain(packet.get(4..).ok_or(Skip::NoHeader)?),
            Self::Sll => SLL.ethernet(packet, mac),
            Self::Sll2 => SLL2.ethernet(packet, mac),
        }
    }
}

impl Cooked {
    fn ethernet<'a>(&self, packet: &'a [u8], mac: Mac) -> Result<(Option<Ethernet>, &'a [u8]), Skip> {
        let (header, packet) = packet.split_at_checked(self.len).ok_or(Skip::NoHeader)?;
        let is_ethernet = be16(header, self.device_type) == ETHERNET_DEVICE;
        let ethertype = match be16(header, self.protocol) {
            protocol if is_ethernet && protocol >= FIRST_ETHERTYPE => protocol,
            // What the protocol means depends on the kind of device, but IP is IP on all of them.
            protocol if ip_ethertype(packet) == Some(protocol) => protocol,
            _ => return Err(Skip::NoIp),
        };
        let dst = match header[self.packet_type] {
            TO_ALL => ethernet::BROADCAST,
            TO_GROUP => group_mac(packet),
            _ => mac,
        };
        let has_mac = is_ethernet && usize::from(header[self.address_len]) == size_of::<Mac>();
        let src = header[self.address..].first_chunk().filter(|_| has_mac).copied().unwrap_or_default();
        Ok((Some(Ethernet { dst, src, ethertype }), packet))
    }
}

/// Returns the EtherType of an IP packet by its version.
fn ip_ethertype(packet: &[u8]) -> Option<u16> {
    match packet.first()? >> 4 {
        4 => Some(ethernet::IPV4),
        6 => Some(ethernet::IPV6),
        _ => None,
    }
}

/// Returns the MAC address of the group to which a packet was sent (RFC 1112 §6.4, RFC 2464 §7). All
/// stations are the group of a packet that is not IP.
fn group_mac(packet: &[u8]) -> Mac {
    match ip_ethertype(packet) {
        Some(ethernet::IPV4) if packet.len() >= 20 => {
            [0x01, 0x00, 0x5e, packet[17] & 0x7f, packet[18], packet[19]]
        }
        Some(ethernet::IPV6) if packet.len() >= 40 => {
            [0x33, 0x33, packet[36], packet[37], packet[38], packet[39]]
        }
        _ => ethernet::BROADCAST,
    }
}
