//! TCP's flags (RFC 9293 §3.1), and the maximum segment size of a SYN (§3.7.1), which a gateway lowers.

use super::{
    be16, checksum,
    ip::{Fragment, IpHeader, V4_HEADER, V6_HEADER, protocol},
    put16,
};

const HEADER: usize = 20;
/// The sender has no more data.
pub const FIN: u8 = 0x01;
/// The sender opens a connection.
pub const SYN: u8 = 0x02;
/// The connection is reset.
pub const RST: u8 = 0x04;
/// The sender has sent all data that it has so far.
pub const PSH: u8 = 0x08;
/// The acknowledgement number counts.
pub const ACK: u8 = 0x10;

/// Returns the flags of the TCP segment in `packet`, which begins with `header`; 0 if it does not show
/// them.
#[inline]
pub fn flags(header: &IpHeader, packet: &[u8]) -> u8 {
    let shows = header.protocol == protocol::TCP && header.fragment != Fragment::Later;
    header.payload(packet).get(13).copied().filter(|_| shows).unwrap_or(0)
}

/// Lowers the MSS of a TCP SYN, in the IP packet at the start of `packet` with this header, so that
/// its segments fit IP packets of `limit` bytes.
#[inline]
pub fn fit_mss(packet: &mut [u8], header: &IpHeader, limit: usize) {
    if header.protocol == protocol::TCP && header.fragment != Fragment::Later {
        let headers = HEADER + if header.is_ipv4() { V4_HEADER } else { V6_HEADER };
        let mss = limit.saturating_sub(headers).min(usize::from(u16::MAX));
        clamp_mss(&mut packet[header.header_len()..], mss as u16);
    }
}

/// Lowers the MSS option of the TCP segment at the start of `segment` to `mss`, if it is a SYN with
/// a greater MSS, and corrects its checksum. Returns whether it did. Leaves segments that are cut
/// short or malformed unchanged.
#[inline]
pub fn clamp_mss(segment: &mut [u8], mss: u16) -> bool {
    if segment.len() < HEADER || segment[13] & SYN == 0 {
        return false;
    }
    let end = usize::from(segment[12] >> 4) * 4;
    if end > segment.len() {
        return false;
    }
    let mut at = HEADER;
    while at + 1 < end {
        match (segment[at], usize::from(segment[at + 1])) {
            (0, _) => return false,
            (1, _) => at += 1,
            (2, 4) if at + 4 <= end => return lower(segment, at + 2, mss),
            (_, length) if length < 2 => return false,
            (_, length) => at += length,
        }
    }
    false
}

fn lower(segment: &mut [u8], at: usize, mss: u16) -> bool {
    let old = be16(segment, at);
    if old <= mss {
        return false;
    }
    put16(segment, at, mss);
    // At an odd offset the bytes of the option are in the other halves of two words. With both
    // swapped, the sum is the same.
    let (old, new) = if at.is_multiple_of(2) { (old, mss) } else { (old.swap_bytes(), mss.swap_bytes()) };
    let sum = checksum::update(be16(segment, 16), old, new);
    put16(segment, 16, sum);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn syn(options: &[u8]) -> Vec<u8> {
        let mut s = vec![0; HEADER];
        s[12] = (((HEADER + options.len()) / 4) << 4) as u8;
        s[13] = SYN;
        s.extend_from_slice(options);
        let sum = checksum::of(&s);
        put16(&mut s, 16, sum);
        s
    }

    #[test]
    fn lowers_only_what_is_higher_and_keeps_the_checksum() {
        for options in
            [&[2, 4, 0x05, 0xb4][..], &[1, 2, 4, 0x05, 0xb4, 0, 0, 0], &[3, 3, 7, 2, 4, 0x05, 0xb4, 0]]
        {
            let mut s = syn(options);
            assert!(clamp_mss(&mut s, 1300));
            assert_eq!(checksum::of(&s), 0, "{options:?}");
            assert!(s.windows(4).any(|w| w == [2, 4, 0x05, 0x14]));
            assert!(!clamp_mss(&mut s, 1300));
        }
    }

    #[test]
    fn leaves_others_alone() {
        let mut ack = syn(&[2, 4, 0x05, 0xb4]);
        ack[13] = 0x10;
        assert!(!clamp_mss(&mut ack, 1300));
        for options in [&[0, 2, 4, 5][..], &[2, 0, 0, 0], &[9, 200, 0, 0], &[2, 3, 5, 0]] {
            let mut s = syn(options);
            let before = s.clone();
            assert!(!clamp_mss(&mut s, 1));
            assert_eq!(s, before);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), mss: u16) {
            clamp_mss(&mut bytes, mss);
        }
    }
}
