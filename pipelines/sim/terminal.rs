//! A terminal's end of one tunnel. In tests it uses the portable ciphers, so that they check the
//! gateway's.

use super::{
    esp::{self, Layout},
    fixtures::{GATEWAY, OUTSIDE, ip, suite, tunnel},
    frames::emit_ethernet,
};
use crate::config::model::{Sa, Tunnel};
use std::net::{IpAddr, SocketAddr};
use wayfarer_dataplane::{
    crypto::{Backend, Key, Suite},
    wire::{
        self,
        esp::NAT_T_PORT,
        ethernet,
        ip::{self, IpHeader, protocol},
        udp,
    },
};
use wayfarer_mobility::ike::event::ChildSa;

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
    /// Makes the terminal's end of [`tunnel`] `n`, with the portable ciphers.
    pub fn new(n: u32, suite: Suite, address: &str) -> Self {
        let Tunnel { inbound, outbound, .. } = tunnel(n, suite);
        Self::of([&inbound, &outbound], ip(address), Backend::Portable)
    }

    /// Makes the terminal's end of a gateway's inbound and outbound SA.
    ///
    /// # Panics
    /// If a key has another length than its suite's keys.
    pub fn of([inbound, outbound]: [&Sa; 2], address: IpAddr, backend: Backend) -> Self {
        let key = |sa: &Sa| Key::new(sa.cipher, &sa.key, backend).expect("a key of its suite's length");
        Self {
            spi_out: inbound.spi.0,
            seal: key(inbound),
            open: key(outbound),
            esn: false,
            seq: 0,
            address,
            port: None,
            gateway: if address.is_ipv4() { GATEWAY } else { ip("2001:db8:1::1") },
            gateway_port: NAT_T_PORT,
        }
    }

    /// Makes the terminal's end of a pair of AES-256-GCM SAs that it has negotiated.
    ///
    /// # Panics
    /// If the SAs have another suite.
    pub fn negotiated(sa: &ChildSa, backend: Backend) -> Self {
        let suite = suite("aes256gcm16");
        let key = |material| Key::new(suite, material, backend).expect("a key of AES-256-GCM");
        Self {
            spi_out: sa.spi_out,
            seal: key(&sa.key_out),
            open: key(&sa.key_in),
            esn: sa.suite.esn,
            seq: 0,
            address: sa.path.local,
            port: sa.path.udp.map(|(own, _)| own),
            gateway: sa.path.remote,
            gateway_port: sa.path.udp.map_or(NAT_T_PORT, |(_, gateway)| gateway),
        }
    }

    /// Sends from this address and port from now on, as the gateway sees them; plain ESP if the port
    /// is 0.
    pub fn send_from(&mut self, outer: SocketAddr) {
        self.address = outer.ip();
        self.port = Some(outer.port()).filter(|port| *port > 0);
    }

    /// Seals the IP packet `inner` with the next sequence number.
    pub fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        self.seq += 1;
        self.seal_as(inner, esp::next_header(inner), self.seq)
    }

    /// Does the same, and writes to `frame` the frame that carries the packet to the gateway.
    pub fn seal_frame(&mut self, inner: &[u8], frame: &mut Vec<u8>) {
        self.seq += 1;
        frame.clear();
        frame.resize(ethernet::HEADER, 0);
        emit_ethernet(frame, OUTSIDE);
        self.append_sealed(frame, inner, esp::next_header(inner), self.seq);
    }

    /// Seals any payload with any next header and sequence number.
    pub fn seal_as(&self, payload: &[u8], next_header: u8, seq: u64) -> Vec<u8> {
        let mut packet = vec![];
        self.append_sealed(&mut packet, payload, next_header, seq);
        packet
    }

    fn append_sealed(&self, out: &mut Vec<u8>, payload: &[u8], next_header: u8, seq: u64) {
        let layout = Layout::new(self.seal.suite(), payload.len());
        self.append(out, layout.len, |bytes| {
            layout.emit(bytes, self.spi_out, seq, next_header);
            bytes[layout.payload].copy_from_slice(payload);
            esp::seal(&self.seal, seq, self.esn, bytes);
        });
    }

    /// Seals a packet whose plaintext, trailer included, is any bytes.
    pub fn protect(&self, mut bytes: Vec<u8>, seq: u64) -> Vec<u8> {
        wire::esp::emit_header(&mut bytes, self.spi_out, seq);
        esp::seal(&self.seal, seq, self.esn, &mut bytes);
        self.wrap(&bytes)
    }

    /// Puts the outer headers around an ESP packet, or any other bytes.
    pub fn wrap(&self, bytes: &[u8]) -> Vec<u8> {
        let mut packet = vec![];
        self.append(&mut packet, bytes.len(), |room| room.copy_from_slice(bytes));
        packet
    }

    /// Appends outer headers and `length` bytes behind them, which `fill` writes. The UDP checksum
    /// is zero over IPv4 (RFC 3948 §2.1), but must not be over IPv6.
    fn append(&self, out: &mut Vec<u8>, length: usize, fill: impl FnOnce(&mut [u8])) {
        let (protocol, headers) = match self.port {
            Some(_) => (protocol::UDP, udp::HEADER),
            None => (protocol::ESP, 0),
        };
        let (start, length) = (out.len(), headers + length);
        out.resize(start + ip::V6_HEADER + length, 0);
        let header = ip::emit(&mut out[start..], self.address, self.gateway, protocol, length);
        out.truncate(start + header + length);
        let datagram = &mut out[start + header..];
        if let Some(src_port) = self.port {
            udp::Udp { src_port, dst_port: self.gateway_port, length, checksum: 0 }.emit(datagram);
        }
        fill(&mut datagram[headers..]);
        if self.port.is_some() && self.address.is_ipv6() {
            udp::set_checksum(datagram, self.address, self.gateway);
        }
    }

    /// Opens a packet from the gateway; returns its outer header, sequence number, plaintext
    /// without trailer, and next header.
    ///
    /// # Panics
    /// If it does not authenticate.
    pub fn open(&self, packet: &[u8]) -> (IpHeader, u64, Vec<u8>, u8) {
        self.try_open(packet).expect("the gateway's packet is authentic ESP")
    }

    /// Does the same, but returns `None` if the packet is not ESP, or does not authenticate.
    pub fn try_open(&self, packet: &[u8]) -> Option<(IpHeader, u64, Vec<u8>, u8)> {
        let (outer, bytes) = esp_in(packet)?;
        let mut bytes = bytes.to_vec();
        let (_, low) = wire::esp::header(&bytes)?;
        let plain = esp::open(&self.open, self.esn, &mut bytes)?;
        let plain = &bytes[plain];
        let (length, next) = wire::esp::trailer(plain)?;
        Some((outer, u64::from(low), plain[..length].to_vec(), next))
    }
}

/// Returns the outer header of a packet and the ESP packet in it, which may be in UDP.
pub fn esp_in(packet: &[u8]) -> Option<(IpHeader, &[u8])> {
    let outer = IpHeader::parse(packet).ok()?;
    let at = if outer.protocol == protocol::UDP { udp::HEADER } else { 0 };
    Some((outer, outer.payload(packet).get(at..)?))
}
