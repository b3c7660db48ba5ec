//! Devices without Ethernet: those that carry bare IP packets to one far side, such as TUN devices,
//! PPP, raw-IP modems, WireGuard and IP tunnels. Ports put a made-up Ethernet header before each
//! packet, so that nothing above them is different.

use super::Mac;
use crate::{
    packet::Packet,
    wire::ethernet::{self, Ethernet},
};

/// What the frames of a device begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// An Ethernet header.
    Ethernet,
    /// An IP header.
    Ip,
}

impl LinkLayer {
    /// Returns the IP packet in `frame`, behind an Ethernet header and at most two VLAN tags if there is
    /// one. It may be any other bytes. `None` if the frame ends before, or has more tags.
    pub(super) fn packet(self, frame: &[u8]) -> Option<&[u8]> {
        match self {
            Self::Ethernet => ethernet::untagged(frame).ok().map(|(_, packet)| packet),
            Self::Ip => Some(frame),
        }
    }
}

/// The made-up MAC address of the gateway on a device without Ethernet.
pub const OWN_MAC: Mac = [2, 0, 0, 0, 0, 1];
/// The made-up MAC address of the far side.
pub const FAR_MAC: Mac = [2, 0, 0, 0, 0, 2];

/// Puts the made-up header before a received IP packet. Returns `None` if there is no room for it, or
/// no packet.
pub(super) fn wrap(packet: &mut Packet) -> Option<()> {
    let ethertype = match packet.data().first()? >> 4 {
        4 => ethernet::IPV4,
        _ => ethernet::IPV6,
    };
    packet.push_front(ethernet::HEADER)?;
    Ethernet { dst: OWN_MAC, src: FAR_MAC, ethertype }.emit(packet.data_mut());
    Some(())
}

/// Returns the EtherType and the IP packet of a frame that is to be sent. `None` if it is not IP, which
/// such a device does not carry.
pub(super) fn unwrap(frame: &[u8]) -> Option<(u16, &[u8])> {
    let Ethernet { ethertype, .. } = Ethernet::parse(frame).ok()?;
    let is_ip = matches!(ethertype, ethernet::IPV4 | ethernet::IPV6);
    is_ip.then(|| (ethertype, &frame[ethernet::HEADER..]))
}
