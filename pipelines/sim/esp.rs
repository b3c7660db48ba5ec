//! ESP as terminals do it: one packet at a time, without the gateway's own stages.

use std::ops::Range;
use wayfarer_dataplane::{
    crypto::{self, Key, OpenJob, SealJob, Suite},
    wire::{esp, ip::protocol},
};

/// The layout of an ESP packet (RFC 4303 §2).
#[derive(Clone, Debug)]
pub struct Layout {
    /// The payload.
    pub payload: Range<usize>,
    /// Padding and trailer.
    pub trailer: Range<usize>,
    /// Bytes from SPI to ICV.
    pub len: usize,
}

impl Layout {
    /// Lays out a packet of `suite` that carries `payload` bytes.
    pub fn new(suite: Suite, payload: usize) -> Self {
        let start = esp::HEADER + suite.iv_len();
        let end = start + payload;
        let plain_end = end + esp::padding(payload, suite.align()) + esp::TRAILER;
        Self { payload: start..end, trailer: end..plain_end, len: plain_end + suite.icv_len() }
    }

    /// Writes header and trailer of a packet. The caller adds the payload before [`crypto::seal`].
    pub fn emit(&self, esp: &mut [u8], spi: u32, seq: u64, next_header: u8) {
        esp::emit_header(esp, spi, seq);
        esp::emit_trailer(&mut esp[self.trailer.clone()], next_header);
    }
}

/// Returns the next header value of an IP packet in a tunnel.
pub fn next_header(packet: &[u8]) -> u8 {
    if packet.first().is_some_and(|first| first >> 4 == 6) { protocol::IPV6 } else { protocol::IPV4 }
}

/// Seals a packet whose header, payload and trailer are written.
pub fn seal(key: &Key, seq: u64, esn: bool, esp: &mut [u8]) {
    crypto::seal(&mut [SealJob { key, seq, iv: seq, esn, esp }]);
}

/// Opens a packet in place. Returns the range of its plaintext, trailer included; `None` if it does
/// not authenticate.
pub fn open(key: &Key, esn: bool, esp: &mut [u8]) -> Option<Range<usize>> {
    let (_, low) = esp::header(esp)?;
    let mut job = [OpenJob { key, seq: u64::from(low), esn, esp, authentic: false }];
    crypto::open(&mut job);
    let suite = key.suite();
    job[0].authentic.then(|| esp::HEADER + suite.iv_len()..esp.len() - suite.icv_len())
}
