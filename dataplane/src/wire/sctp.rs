//! The checksum of SCTP, which unlike that of TCP and UDP is a CRC32c (RFC 9260 §6.8).

/// Length of the common header in bytes (RFC 9260 §3.1).
pub const HEADER: usize = 12;
/// The offset of the checksum in the common header, at its end.
pub const CHECKSUM: usize = 8;

/// The polynomial of CRC32c, with the coefficient of its lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The remainder of each byte.
static TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut rest = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            rest = (rest >> 1) ^ if rest & 1 == 0 { 0 } else { POLYNOMIAL };
            bit += 1;
        }
        table[byte] = rest;
        byte += 1;
    }
    table
}

/// Writes the checksum of the packet that fills `bytes`. Panics unless `bytes` has the common header.
pub fn set_checksum(bytes: &mut [u8]) {
    bytes[CHECKSUM..HEADER].fill(0);
    // In the order in which the bits were divided, the lowest byte comes first (RFC 9260 appendix A).
    let sum = crc32c(bytes).to_le_bytes();
    bytes[CHECKSUM..HEADER].copy_from_slice(&sum);
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |rest, &byte| (rest >> 8) ^ TABLE[usize::from(rest as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // RFC 3720 appendix B.4, whose bytes are in the order of the wire.
        let rising: [u8; 32] = std::array::from_fn(|at| at as u8);
        let falling: [u8; 32] = std::array::from_fn(|at| 31 - at as u8);
        for (bytes, sum) in [
            ([0; 32], [0xaa, 0x36, 0x91, 0x8a]),
            ([0xff; 32], [0x43, 0xab, 0xa8, 0x62]),
            (rising, [0x4e, 0x79, 0xdd, 0x46]),
            (falling, [0x5c, 0xdb, 0x3f, 0x11]),
        ] {
            assert_eq!(crc32c(&bytes).to_le_bytes(), sum, "{bytes:x?}");
        }
    }

    #[test]
    fn what_the_field_held_before_makes_no_difference() {
        for old in [[0; 4], [0xff; 4], [1, 2, 3, 4]] {
            // A COOKIE ACK (RFC 9260 §3.3.12).
            let mut packet = [0x13, 0x88, 0x96, 0x0c, 1, 2, 3, 4, 0, 0, 0, 0, 11, 0, 0, 4];
            packet[8..12].copy_from_slice(&old);
            set_checksum(&mut packet);
            assert_eq!(packet[8..12], [0x87, 0x00, 0xc8, 0xe5], "{old:x?}");
        }
    }
}
