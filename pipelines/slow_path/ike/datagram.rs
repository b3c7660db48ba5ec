//! IKE messages in IP packets (RFC 7296 §2, RFC 3948 §2.2).

use wayfarer_dataplane::wire::{
    datagram::{self, Datagram},
    esp,
    fragment::Cutter,
    ip::{self, IpHeader},
};
use wayfarer_mobility::{
    path::Addresses,
    transmit::{Payload, Transmit},
};

/// The longest packet of IPv4, in bytes, that goes with DF. Routers may cut longer ones, since their path
/// may take no more than what every host does (RFC 791 §3.1).
pub(super) const V4_UNCUT: usize = 576;

/// Parses an IP packet that the workers classified as IKE. Returns the message and its addresses;
/// `None` if the checksum is wrong or it is not an IKE message after all.
pub(crate) fn parse(packet: &[u8]) -> Option<(Addresses, &[u8])> {
    let Datagram { src, dst, payload } = Datagram::parse(packet)?;
    let message = match dst.port() {
        esp::IKE_PORT => payload,
        _ => payload.strip_prefix(&esp::NON_ESP_MARKER)?,
    };
    Some((Addresses { local: dst, remote: src }, message))
}

/// Encodes a datagram as an IP packet; returns `None` if its two addresses are of different
/// families, or it is longer than any IP packet.
pub(crate) fn emit(transmit: &Transmit) -> Option<Vec<u8>> {
    let Addresses { local, remote } = transmit.addresses;
    let parts: &[&[u8]] = match &transmit.payload {
        Payload::Keepalive => &[&esp::KEEPALIVE],
        Payload::Message(message) | Payload::Probe(message) if local.port() == esp::IKE_PORT => &[message],
        Payload::Message(message) | Payload::Probe(message) => &[&esp::NON_ESP_MARKER, message],
    };
    datagram::emit(local, remote, parts)
}

/// Returns the IP packets, of at most `mtu` bytes, in which `packet` of [`emit`] is sent: itself, or its
/// fragments. `id` makes their identification.
///
/// The path may take less. Routers may cut packets of IPv4 that are longer than 576 bytes. Those of IPv6
/// are cut for every path (RFC 8200 §5).
pub(crate) fn cut(mut packet: Vec<u8>, mtu: usize, id: impl FnOnce() -> u32) -> Vec<Vec<u8>> {
    let Ok(header) = IpHeader::parse(&packet) else { return vec![] };
    let uncut = if header.is_ipv4() { V4_UNCUT } else { ip::V6_MIN_MTU };
    if packet.len() <= mtu.min(uncut) {
        return vec![packet];
    }
    let pieces = if header.is_ipv4() {
        ip::allow_fragments(&mut packet, header.header_len(), id() as u16);
        if packet.len() <= mtu {
            return vec![packet];
        }
        Cutter::v4(&packet, &header, mtu)
    } else {
        Cutter::v6(&packet, &header, mtu.min(ip::V6_MIN_MTU), id())
    };
    let written = pieces.into_iter().flatten().map(|piece| {
        let mut fragment = vec![0; piece.len()];
        piece.write(&mut fragment);
        fragment
    });
    written.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use wayfarer_dataplane::wire::fragment::{self, Part};

    fn packet(local: &str, length: usize) -> Vec<u8> {
        let local: SocketAddr = local.parse().unwrap();
        let addresses = Addresses { local, remote: local };
        emit(&Transmit { addresses, payload: Payload::Message(vec![7; length]) }).unwrap()
    }

    #[test]
    fn short_packets_are_sent_unchanged() {
        for (local, length) in [("192.0.2.1:500", 576), ("[2001:db8::1]:500", 1280)] {
            let headers = packet(local, 0).len();
            let whole = packet(local, length - headers);
            assert_eq!((whole.len(), cut(whole.clone(), 1500, || 9)), (length, vec![whole]));
        }
    }

    #[test]
    fn routers_may_cut_long_packets_of_ipv4() {
        for length in [549, 1200, 1400] {
            let whole = packet("192.0.2.1:500", length);
            let sent = cut(whole.clone(), 1500, || 9);
            let [sent] = &sent[..] else { panic!("{sent:?}") };
            assert_eq!(
                (&sent[4..8], sent.len(), &sent[20..]),
                (&[0, 9, 0, 0][..], whole.len(), &whole[20..])
            );
            assert!(IpHeader::parse(sent).is_ok());
        }
    }

    #[test]
    fn longer_packets_are_sent_in_fragments_that_join_to_the_message() {
        for (local, mtu, longest) in
            [("192.0.2.1:500", 1500, 1500), ("192.0.2.1:4500", 576, 576), ("[2001:db8::1]:4500", 1500, 1280)]
        {
            let whole = packet(local, 6000);
            let sent = cut(whole.clone(), mtu, || 0x0a0b_0c0d);
            let header = IpHeader::parse(&whole).unwrap();
            let mut joined = fragment::whole_header(&sent[0], header.payload(&whole).len()).to_vec();
            for piece in &sent {
                let header = IpHeader::parse(piece).unwrap();
                assert!(piece.len() <= longest, "{local}: {}", piece.len());
                let part = Part::read(&header, piece).unwrap();
                assert_eq!(part.id & 0xffff, 0x0c0d);
                joined.extend_from_slice(header.payload(piece));
            }
            assert_eq!(parse(&joined), parse(&whole), "{local}");
            assert!(parse(&joined).is_some_and(|(_, message)| message == [7; 6000]));
        }
    }

    #[test]
    fn no_packet_is_longer_than_ip_allows() {
        let addresses =
            Addresses { local: "192.0.2.1:500".parse().unwrap(), remote: "192.0.2.2:500".parse().unwrap() };
        let message = |length| Transmit { addresses, payload: Payload::Message(vec![7; length]) };
        assert!(emit(&message(65_487)).is_some());
        assert_eq!(emit(&message(65_488)), None);
    }
}
