//! Measures reading headers.

use criterion::{Criterion, criterion_group, criterion_main};
use std::{hint::black_box, net::IpAddr};
use wayfarer_dataplane::{
    sa::Flow,
    wire::{
        esp,
        ethernet::{self, Ethernet},
        ip::{self, IpHeader, protocol},
        udp,
    },
};

/// Returns a UDP datagram from port 4500 to port 4500 with a payload of 24 bytes.
fn datagram(src: &str, dst: &str) -> Vec<u8> {
    let [src, dst]: [IpAddr; 2] = [src, dst].map(|address| address.parse().expect("an address"));
    let length = udp::HEADER + 24;
    let mut packet = vec![0; ip::V6_HEADER + length];
    let header_len = ip::emit(&mut packet, src, dst, protocol::UDP, length);
    packet.truncate(header_len + length);
    udp::Udp { src_port: 4500, dst_port: 4500, length, checksum: 0 }.emit(&mut packet[header_len..]);
    packet
}

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let mut frame = [0; 64];
    Ethernet { dst: [2; 6], src: [4; 6], ethertype: ethernet::IPV4 }.emit(&mut frame);
    group.bench_function("ethernet", |b| b.iter(|| Ethernet::parse(black_box(&frame))));
    for (name, src, dst) in [("v4", "192.0.2.1", "10.0.0.1"), ("v6", "2001:db8::1", "2001:db8::2")] {
        let packet = datagram(src, dst);
        group.bench_function(format!("ip {name}"), |b| b.iter(|| IpHeader::parse(black_box(&packet))));
        let header = IpHeader::parse(&packet).expect("a packet made here");
        group.bench_function(format!("flow {name}"), |b| {
            b.iter(|| Flow::of(black_box(&header), black_box(&packet)));
        });
        let segment = header.payload(&packet);
        group.bench_function(format!("esp in udp {name}"), |b| {
            b.iter(|| (udp::Udp::parse(black_box(segment)), esp::header(&black_box(segment)[udp::HEADER..])));
        });
    }
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
