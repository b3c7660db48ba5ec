//! UDP datagrams in IP packets (RFC 768).

use super::{
    checksum,
    ip::{self, Fragment, IpHeader, protocol},
    udp::{self, Udp},
};
use std::net::{IpAddr, SocketAddr};

/// A whole datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'p> {
    /// Address and port that it comes from.
    pub src: SocketAddr,
    /// Address and port that it goes to.
    pub dst: SocketAddr,
    /// What it carries.
    pub payload: &'p [u8],
}

impl<'p> Datagram<'p> {
    /// Reads the IP packet `packet`. Returns `None` if it is not one whole datagram, or has a wrong checksum.
    pub fn parse(packet: &'p [u8]) -> Option<Self> {
        let header = IpHeader::parse(packet).ok()?;
        if header.protocol != protocol::UDP || header.fragment != Fragment::Whole {
            return None;
        }
        let (src, dst): (IpAddr, IpAddr) = (header.src.into(), header.dst.into());
        let bytes = header.payload(packet);
        let udp = Udp::parse(bytes).ok()?;
        let bytes = bytes.get(..udp.length)?;
        if udp.checksum != 0 {
            let pseudo = checksum::pseudo_header(src, dst, protocol::UDP, bytes.len());
            if checksum::finish(checksum::add(pseudo, bytes)) != 0 {
                return None;
            }
        }
        Some(Self {
            src: SocketAddr::new(src, udp.src_port),
            dst: SocketAddr::new(dst, udp.dst_port),
            payload: bytes.get(udp::HEADER..)?,
        })
    }
}

/// Encodes the datagram from `src` to `dst` that carries `parts`, one after the other, as an IP packet. Returns
/// `None` if the addresses are of different families, or it is longer than any IP packet.
pub fn emit(src: SocketAddr, dst: SocketAddr, parts: &[&[u8]]) -> Option<Vec<u8>> {
    if src.is_ipv4() != dst.is_ipv4() {
        return None;
    }
    let length = udp::HEADER + parts.iter().map(|part| part.len()).sum::<usize>();
    if ip::V6_HEADER + length > usize::from(u16::MAX) {
        return None;
    }
    let mut packet = vec![0; ip::V6_HEADER];
    let ip_len = ip::emit(&mut packet, src.ip(), dst.ip(), protocol::UDP, length);
    packet.truncate(ip_len);
    packet.resize(ip_len + udp::HEADER, 0);
    parts.iter().for_each(|part| packet.extend_from_slice(part));
    let header = Udp { src_port: src.port(), dst_port: dst.port(), length, checksum: 0 };
    header.emit(packet.get_mut(ip_len..)?);
    udp::set_checksum(packet.get_mut(ip_len..)?, src.ip(), dst.ip());
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_read() {
        for (src, dst) in [("192.0.2.1:434", "192.0.2.2:99"), ("[2001:db8::1]:434", "[2001:db8::2]:99")] {
            let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
            let packet = emit(src, dst, &[b"one ", b"two"]).unwrap();
            assert_eq!(Datagram::parse(&packet), Some(Datagram { src, dst, payload: b"one two" }));
            for at in packet.len() - udp::HEADER - b"one two".len()..packet.len() {
                let mut wrong = packet.clone();
                wrong[at] ^= 1;
                assert_eq!(Datagram::parse(&wrong), None, "byte {at}");
            }
        }
    }

    #[test]
    fn families_do_not_mix_and_nothing_is_longer_than_a_packet() {
        let [v4, v6]: [SocketAddr; 2] = ["192.0.2.1:1", "[2001:db8::1]:1"].map(|text| text.parse().unwrap());
        assert_eq!(emit(v4, v6, &[]), None);
        assert!(emit(v6, v6, &[&[0; 65_487]]).is_some());
        assert_eq!(emit(v6, v6, &[&[0; 65_488]]), None);
    }
}
