//! A terminal's end of one tunnel. It always uses the portable ciphers, so that they check the
//! gateway's.

use super::{
    esp::{self, Layout},
    fixtures::{GATEWAY, ip, material},
    frames::{ip_packet, udp_packet},
};
use std::net::IpAddr;
use wayfarer_dataplane::{
    crypto::{Backend, Key, Suite},
    wire::{
        esp::trailer,
        ip::{IpHeader, protocol},
        udp,
    },
};

/// A terminal's end of one tunnel.
#[derive(Debug)]
pub struct Terminal {
    /// The SPI of packets to the gateway.
    pub spi_out: u32,
    /// The key of packets to the gateway.
    pub seal: Key,
    /// The key of packets from the gateway.
    pub open: Key,
    /// `true` if both directions have extended sequence numbers.
    pub esn: bool,
    /// The last sequence number that was used.
    pub seq: u64,
    /// The terminal's outer address.
    pub address: IpAddr,
    /// The terminal's UDP port, as the gateway sees it; `None` for plain ESP.
    pub port: Option<u16>,
    /// The gateway's outer address.
    pub gateway: IpAddr,
    /// The gateway's UDP port.
    pub gateway_port: u16,
}

impl Terminal {
    /// Makes the terminal's end of [`tunnel`](super::fixtures::tunnel) `n`.
    pub fn new(n: u32, suite: Suite, address: &str) -> Self {
        let address = ip(address);
        let gateway = if address.is_ipv4() { GATEWAY } else { ip("2001:db8:1::1") };
        let (seal, open) = (key(suite, &material(suite, n)), key(suite, &material(suite, n + 1000)));
        let (spi_out, gateway_port) = (0x1000 + n, 4500);
        Self { spi_out, seal, open, esn: false, seq: 0, address, port: None, gateway, gateway_port }
    }

    /// Seals the IP packet `inner` with the next sequence number.
    pub fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        self.seq += 1;
        self.seal_as(inner, esp::next_header(inner), self.seq)
    }

    /// Seals any payload with any next header and sequence number.
    pub fn seal_as(&self, payload: &[u8], next_header: u8, seq: u64) -> Vec<u8> {
        let layout = Layout::new(self.seal.suite(), payload.len());
        let mut bytes = vec![0; layout.len];
        layout.emit(&mut bytes, self.spi_out, seq, next_header);
        bytes[layout.payload].copy_from_slice(payload);
        self.protect(bytes, seq)
    }

    /// Seals a packet whose plaintext, trailer included, is any bytes.
    pub fn protect(&self, mut bytes: Vec<u8>, seq: u64) -> Vec<u8> {
        wayfarer_dataplane::wire::esp::emit_header(&mut bytes, self.spi_out, seq);
        esp::seal(&self.seal, seq, self.esn, &mut bytes);
        self.wrap(&bytes)
    }

    /// Puts the outer headers around an ESP packet, or any other bytes.
    pub fn wrap(&self, bytes: &[u8]) -> Vec<u8> {
        match self.port {
            Some(port) => udp_packet(self.address, self.gateway, (port, self.gateway_port), bytes),
            None => ip_packet(self.address, self.gateway, protocol::ESP, bytes),
        }
    }

    /// Opens a packet from the gateway; returns its outer header, sequence number, plaintext
    /// without trailer, and next header.
    ///
    /// # Panics
    /// If it does not authenticate.
    pub fn open(&self, packet: &[u8]) -> (IpHeader, u64, Vec<u8>, u8) {
        let outer = IpHeader::parse(packet).expect("an IP packet");
        let at = outer.header_len() + if outer.protocol == protocol::UDP { udp::HEADER } else { 0 };
        let mut bytes = packet[at..outer.total_len()].to_vec();
        let (_, low) = wayfarer_dataplane::wire::esp::header(&bytes).expect("an ESP packet");
        let plain = esp::open(&self.open, self.esn, &mut bytes);
        let plain = &bytes[plain.expect("the gateway's packet does not authenticate")];
        let (length, next) = trailer(plain).expect("a trailer");
        (outer, u64::from(low), plain[..length].to_vec(), next)
    }
}

/// Makes a key for the portable ciphers.
///
/// # Panics
/// If `material` has another length than the suite's keys.
pub fn key(suite: Suite, material: &[u8]) -> Key {
    Key::new(suite, material, Backend::Portable).expect("keying material of the suite's length")
}
