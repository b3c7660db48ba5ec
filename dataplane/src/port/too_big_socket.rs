//! ICMP errors that say that a packet of the host was too big, for the slow path, on a device that the
//! gateway shares with the kernel.
//!
//! The [`Classifier`](super::classifier::Classifier) leaves them to the kernel, which may have sent the
//! packet. Through this socket the gateway sees those that may be about its own ESP.

use super::{
    PortError,
    device::Device,
    socket_filter::{self, *},
};
use std::os::fd::OwnedFd;

/// A packet socket that receives whole frames of ICMP "fragmentation needed" (RFC 792) and ICMPv6 "packet
/// too big" (RFC 4443) that quote ESP, UDP or fragments of IPv6. Never blocks.
#[derive(Debug)]
pub struct TooBigSocket(OwnedFd);

impl TooBigSocket {
    /// Opens a socket on `device`. It receives incoming frames to the device's MAC address.
    ///
    /// # Errors
    /// [`PortError::Permission`] without CAP_NET_RAW.
    pub fn open(device: &Device) -> Result<Self, PortError> {
        let socket = socket_filter::packet_socket(device.index(), &FILTER);
        socket.map(Self).map_err(|e| {
            PortError::system(device.name(), "open a packet socket for ICMP errors", "CAP_NET_RAW", e)
        })
    }

    /// Takes the next frame. Returns its length in bytes, or `None` if there is none. A frame
    /// longer than `frame` is skipped.
    pub fn recv(&self, frame: &mut [u8]) -> Option<usize> {
        socket_filter::receive(&self.0, frame)
    }
}

const IP: u32 = 14;
const FRAGMENTATION_NEEDED: u32 = 0x0304;
const PACKET_TOO_BIG: u32 = 2;
const ESP: u32 = libc::IPPROTO_ESP as u32;
const UDP: u32 = libc::IPPROTO_UDP as u32;
const FRAGMENT: u32 = libc::IPPROTO_FRAGMENT as u32;

/// Accepts the frames that [`TooBigSocket`] receives, if they are in no VLAN: without a tag, or with one
/// of VLAN 0.
const FILTER: [libc::sock_filter; 29] = [
    op(LOAD_WORD, PACKET_TYPE),
    jump(JUMP_EQUAL, libc::PACKET_HOST as u32, 0, 26),
    op(LOAD_WORD, VLAN_TAG_PRESENT),
    jump(JUMP_EQUAL, 0, 3, 0),
    op(LOAD_WORD, VLAN_TAG),
    op(AND, 0x0fff),
    jump(JUMP_EQUAL, 0, 0, 21),
    op(LOAD_HALF, 12),
    jump(JUMP_EQUAL, libc::ETH_P_IPV6 as u32, 10, 0),
    jump(JUMP_EQUAL, libc::ETH_P_IP as u32, 0, 18),
    // IPv4, in one piece.
    op(LOAD_BYTE, IP + 9),
    jump(JUMP_EQUAL, libc::IPPROTO_ICMP as u32, 0, 16),
    op(LOAD_HALF, IP + 6),
    jump(JUMP_ANY_BIT, 0x3fff, 14, 0),
    op(SET_X_TO_HEADER_LEN, IP),
    op(LOAD_HALF_AT_X, IP),
    jump(JUMP_EQUAL, FRAGMENTATION_NEEDED, 0, 11),
    op(LOAD_BYTE_AT_X, IP + 8 + 9),
    op(JUMP, 5),
    // IPv6.
    op(LOAD_BYTE, IP + 6),
    jump(JUMP_EQUAL, libc::IPPROTO_ICMPV6 as u32, 0, 7),
    op(LOAD_BYTE, IP + 40),
    jump(JUMP_EQUAL, PACKET_TOO_BIG, 0, 5),
    op(LOAD_BYTE, IP + 40 + 8 + 6),
    // The protocol of the quoted packet.
    jump(JUMP_EQUAL, ESP, 2, 0),
    jump(JUMP_EQUAL, UDP, 1, 0),
    jump(JUMP_EQUAL, FRAGMENT, 0, 1),
    op(RETURN, u32::MAX),
    op(RETURN, 0),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        ethernet,
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
        socket_filter::attach(&to, &FILTER).unwrap();
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
}
