//! ICMP errors that say that a packet of the host was too big, for the slow path, on a device that the
//! gateway shares with the kernel.
//!
//! The [`Classifier`](super::classifier::Classifier) leaves them to the kernel, which may have sent the
//! packet. Through this socket the gateway sees those that may be about its own ESP.

use super::{
    PortError,
    device::Device,
    link_layer::LinkLayer,
    socket_filter::{self, *},
};
use crate::wire::ethernet;
use std::os::fd::OwnedFd;

/// A packet socket that receives ICMP "fragmentation needed" (RFC 792) and ICMPv6 "packet too big" (RFC
/// 4443) that quote ESP, UDP or fragments of IPv6. Never blocks.
#[derive(Debug)]
pub struct TooBigSocket {
    socket: OwnedFd,
    /// Where the IP header begins in a frame.
    ip_at: usize,
}

impl TooBigSocket {
    /// Opens a socket on `device`. It receives incoming frames to the device's MAC address, if it has
    /// one.
    ///
    /// # Errors
    /// [`PortError::Permission`] without CAP_NET_RAW.
    pub fn open(device: &Device) -> Result<Self, PortError> {
        let (filter, ip_at) = match device.link() {
            LinkLayer::Ethernet => (&FRAMES, ethernet::HEADER),
            LinkLayer::Ip => (&PACKETS, 0),
        };
        let socket = socket_filter::packet_socket(device.index(), filter).map_err(|e| {
            PortError::system(device.name(), "open a packet socket for ICMP errors", "CAP_NET_RAW", e)
        })?;
        Ok(Self { socket, ip_at })
    }

    /// Takes the next frame. Returns its IP packet, or `None` if there is none. A frame longer than
    /// `room` is skipped.
    pub fn recv<'r>(&self, room: &'r mut [u8]) -> Option<&'r [u8]> {
        let length = socket_filter::receive(&self.socket, room)?;
        Some(room.get(self.ip_at..length).unwrap_or_default())
    }
}

const FRAGMENTATION_NEEDED: u32 = 0x0304;
const PACKET_TOO_BIG: u32 = 2;
const ESP: u32 = libc::IPPROTO_ESP as u32;
const UDP: u32 = libc::IPPROTO_UDP as u32;
const FRAGMENT: u32 = libc::IPPROTO_FRAGMENT as u32;

/// Accepts the frames that [`TooBigSocket`] receives, by their EtherType.
const FRAMES: [libc::sock_filter; LENGTH] = filter(
    ethernet::HEADER as u32,
    [
        op(LOAD_HALF, 12),
        jump(JUMP_EQUAL, libc::ETH_P_IPV6 as u32, TO_V6, 0),
        jump(JUMP_EQUAL, libc::ETH_P_IP as u32, 0, TO_END),
    ],
);

/// Accepts the bare IP packets that it receives, by their version, 6 or 4.
const PACKETS: [libc::sock_filter; LENGTH] =
    filter(0, [op(LOAD_BYTE, 0), jump(JUMP_ANY_BIT, 0x20, TO_V6, 0), jump(JUMP_ANY_BIT, 0x40, 0, TO_END)]);

const LENGTH: usize = 29;
/// The number of instructions between those of the family and the part for IPv6, or the refusal.
const TO_V6: u8 = 10;
const TO_END: u8 = 18;

