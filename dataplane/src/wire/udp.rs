//! UDP headers (RFC 768).

use super::{Address, FormatError, be16, checksum, put16};

/// Length of the header in bytes.
pub const HEADER: usize = 8;

/// A UDP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Length of header and payload in bytes.
    pub length: usize,
    /// Checksum. 0 if the sender computed none.
    pub checksum: u16,
}

impl Udp {
    /// Reads the header of the datagram that fills `bytes`.
    ///
    /// # Errors
    /// `Truncated` below 8 bytes, `TotalLength` if the length field is below 8 or beyond `bytes`.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let h = bytes.first_chunk::<HEADER>().ok_or(FormatError::Truncated)?;
        let length = usize::from(be16(h, 4));
        if length < HEADER || length > bytes.len() {
            return Err(FormatError::TotalLength);
        }
        Ok(Self { src_port: be16(h, 0), dst_port: be16(h, 2), length, checksum: be16(h, 6) })
    }

    /// Writes the header to the first 8 bytes of `bytes`.
    #[inline]
    pub fn emit(&self, bytes: &mut [u8]) {
        put16(bytes, 0, self.src_port);
        put16(bytes, 2, self.dst_port);
        put16(bytes, 4, self.length as u16);
        put16(bytes, 6, self.checksum);
    }
}

/// Writes the sum of the pseudo-header, with which a device begins to compute the checksum of the
/// datagram of `len` bytes.
pub fn begin_checksum(header: &mut [u8], len: usize, src: impl Into<Address>, dst: impl Into<Address>) {
    put16(header, 6, !checksum::finish(checksum::pseudo_header(src, dst, super::ip::protocol::UDP, len)));
}

/// Writes the checksum of the datagram that fills `bytes`. A computed 0 is sent as ffff (RFC 768).
pub fn set_checksum(bytes: &mut [u8], src: impl Into<Address>, dst: impl Into<Address>) {
    put16(bytes, 6, 0);
    let pseudo = checksum::pseudo_header(src, dst, super::ip::protocol::UDP, bytes.len());
    let sum = checksum::finish(checksum::add(pseudo, bytes));
    put16(bytes, 6, if sum == 0 { 0xffff } else { sum });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    #[test]
    fn device_completes_a_partial_checksum_correctly() {
        let (src, dst): (Ipv6Addr, Ipv6Addr) =
            ("2001:db8::1".parse().unwrap(), "2001:db8:9::7".parse().unwrap());
        for len in [8, 9, 100, 1447] {
            let mut whole: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
            let mut begun = whole.clone();
            set_checksum(&mut whole, src, dst);
            begin_checksum(&mut begun, len, src, dst);
            // As a device does: the sum over the datagram, including the content of the checksum
            // field.
            let sum = checksum::of(&begun);
            put16(&mut begun, 6, sum);
            assert_eq!(begun, whole, "{len} bytes");
        }
    }
}
