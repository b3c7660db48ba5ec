//! The header and trailer of ESP (RFC 4303 §2), and ESP in UDP (RFC 3948).

use super::be32;

/// Length of SPI and sequence number in bytes.
pub const HEADER: usize = 8;
/// Length of pad length and next header in bytes.
pub const TRAILER: usize = 2;
/// The UDP port of ESP in UDP and of IKE behind a NAT (RFC 3948 §2, RFC 7296 §2.23).
pub const NAT_T_PORT: u16 = 4500;
/// The UDP port of IKE (RFC 7296 §2).
pub const IKE_PORT: u16 = 500;
/// The bytes before an IKE message in an ESP-in-UDP datagram, in place of an SPI (RFC 3948 §2.2).
pub const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// The payload of a NAT keepalive (RFC 3948 §2.3).
pub const KEEPALIVE: [u8; 1] = [0xff];

/// Returns the SPI and the low 32 bits of the sequence number at the start of `esp`, or `None`
/// below 8 bytes.
#[inline]
pub fn header(esp: &[u8]) -> Option<(u32, u32)> {
    (esp.len() >= HEADER).then(|| (be32(esp, 0), be32(esp, 4)))
}

/// Writes the SPI and the low 32 bits of `seq` to the first 8 bytes of `esp`.
#[inline]
pub fn emit_header(esp: &mut [u8], spi: u32, seq: u64) {
    esp[..4].copy_from_slice(&spi.to_be_bytes());
    emit_sequence(esp, seq);
}

/// Writes the low 32 bits of `seq` behind the SPI at the start of `esp`.
#[inline]
pub fn emit_sequence(esp: &mut [u8], seq: u64) {
    esp[4..HEADER].copy_from_slice(&(seq as u32).to_be_bytes());
}

/// Returns how many bytes of padding make payload, padding and trailer a multiple of `align`, a
/// power of two (RFC 4303 §2.4).
#[inline]
pub fn padding(payload: usize, align: usize) -> usize {
    (payload + TRAILER).wrapping_neg() & (align - 1)
}

/// Writes padding 1, 2, 3…, pad length and next header to `tail`: the bytes from the payload to the
/// ICV, at most 257.
#[inline]
pub fn emit_trailer(tail: &mut [u8], next_header: u8) {
    let pad = tail.len() - TRAILER;
    for (i, byte) in tail[..pad].iter_mut().enumerate() {
        *byte = i as u8 + 1;
    }
    tail[pad] = pad as u8;
    tail[pad + 1] = next_header;
}

/// Does the same as [`emit_trailer`] for the `tail` bytes, at most 8, at the start of `space`, in
/// one store. Overwrites all of `space`.
#[inline]
pub fn emit_short_trailer(space: &mut [u8; 8], tail: usize, next_header: u8) {
    let pad = tail - TRAILER;
    let padding = 0x06_05_04_03_02_01 & !(u64::MAX << (8 * pad));
    let ends = (u64::from(next_header) << 8 | pad as u64) << (8 * pad);
    *space = (padding | ends).to_le_bytes();
}

/// Returns the length of a decrypted ESP payload without padding and trailer, and its next header,
/// or `None` if the pad length does not fit. Does not examine the padding bytes, because the ICV
/// proves that the peer sent them.
#[inline]
pub fn trailer(plain: &[u8]) -> Option<(usize, u8)> {
    let [.., pad, next_header] = plain else { return None };
    let payload = (plain.len() - TRAILER).checked_sub(usize::from(*pad))?;
    Some((payload, *next_header))
}
