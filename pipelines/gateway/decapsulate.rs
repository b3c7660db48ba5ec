//! Decapsulation of an opened ESP packet (RFC 4303 §3.4.4, RFC 4301 §5.2).

use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    sa::{InboundSa, Mode},
    wire::{
        Address, checksum, esp,
        ip::{self, IpHeader, protocol},
        udp,
    },
};

/// The ECN field (RFC 3168 §5).
pub(super) const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const CE: u8 = 0b11;

/// Reduces `packet`, whose ESP at `esp_at` was opened and found authentic, to its inner packet, and
/// writes that packet's header to `inner`.
///
/// # Errors
/// The reason why the packet must be dropped. It may be half changed then.
#[inline(always)]
pub fn decapsulate(
    packet: &mut Packet,
    inner: &mut IpHeader,
    outer: &IpHeader,
    esp_at: usize,
    sa: &InboundSa,
) -> Result<(), DropReason> {
    let start = esp_at + esp::HEADER + sa.overhead.iv();
    let end = packet.len() - sa.overhead.icv();
    let plain = &packet.data()[start..end];
    let (length, next_header) = esp::trailer(plain).ok_or(DropReason::PadLength)?;
    match (sa.mode, next_header) {
        (_, protocol::NONE) => Err(DropReason::Dummy),
        (Mode::Tunnel, protocol::IPV4 | protocol::IPV6) => {
            tunnel(packet, inner, outer, start, length, next_header)
        }
        (Mode::Transport, _) => {
            *inner = transport(packet, outer, esp_at, start, length, next_header)?;
            Ok(())
        }
        (Mode::Tunnel, _) => Err(DropReason::NextHeader),
    }
}

#[inline(always)]
fn tunnel(
    packet: &mut Packet,
    inner: &mut IpHeader,
    outer: &IpHeader,
    start: usize,
    length: usize,
    next_header: u8,
) -> Result<(), DropReason> {
    inner.read(&packet.data()[start..start + length]).map_err(|_| DropReason::InnerMalformed)?;
    if inner.is_ipv4() != (next_header == protocol::IPV4) {
        return Err(DropReason::InnerMalformed);
    }
    packet.pull_front(start).ok_or(DropReason::InnerMalformed)?;
    // Bytes beyond the inner packet's own length are traffic flow confidentiality padding (RFC 4303
    // §2.7).
    packet.set_len(inner.total_len()).ok_or(DropReason::InnerMalformed)?;
    let class = decapsulated_class(outer.traffic_class, inner.traffic_class)?;
    if class != inner.traffic_class {
        ip::set_traffic_class(packet.data_mut(), class);
        inner.traffic_class = class;
    }
    Ok(())
}

/// Returns the inner traffic class after decapsulation: RFC 6040 §4.2, figure 4. The inner DSCP
/// stays (RFC 4301 §5.1.2).
pub(super) fn decapsulated_class(outer: u8, inner: u8) -> Result<u8, DropReason> {
    let ecn = match (inner & ECN, outer & ECN) {
        (NOT_ECT, CE) => return Err(DropReason::EcnForbidden),
        (NOT_ECT, _) => NOT_ECT,
        (_, CE) => CE,
        (CE, _) => CE,
        (_, ECT_1) => ECT_1,
        (inner, _) => inner,
    };
    Ok(inner & !ECN | ecn)
}

fn transport(
    packet: &mut Packet,
    outer: &IpHeader,
    esp_at: usize,
    start: usize,
    length: usize,
    next_header: u8,
) -> Result<IpHeader, DropReason> {
    let header_len = outer.header_len();
    packet.data_mut().copy_within(..header_len, start - header_len);
    packet.pull_front(start - header_len).ok_or(DropReason::InnerMalformed)?;
    packet.set_len(header_len + length).ok_or(DropReason::InnerMalformed)?;
    let data = packet.data_mut();
    name_payload(data, header_len, outer.protocol_at(), next_header);
    let inner = IpHeader::parse(data).map_err(|_| DropReason::InnerMalformed)?;
    if esp_at != header_len && inner.fragment == ip::Fragment::Whole {
        renew_checksum(data, inner.header_len(), inner.protocol, (inner.src, inner.dst));
    }
    Ok(inner)
}

/// Writes to the header of `header_len` bytes of the packet that fills `packet` what its payload is and how
/// long. The protocol is named at `protocol_at`.
pub(super) fn name_payload(packet: &mut [u8], header_len: usize, protocol_at: usize, protocol: u8) {
    let total = packet.len();
    packet[protocol_at] = protocol;
    ip::set_total_len(packet, header_len, total);
}

/// Computes the checksum of UDP or TCP of a packet that came in transport mode behind UDP, whose header has
/// `header_len` bytes. A NAT changed the addresses that the sender's checksum covers, but ESP has
/// authenticated the bytes (RFC 3948 §3.1.2).
pub(super) fn renew_checksum(
    packet: &mut [u8],
    header_len: usize,
    protocol: u8,
    (src, dst): (Address, Address),
) {
    let segment = &mut packet[header_len..];
    match protocol {
        protocol::UDP
            if udp::Udp::parse(segment).is_ok_and(|u| u.checksum != 0 && u.length == segment.len()) =>
        {
            udp::set_checksum(segment, src, dst);
        }
        protocol::TCP if segment.len() >= 20 => {
            segment[16..18].fill(0);
            let pseudo = checksum::pseudo_header(src, dst, protocol::TCP, segment.len());
            let sum = checksum::finish(checksum::add(pseudo, segment));
            segment[16..18].copy_from_slice(&sum.to_be_bytes());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecn_of_rfc_6040_figure_4() {
        const ECT_0: u8 = 0b10;
        for (inner, by_outer) in [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
            (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
            (CE, [Some(CE); 4]),
        ] {
            for (outer, expected) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(by_outer) {
                let dscp = 46 << 2;
                let result = decapsulated_class(outer | 10 << 2, inner | dscp);
                assert_eq!(result.ok(), expected.map(|e| e | dscp), "inner {inner:02b} outer {outer:02b}");
            }
        }
    }
}
