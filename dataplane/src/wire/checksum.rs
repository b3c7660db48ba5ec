//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use super::Address;

/// Adds the 16-bit words of `bytes` to `sum`, and returns the result. An odd last byte counts as
/// the high half of a word.
#[inline]
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    let (words, tail) = bytes.as_chunks::<4>();
    let mut sum = words.iter().fold(sum, |sum, w| sum + u64::from(u32::from_be_bytes(*w)));
    let (words, tail) = tail.as_chunks::<2>();
    sum = words.iter().fold(sum, |sum, w| sum + u64::from(u16::from_be_bytes(*w)));
    sum + tail.first().map_or(0, |&b| u64::from(b) << 8)
}

/// Returns the checksum of a sum: folded to 16 bits and complemented.
#[inline]
pub fn finish(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Returns the checksum of `bytes`, or 0 if `bytes` contains a right checksum of itself.
#[inline]
pub fn of(bytes: &[u8]) -> u16 {
    finish(add(0, bytes))
}

/// Returns whether the checksum of an IPv4 header of twenty bytes is right, as `of(header) == 0`.
///
/// The sum of 16-bit words in one's complement is their sum modulo 65535, which neither the byte
/// order nor the length of the words changes (RFC 1071 §2 B and C).
#[inline(always)]
pub(super) fn is_zero_of_v4(header: &[u8; 20]) -> bool {
    let add = |sum: u64, word: u64| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u64::from(carry)
    };
    let word = |at| {
        let mut word = [0; 8];
        word.copy_from_slice(&header[at..at + 8]);
        u64::from_ne_bytes(word)
    };
    let half = u32::from_ne_bytes([header[16], header[17], header[18], header[19]]);
    let sum = add(add(word(0), word(8)), half.into());
    // Each addition folds both halves, with their carry, into the upper one. Zeros alone fold to zero.
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    sum.wrapping_add(sum.rotate_left(16)) >> 16 == 0xffff
}

/// Returns the checksum after one of the words that it covers changed from `old` to `new` (RFC 1624
/// §3, equation 3).
#[inline]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    finish(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

/// Returns the sum of the pseudo-header of TCP, UDP and ICMPv6 (RFC 9293 §3.1, RFC 8200 §8.1).
pub fn pseudo_header(src: impl Into<Address>, dst: impl Into<Address>, protocol: u8, length: usize) -> u64 {
    let address = |sum, a: Address| {
        let octets = a.bits().to_be_bytes();
        add(sum, if a.is_ipv4() { &octets[12..] } else { &octets })
    };
    address(address(u64::from(protocol) + length as u64, src.into()), dst.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc_1071_example() {
        // RFC 1071 §3: the sum of these eight bytes is ddf2.
        assert_eq!(of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    fn naive(bytes: &[u8]) -> u16 {
        let sum = bytes.chunks(2).map(|w| u64::from(w[0]) << 8 | u64::from(*w.get(1).unwrap_or(&0))).sum();
        finish(sum)
    }

    proptest! {
        #[test]
        fn word_at_a_time_equals_naive(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(of(&bytes), naive(&bytes));
        }

        #[test]
        fn header_is_valid_if_its_sum_is_zero(mut header: [u8; 20], right: bool) {
            if right {
                header[10..12].fill(0);
                let sum = of(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            prop_assert_eq!(is_zero_of_v4(&header), of(&header) == 0);
            prop_assert!(!right || is_zero_of_v4(&header));
        }

        #[test]
        fn incremental_equals_full(mut bytes in proptest::collection::vec(any::<u8>(), 20), new: u16, at in 0usize..10) {
            let before = of(&bytes);
            let old = crate::wire::be16(&bytes, at * 2);
            crate::wire::put16(&mut bytes, at * 2, new);
            // Only for all-zero data do the two zeroes of one's complement differ (RFC 1624 §3).
            prop_assume!(bytes.iter().any(|&b| b != 0));
            prop_assert_eq!(update(before, old, new), of(&bytes));
        }
    }
}