/// Returns a filter whose instructions `family` go to the part for the packet's family. It accepts what
/// is in no VLAN: without a tag, or with one of VLAN 0. The IP header begins at `ip`.
const fn filter(ip: u32, [load, if_v6, if_v4]: [libc::sock_filter; 3]) -> [libc::sock_filter; LENGTH] {
    [
        op(LOAD_WORD, PACKET_TYPE),
        jump(JUMP_EQUAL, libc::PACKET_HOST as u32, 0, 26),
        op(LOAD_WORD, VLAN_TAG_PRESENT),
        jump(JUMP_EQUAL, 0, 3, 0),
        op(LOAD_WORD, VLAN_TAG),
        op(AND, 0x0fff),
        jump(JUMP_EQUAL, 0, 0, 21),
        load,
        if_v6,
        if_v4,
        // IPv4, in one piece.
        op(LOAD_BYTE, ip + 9),
        jump(JUMP_EQUAL, libc::IPPROTO_ICMP as u32, 0, 16),
        op(LOAD_HALF, ip + 6),
        jump(JUMP_ANY_BIT, 0x3fff, 14, 0),
        op(SET_X_TO_HEADER_LEN, ip),
        op(LOAD_HALF_AT_X, ip),
        jump(JUMP_EQUAL, FRAGMENTATION_NEEDED, 0, 11),
        op(LOAD_BYTE_AT_X, ip + 8 + 9),
        op(JUMP, 5),
        // IPv6.
        op(LOAD_BYTE, ip + 6),
        jump(JUMP_EQUAL, libc::IPPROTO_ICMPV6 as u32, 0, 7),
        op(LOAD_BYTE, ip + 40),
        jump(JUMP_EQUAL, PACKET_TOO_BIG, 0, 5),
        op(LOAD_BYTE, ip + 40 + 8 + 6),
        // The protocol of the quoted packet.
        jump(JUMP_EQUAL, ESP, 2, 0),
        jump(JUMP_EQUAL, UDP, 1, 0),
        jump(JUMP_EQUAL, FRAGMENT, 0, 1),
        op(RETURN, u32::MAX),
        op(RETURN, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        icmp::{self, Problem},
        ip::{self, IpHeader, protocol},
    };
    use std::{net::IpAddr, os::unix::net::UnixDatagram};

    const MTU: Problem = Problem::TooBig { mtu: 1400 };

    /// The frame of an ICMP error about a packet of this protocol.
    fn error(problem: Problem, family: &str, protocol: u8) -> Vec<u8> {
        let [local, remote, router]: [IpAddr; 3] = match family {
            "v4" => ["192.0.2.1", "198.51.100.7", "192.0.2.254"],
            _ => ["2001:db8::1", "2001:db8::7", "2001:db8::fe"],
        }
        .map(|text| text.parse().unwrap());
        let mut packet = vec![0; 100];
        let length = if family == "v4" { 80 } else { 60 };
        ip::emit(&mut packet, local, remote, protocol, length);
        let error = icmp::error(problem, router, &IpHeader::parse(&packet).unwrap(), &packet).unwrap();
        let mut frame = vec![0; 12];
        let ethertype = if family == "v4" { ethernet::IPV4 } else { ethernet::IPV6 };
        frame.extend(ethertype.to_be_bytes());
        frame.extend(error);
        frame
    }

    #[test]
    fn only_errors_that_may_be_about_esp_are_received() {
        let (from, to) = UnixDatagram::pair().unwrap();
        to.set_nonblocking(true).unwrap();
        let to = OwnedFd::from(to);
        socket_filter::attach(&to, &FRAMES).unwrap();
        let mut frame = [0; 2048];
        let mut is_received = |sent: &[u8]| {
            from.send(sent).unwrap();
            socket_filter::receive(&to, &mut frame).is_some_and(|length| frame[..length] == *sent)
        };
        for family in ["v4", "v6"] {
            for quoted in [protocol::ESP, protocol::UDP] {
                assert!(is_received(&error(MTU, family, quoted)), "{family} {quoted}");
            }
            assert!(!is_received(&error(MTU, family, protocol::TCP)), "{family}");
            assert!(!is_received(&error(Problem::HostUnreachable, family, protocol::ESP)), "{family}");
            let whole = error(MTU, family, protocol::ESP);
            assert!((0..40).all(|length| !is_received(&whole[..length])), "{family}");
        }
        let mut fragment = error(MTU, "v4", protocol::ESP);
        fragment[14 + 6] = 0x20;
        assert!(!is_received(&fragment));
        // Options before the message.
        let mut options = error(MTU, "v4", protocol::ESP);
        options.splice(34..34, [1; 8]);
        options[14] = 0x47;
        assert!(is_received(&options));
    }

    #[test]
    fn bare_packets_are_told_apart_by_their_version() {
        let (from, to) = UnixDatagram::pair().unwrap();
        to.set_nonblocking(true).unwrap();
        let to = TooBigSocket { socket: OwnedFd::from(to), ip_at: 0 };
        socket_filter::attach(&to.socket, &PACKETS).unwrap();
        let mut room = [0; 2048];
        let mut is_received = |sent: &[u8]| {
            from.send(sent).unwrap();
            to.recv(&mut room).is_some_and(|packet| packet == sent)
        };
        for family in ["v4", "v6"] {
            assert!(is_received(&error(MTU, family, protocol::ESP)[14..]), "{family}");
            assert!(!is_received(&error(MTU, family, protocol::TCP)[14..]), "{family}");
            let mut other = error(MTU, family, protocol::ESP)[14..].to_vec();
            other[0] &= 0x0f;
            assert!(!is_received(&other), "{family}");
        }
    }
}
