mod times;

use super::{reader::PCAPNG_MAGIC, *};
use pcap_file::{
    DataLink, TsResolution,
    pcap::{PcapHeader, PcapPacket, PcapWriter},
    pcapng::{
        Block, PcapNgWriter,
        blocks::{
            enhanced_packet::EnhancedPacketBlock,
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            packet::PacketBlock,
            simple_packet::SimplePacketBlock,
        },
    },
};
use proptest::prelude::*;
use std::{
    borrow::Cow,
    fs::File,
    path::PathBuf,
    time::{Duration, SystemTime},
};

const MAC: Mac = [2, 0, 0, 0, 0, 1];

/// The folder of one test, removed when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wayfarer-pcap-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(input: Option<&Path>, output: Option<&Path>) -> Result<PcapPort, PortError> {
    PcapPort::open(input, output, MAC, &Arc::default())
}

/// Writes a capture of this link type: each packet with its length on the wire.
fn write_link_type(path: &Path, link_type: u32, packets: &[(u32, &[u8])]) {
    let header = PcapHeader { datalink: DataLink::from(link_type), ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(File::create(path).unwrap(), header).unwrap();
    for (orig_len, data) in packets {
        let packet = PcapPacket { timestamp: Duration::ZERO, orig_len: *orig_len, data: Cow::Borrowed(data) };
        writer.write_packet(&packet).unwrap();
    }
}

/// Writes a capture with these interfaces, each a link type and options, and these blocks.
fn write_pcapng(
    path: &Path,
    interfaces: &[(u32, &[InterfaceDescriptionOption<'static>])],
    blocks: &[Block<'_>],
) {
    let mut writer = PcapNgWriter::new(File::create(path).unwrap()).unwrap();
    for (link_type, options) in interfaces {
        let (linktype, options) = (DataLink::from(*link_type), options.to_vec());
        writer.write_pcapng_block(InterfaceDescriptionBlock { linktype, snaplen: 0, options }).unwrap();
    }
    for block in blocks {
        writer.write_block(block).unwrap();
    }
}

/// Returns a block with a packet of an interface, captured after this number of its units of time.
fn enhanced(interface_id: u32, ticks: u64, data: &[u8]) -> Block<'_> {
    let (timestamp, original_len) = (Duration::from_nanos(ticks), data.len() as u32);
    let data = Cow::Borrowed(data);
    Block::EnhancedPacket(EnhancedPacketBlock {
        interface_id,
        timestamp,
        original_len,
        data,
        options: vec![],
    })
}

/// Reads a capture to its end: its frames, each with its time.
fn frames(port: &mut PcapPort) -> Vec<(Option<u64>, Vec<u8>)> {
    let mut pool = Pool::new(64, 2048).unwrap();
    let mut frames = Vec::new();
    while !port.is_exhausted() {
        let mut burst = Burst::new();
        port.rx(&mut pool, &mut burst);
        frames.extend(burst.iter().map(|p| (p.time(), p.data().to_vec())));
        pool.give_all(&mut burst);
    }
    assert_eq!(pool.available(), 64);
    assert!(port.report().take_failure().is_none());
    frames
}

/// A frame, with its time in a capture.
type TimedFrame = (Option<u64>, Vec<u8>);

/// Reads a capture to its end: its frames, and the records that were skipped.
fn receive_all(path: &Path) -> (Vec<TimedFrame>, Skipped) {
    let mut port = open(Some(path), None).unwrap();
    (frames(&mut port), port.report().skipped())
}

/// Returns a frame to `dst` from `src`, with `ethertype` and `packet`.
fn ethernet_frame(dst: Mac, src: Mac, ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&dst[..], &src, &ethertype.to_be_bytes(), packet].concat()
}

fn write(path: &Path, frames: &[Vec<u8>]) {
    let mut pool = Pool::new(64, 2048).unwrap();
    let mut port = open(None, Some(path)).unwrap();
    for frame in frames {
        let (mut burst, mut packet) = (Burst::new(), pool.take().unwrap());
        packet.fill(HEADROOM, frame).unwrap();
        burst.push(packet);
        port.tx(&mut pool, &mut burst);
        assert!(burst.is_empty());
    }
    port.flush(&mut pool);
    assert_eq!(port.stats().tx_packets, frames.len() as u64);
    assert_eq!(pool.available(), 64);
}

fn read(path: &Path) -> (Vec<Vec<u8>>, PortStats) {
    let mut port = open(Some(path), None).unwrap();
    (frames(&mut port).into_iter().map(|(_, frame)| frame).collect(), port.stats())
}

fn samples() -> Vec<Vec<u8>> {
    (0..150).map(|i| (0..60 + i * 11).map(|b| (b * 7 + i) as u8).collect()).collect()
}

#[test]
fn both_formats_return_the_written_frames() {
    let folder = Folder::new("both");
    for name in ["a.pcap", "a.pcapng", "A.PCAPNG", "plain"] {
        write(&folder.file(name), &samples());
        let is_ng = std::fs::read(folder.file(name)).unwrap()[..4] == PCAPNG_MAGIC;
        assert_eq!(is_ng, name.to_lowercase().ends_with("ng"), "{name}");
        let (frames, stats) = read(&folder.file(name));
        assert_eq!(frames, samples(), "{name}");
        assert_eq!((stats.rx_packets, stats.rx_errors), (150, 0));
    }
}

#[test]
fn every_truncation_ends_without_a_panic() {
    let folder = Folder::new("cut");
    for name in ["a.pcap", "a.pcapng"] {
        let (whole, cut) = (folder.file(name), folder.file("cut"));
        write(&whole, &samples()[..2]);
        let bytes = std::fs::read(&whole).unwrap();
        for len in 0..bytes.len() {
            std::fs::write(&cut, &bytes[..len]).unwrap();
            let Ok(_) = open(Some(&cut), None) else { continue };
            let (frames, stats) = read(&cut);
            assert!(frames.len() < 2 && stats.rx_errors <= 1, "{name} cut to {len}");
            assert_eq!(frames[..], samples()[..frames.len()]);
        }
    }
}

#[test]
fn every_flipped_byte_ends_without_a_panic() {
    let folder = Folder::new("flip");
    for name in ["a.pcap", "a.pcapng"] {
        let (whole, flipped) = (folder.file(name), folder.file("flipped"));
        write(&whole, &[vec![1; 60], vec![2; 61]]);
        let bytes = std::fs::read(&whole).unwrap();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0xff;
            std::fs::write(&flipped, &bytes).unwrap();
            if open(Some(&flipped), None).is_ok() {
                assert!(read(&flipped).0.len() <= 2);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_bytes_behind_a_header_end_without_a_panic(
        rest in proptest::collection::vec(any::<u8>(), 0..200),
        blocks in proptest::collection::vec((0u32..12, 12u32..64), 0..4),
    ) {
        let folder = Folder::new("any");
        for name in ["a.pcap", "a.pcapng"] {
            let path = folder.file(name);
            write(&path, &[vec![1; 60]]);
            let mut bytes = std::fs::read(&path).unwrap();
            // Blocks with correct type and lengths, so that their content is read.
            for (kind, len) in &blocks {
                let (kind, len) = (kind.to_ne_bytes(), len.next_multiple_of(4));
                let body: Vec<_> = rest.iter().copied().chain([0; 64]).take(len as usize - 12).collect();
                bytes.extend([&kind[..], &len.to_ne_bytes(), &body, &len.to_ne_bytes()].concat());
            }
            bytes.extend(&rest);
            std::fs::write(&path, &bytes).unwrap();
            let (frames, _) = read(&path);
            prop_assert_eq!(&frames[0], &vec![1; 60]);
        }
    }
}

#[test]
fn unreadable_records_are_skipped_and_counted_by_reason() {
    let folder = Folder::new("long");
    let path = folder.file("a.pcap");
    let short = [7; 60];
    write_link_type(&path, 1, &[(60, &short), (3000, &[7; 3000]), (1500, &short), (70, &[7; 70])]);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let (frames, stats) = read(&path);
    assert_eq!(frames, [short]);
    assert_eq!((stats.rx_packets, stats.rx_oversize, stats.rx_errors), (1, 1, 2));
    let reasons = [(Skip::CutShort, 1), (Skip::Truncated, 1), (Skip::TooLong, 1)];
    assert_eq!(receive_all(&path).1, Skipped::from(reasons));
    // A list of frames has no longest one.
    let (frames, skipped) = super::read(&path, MAC).unwrap();
    assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [60, 3000]);
    assert_eq!(skipped, Skipped::from([(Skip::CutShort, 1), (Skip::Truncated, 1)]));
}

#[test]
fn a_turn_ends_although_every_record_is_skipped() {
    let folder = Folder::new("bound");
    let path = folder.file("a.pcap");
    write_link_type(&path, 1, &[(1500, &[7; 60][..]); 200]);
    let (mut pool, mut port) = (Pool::new(64, 2048).unwrap(), open(Some(&path), None).unwrap());
    port.rx(&mut pool, &mut Burst::new());
    assert_eq!((port.stats().rx_errors, port.is_exhausted()), (64, false));
}

/// Writes a capture of `count` blocks of this type and content, in a section of its own, and then a
/// packet of the first interface.
fn write_blocks(path: &Path, kind: u32, content: &[u8], count: usize) {
    write_pcapng(path, &[], &[]);
    let mut bytes = std::fs::read(path).unwrap();
    let length = 12 + content.len() as u32;
    let [kind, length] = [kind, length].map(u32::to_ne_bytes);
    bytes.extend([&kind[..], &length, content, &length].concat().repeat(count));
    let packet = [enhanced(0, 0, &[7; 60])];
    write_pcapng(path, &[(1, &[])], &packet);
    let with_packet = std::fs::read(path).unwrap();
    bytes.extend(&with_packet[with_packet.len() - 32 - 60..]);
    std::fs::write(path, bytes).unwrap();
}

/// The content of the description of an Ethernet interface.
fn interface() -> [u8; 8] {
    let [low, high] = 1u16.to_ne_bytes();
    [low, high, 0, 0, 0, 0, 0, 0]
}

#[test]
fn a_turn_ends_although_no_block_is_a_packet() {
    let folder = Folder::new("blocks");
    let path = folder.file("a.pcapng");
    write_blocks(&path, 1, &interface(), 1000);
    let (mut pool, mut port) = (Pool::new(64, 2048).unwrap(), open(Some(&path), None).unwrap());
    let mut turns = 0;
    while port.stats().rx_packets == 0 {
        let mut burst = Burst::new();
        port.rx(&mut pool, &mut burst);
        pool.give_all(&mut burst);
        turns += 1;
    }
    assert_eq!(turns, 1000 / 64 + 1);
}

#[test]
fn a_section_with_too_many_interfaces_ends_the_input() {
    let folder = Folder::new("interfaces");
    let path = folder.file("a.pcapng");
    let most = (1 << 20) / 20;
    write_blocks(&path, 1, &interface(), most);
    let (frames, skipped) = receive_all(&path);
    assert_eq!((frames.len(), skipped), (1, Skipped::new()));
    write_blocks(&path, 1, &interface(), most + 1);
    let (frames, skipped) = receive_all(&path);
    assert_eq!((frames.len(), skipped), (0, Skipped::from([(Skip::Broken, 1)])));
    // Each section has its own.
    let section = |count| {
        write_blocks(&path, 1, &interface(), count);
        std::fs::read(&path).unwrap()
    };
    let two = [section(most), section(most)].concat();
    std::fs::write(&path, two).unwrap();
    assert_eq!(receive_all(&path).0.len(), 2);
}

/// An IPv4 and an IPv6 packet, each to a group.
fn packets() -> [Vec<u8>; 2] {
    let v4 = [&[0x45; 16][..], &[224, 0x81, 2, 3], &[9; 8]].concat();
    let v6 = [&[0x60; 24][..], &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 4, 5, 6], &[9; 8]].concat();
    [v4, v6]
}

#[test]
fn packets_without_an_ethernet_header_get_one() {
    let folder = Folder::new("links");
    let path = folder.file("a.pcap");
    let [v4, v6] = packets();
    let expected =
        [(0x0800, &v4), (0x86dd, &v6)].map(|(kind, packet)| ethernet_frame(MAC, [0; 6], kind, packet));
    for (link_type, before) in [
        (101, &[][..]),
        (12, &[]),
        (14, &[]),
        (228, &[]),
        (229, &[]),
        (0, &[30, 0, 0, 0]),
        (0, &[0, 0, 0, 2]),
        (108, &[0, 0, 0, 2]),
    ] {
        let [a, b] = [&v4, &v6].map(|packet| [before, packet].concat());
        let arp = [before, &[0, 1, 8, 0]].concat();
        let records = [&a[..], &b, &arp, before].map(|data| (data.len() as u32, data));
        write_link_type(&path, link_type, &records);
        let (frames, skipped) = receive_all(&path);
        let frames: Vec<_> = frames.into_iter().map(|(_, frame)| frame).collect();
        assert_eq!(frames, expected, "link type {link_type}");
        assert_eq!(skipped, Skipped::from([(Skip::NoIp, 2)]), "link type {link_type}");
    }
    write_link_type(&path, 0, &[(3, &[2, 0, 0])]);
    assert_eq!(receive_all(&path), (vec![], Skipped::from([(Skip::NoHeader, 1)])));
}

/// Headers of LINUX_SLL and LINUX_SLL2 that say the same.
fn cooked(packet_type: u8, device_type: u16, address: &[u8], protocol: u16) -> [Vec<u8>; 2] {
    let (device_type, protocol) = (device_type.to_be_bytes(), protocol.to_be_bytes());
    let (len, mut field) = (address.len() as u8, [0xee; 8]);
    field[..address.len()].copy_from_slice(address);
    let sll = [&[0, packet_type][..], &device_type, &[0, len], &field, &protocol].concat();
    let sll2 = [&protocol[..], &[0, 0, 0, 0, 0, 3], &device_type, &[packet_type, len], &field].concat();
    [sll, sll2]
}

#[test]
fn cooked_packets_become_frames_to_the_station_or_group_that_they_were_sent_to() {
    let folder = Folder::new("cooked");
    let path = folder.file("a.pcap");
    let ([v4, v6], source) = (packets(), [2, 0, 0, 0, 0, 0x99]);
    let (group4, group6) = ([1, 0, 0x5e, 1, 2, 3], [0x33, 0x33, 0xff, 4, 5, 6]);
    let no_ip = Err(Skip::NoIp);
    for (packet_type, device_type, address, protocol, packet, expected) in [
        (0, 1, &source[..], 0x0800, &v4[..], Ok((MAC, source, 0x0800))),
        (0, 1, &source, 0x86dd, &v6, Ok((MAC, source, 0x86dd))),
        (1, 1, &source, 0x0800, &v4, Ok(([0xff; 6], source, 0x0800))),
        (2, 1, &source, 0x0800, &v4, Ok((group4, source, 0x0800))),
        (2, 1, &source, 0x86dd, &v6, Ok((group6, source, 0x86dd))),
        (2, 1, &source, 0x0800, &v4[..19], Ok(([0xff; 6], source, 0x0800))),
        (2, 1, &source, 0x86dd, &v6[..39], Ok(([0xff; 6], source, 0x86dd))),
        (3, 1, &source, 0x0800, &v4, Ok((MAC, source, 0x0800))),
        (4, 1, &source, 0x0800, &v4, Ok((MAC, source, 0x0800))),
        (0, 1, &source, 0x0806, &[0, 1, 8, 0], Ok((MAC, source, 0x0806))),
        (0, 1, &source, 0x8100, &[0, 5, 8, 0], Ok((MAC, source, 0x8100))),
        (0, 1, &source[..4], 0x0800, &v4, Ok((MAC, [0; 6], 0x0800))),
        // Netlink messages, LLC, and a tunnel device whose protocol is not an EtherType.
        (0, 824, &[], 16, &[0x45; 60], no_ip),
        (0, 1, &source, 4, &[0x42; 60], no_ip),
        (0, 778, &[], 0x0806, &[0, 1, 8, 0], no_ip),
        // Devices that carry IP alone.
        (0, 65534, &[], 0x0800, &v4, Ok((MAC, [0; 6], 0x0800))),
        (0, 772, &[0; 6], 0x86dd, &v6, Ok((MAC, [0; 6], 0x86dd))),
        (0, 65534, &[], 0x0800, &v6, no_ip),
    ] {
        for (link_type, header) in
            [113, 276].into_iter().zip(cooked(packet_type, device_type, address, protocol))
        {
            let record = [&header, packet].concat();
            write_link_type(&path, link_type, &[(record.len() as u32, &record), (15, &record[..15])]);
            let (frames, mut skipped) = receive_all(&path);
            assert_eq!(skipped.remove(&Skip::NoHeader), Some(1));
            let found = match frames.first() {
                Some((_, frame)) => Ok(frame.clone()),
                None => Err(*skipped.first_key_value().unwrap().0),
            };
            let expected = expected.map(|(dst, src, ethertype)| ethernet_frame(dst, src, ethertype, packet));
            assert_eq!(found, expected, "link type {link_type}, {packet_type} {device_type} {protocol:#x}");
        }
    }
}

#[test]
fn each_interface_of_a_capture_has_its_own_link_type() {
    let folder = Folder::new("interfaces");
    let path = folder.file("a.pcapng");
    let [v4, _] = packets();
    let [sll, _] = cooked(0, 1, &[2, 0, 0, 0, 0, 0x99], 0x0800).map(|header| [&header[..], &v4].concat());
    let frame = ethernet_frame(MAC, [2, 0, 0, 0, 0, 0x99], 0x0800, &v4);
    let bare = ethernet_frame(MAC, [0; 6], 0x0800, &v4);
    let interfaces: [(u32, &[_]); 4] = [(105, &[]), (113, &[]), (1, &[]), (101, &[])];
    let blocks = [
        enhanced(1, 0, &sll),
        enhanced(2, 0, &frame),
        enhanced(0, 0, &frame),
        enhanced(3, 0, &v4),
        enhanced(0, 0, &frame),
        Block::Packet(PacketBlock {
            interface_id: 4,
            drop_count: 0,
            timestamp: 0,
            captured_len: 4,
            original_len: 4,
            data: Cow::Borrowed(&[0; 4]),
            options: vec![],
        }),
        enhanced(1, 0, &sll),
    ];
    write_pcapng(&path, &interfaces, &blocks);
    let (frames, skipped) = receive_all(&path);
    let frames: Vec<_> = frames.into_iter().map(|(_, frame)| frame).collect();
    assert_eq!(frames, [frame.clone(), frame.clone(), bare, frame]);
    assert_eq!(skipped, Skipped::from([(Skip::LinkType(105), 2), (Skip::NoInterface, 1)]));
    assert_eq!(Skip::LinkType(105).to_string(), "link type 105 (IEEE802_11) is not supported");
}

#[test]
fn simple_packets_end_at_their_length_or_the_snapshot_length() {
    let folder = Folder::new("simple");
    let path = folder.file("a.pcapng");
    let data = Cow::Borrowed(&[5; 61][..]);
    let simple = |original_len| SimplePacketBlock { original_len, data: data.clone() };
    let mut writer = PcapNgWriter::new(File::create(&path).unwrap()).unwrap();
    let interface = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: 61, options: vec![] };
    writer.write_pcapng_block(interface).unwrap();
    writer.write_pcapng_block(simple(61)).unwrap();
    // Of this one, the last three bytes of the block are padding.
    writer.write_pcapng_block(simple(64)).unwrap();
    drop(writer);
    assert_eq!(receive_all(&path), (vec![(None, vec![5; 61])], Skipped::from([(Skip::CutShort, 1)])));
}

#[test]
fn times_are_read_in_the_units_of_their_interface() {
    use InterfaceDescriptionOption::{IfTsOffset, IfTsResol};
    let folder = Folder::new("units");
    let path = folder.file("a.pcapng");
    let offset = |seconds: i64| IfTsOffset(seconds as u64);
    let [milli, binary] = [[IfTsResol(3), offset(100)], [IfTsResol(0x80 | 10), offset(-5)]];
    let (nano, far) = ([IfTsResol(9)], [IfTsResol(38), offset(0)]);
    let interfaces: [(u32, &[_]); 5] = [(1, &[]), (1, &milli), (1, &binary), (1, &nano), (1, &far)];
    let blocks = [
        enhanced(0, 7_000_001, &[1; 60]),
        enhanced(1, 7_001, &[1; 60]),
        enhanced(2, 10 << 10 | 512, &[1; 60]),
        enhanced(2, 1, &[1; 60]),
        enhanced(3, u64::MAX, &[1; 60]),
        enhanced(4, u64::MAX, &[1; 60]),
        enhanced(0, u64::MAX, &[1; 60]),
        Block::Packet(PacketBlock {
            interface_id: 0,
            drop_count: 0,
            // Its upper half comes first in the file.
            timestamp: 0x1_0000_0002u64.rotate_left(if cfg!(target_endian = "little") { 32 } else { 0 }),
            captured_len: 60,
            original_len: 60,
            data: Cow::Borrowed(&[1; 60]),
            options: vec![],
        }),
    ];
    write_pcapng(&path, &interfaces, &blocks);
    let times: Vec<_> = receive_all(&path).0.into_iter().map(|(time, _)| time.unwrap()).collect();
    let obsolete = 0x1_0000_0002 * 1000;
    assert_eq!(times, [7_000_001_000, 107_001_000_000, 5_500_000_000, 0, u64::MAX, 0, u64::MAX, obsolete]);
}
