//! Frames to send: enough of each header for a kernel and a classifier.

use std::net::{IpAddr, Ipv4Addr};
use wayfarer_dataplane::port::Mac;

pub(crate) const ESP: u8 = 50;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

pub(crate) fn ethernet(to: Mac, from: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes(), payload].concat()
}

/// Returns the EtherType and an IPv4 or IPv6 packet of the family of `to`. IPv4 has its header
/// checksum.
pub(crate) fn ip(to: IpAddr, protocol: u8, payload: &[u8]) -> (u16, Vec<u8>) {
    match to {
        IpAddr::V4(to) => {
            let len = (20 + payload.len()) as u16;
            let mut header = [0u8; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&len.to_be_bytes());
            header[8..10].copy_from_slice(&[64, protocol]);
            header[12..16].copy_from_slice(&Ipv4Addr::new(10, 9, 9, 9).octets());
            header[16..].copy_from_slice(&to.octets());
            let mut sum: u32 =
                header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
            sum = (sum >> 16) + (sum & 0xffff);
            header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
            (0x0800, [&header, payload].concat())
        }
        IpAddr::V6(to) => {
            let mut header = [0u8; 40];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
            header[6..8].copy_from_slice(&[protocol, 64]);
            header[8..24].copy_from_slice(&[0xfd, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
            header[24..].copy_from_slice(&to.octets());
            (0x86dd, [&header, payload].concat())
        }
    }
}

/// Returns source and destination port, and the rest of an eight-byte header, before `payload`.
pub(crate) fn ports(to: u16, payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len() as u16;
    [&40_000u16.to_be_bytes()[..], &to.to_be_bytes(), &len.to_be_bytes(), &[0, 0], payload].concat()
}

/// Returns a frame to be forwarded, of `len` bytes, with `number` at its end.
pub(crate) fn numbered(to: Mac, from: Mac, flow: u16, number: u32, len: usize) -> Vec<u8> {
    let mut payload = vec![number as u8; len - 14 - 20 - 8 - 4];
    payload.extend(number.to_be_bytes());
    let (ethertype, packet) = ip(Ipv4Addr::new(192, 0, 2, 1).into(), UDP, &ports(flow, &payload));
    ethernet(to, from, ethertype, &packet)
}

/// Returns the number at the end of a frame.
pub(crate) fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(*frame.last_chunk().unwrap())
}

/// Returns a virtio-net header of a frame for one packet, whose checksum at `offset` behind `start` is
/// left to the device.
pub(crate) fn unfinished(start: u16, offset: u16) -> [u8; 10] {
    const NEEDS_CSUM: u8 = 1;
    let [start, offset] = [start, offset].map(u16::to_ne_bytes);
    [NEEDS_CSUM, 0, 0, 0, 0, 0, start[0], start[1], offset[0], offset[1]]
}

/// Returns a virtio-net header of a frame that stands for packets of `size` bytes of payload: TCP over
/// IPv4 (1) or IPv6 (4), or UDP (5). The checksum starts at `start`.
pub(crate) fn joined(kind: u8, size: u16, start: u16) -> [u8; 10] {
    const NEEDS_CSUM: u8 = 1;
    let [size, start] = [size, start].map(u16::to_ne_bytes);
    let at = if kind == 5 { 6u16 } else { 16 }.to_ne_bytes();
    [NEEDS_CSUM, kind, 0, 0, size[0], size[1], start[0], start[1], at[0], at[1]]
}

/// Returns a TCP segment with the flags PSH and ACK.
pub(crate) fn tcp(sequence: u32, payload: &[u8]) -> Vec<u8> {
    let ports = [40_000u16, 80].map(u16::to_be_bytes).concat();
    let rest = [0, 0, 0, 7, 0x50, 0x18, 1, 0, 0, 0, 0, 0];
    [&ports[..], &sequence.to_be_bytes(), &rest, payload].concat()
}
