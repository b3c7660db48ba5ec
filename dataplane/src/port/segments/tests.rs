use super::*;
use crate::pool::{HEADROOM, Pool};
use proptest::prelude::*;

// A joined frame with 25 bytes of payload, and what it is cut into by 10 bytes. Made with scapy 2.5.0:
// IPv4 with the identification fffe, TCP with a time stamp, the sequence number fffffff8 and the
// flags CWR, ACK, PSH and FIN.
const TCP4: (Joined, &str, [&str; 3]) = (
    Joined::TcpV4,
    "02000000000102000000000208004502004dfffe40004006d465c6336407cb0071099c4001bbfffffff80000004d8099\
     01f4c5f400000101080a00000007000000090102030405060708090a0b0c0d0e0f10111213141516171819",
    [
        "02000000000102000000000208004502003efffe40004006d474c6336407cb0071099c4001bbfffffff80000004d8090\
         01f4568b00000101080a00000007000000090102030405060708090a",
        "02000000000102000000000208004502003effff40004006d473c6336407cb0071099c4001bb000000020000004d8010\
         01f424d000000101080a00000007000000090b0c0d0e0f1011121314",
        "020000000001020000000002080045020039000040004006d478c6336407cb0071099c4001bb0000000c0000004d8019\
         01f42ae400000101080a00000007000000091516171819",
    ],
);
const UDP4: (Joined, &str, [&str; 3]) = (
    Joined::Udp,
    "020000000001020000000002080045020035fffe40004011d472c6336407cb0071099c4001bb002151cf010203040506\
     0708090a0b0c0d0e0f10111213141516171819",
    [
        "020000000001020000000002080045020026fffe40004011d481c6336407cb0071099c4001bb0012e26b010203040506\
         0708090a",
        "020000000001020000000002080045020026ffff40004011d480c6336407cb0071099c4001bb0012b0390b0c0d0e0f10\
         11121314",
        "020000000001020000000002080045020021000040004011d485c6336407cb0071099c4001bb000db6651516171819",
    ],
);
const TCP6: (Joined, &str, [&str; 3]) = (
    Joined::TcpV6,
    "02000000000102000000000286dd600000000039064020010db800000000000000000000000720010db8000000000000\
     0000000000099c4001bbfffffff80000004d809901f4d0b700000101080a00000007000000090102030405060708090a\
     0b0c0d0e0f10111213141516171819",
    [
        "02000000000102000000000286dd60000000002a064020010db800000000000000000000000720010db8000000000000\
         0000000000099c4001bbfffffff80000004d809001f4614e00000101080a00000007000000090102030405060708090a",
        "02000000000102000000000286dd60000000002a064020010db800000000000000000000000720010db8000000000000\
         0000000000099c4001bb000000020000004d801001f42f9300000101080a00000007000000090b0c0d0e0f1011121314",
        "02000000000102000000000286dd600000000025064020010db800000000000000000000000720010db8000000000000\
         0000000000099c4001bb0000000c0000004d801901f435a700000101080a00000007000000091516171819",
    ],
);
const UDP6: (Joined, &str, [&str; 3]) = (
    Joined::Udp,
    "02000000000102000000000286dd600000000021114020010db800000000000000000000000720010db8000000000000\
     0000000000099c4001bb00215c920102030405060708090a0b0c0d0e0f10111213141516171819",
    [
        "02000000000102000000000286dd600000000012114020010db800000000000000000000000720010db8000000000000\
         0000000000099c4001bb0012ed2e0102030405060708090a",
        "02000000000102000000000286dd600000000012114020010db800000000000000000000000720010db8000000000000\
         0000000000099c4001bb0012bafc0b0c0d0e0f1011121314",
        "02000000000102000000000286dd60000000000d114020010db800000000000000000000000720010db8000000000000\
         0000000000099c4001bb000dc1281516171819",
    ],
);

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn header(kind: u8, size: u16) -> VnetHeader {
    let [low, high] = size.to_ne_bytes();
    VnetHeader([1, kind, 0, 0, low, high, 0, 0, 0, 0])
}

/// Cuts `frame` into packets in frames of `frame_size` bytes.
fn cut_into(
    frame_size: usize,
    frame: &[u8],
    link: LinkLayer,
    header: &VnetHeader,
) -> Result<Vec<Vec<u8>>, Unusable> {
    let mut joined = JoinedFrame::new();
    joined.room()[..frame.len()].copy_from_slice(frame);
    joined.start(frame.len(), link, header)?;
    let mut pool = Pool::new(1, frame_size).unwrap();
    let mut all = vec![];
    while joined.is_left() {
        let mut packet = pool.take().unwrap();
        let cut = joined.next(&mut packet, HEADROOM);
        all.push(packet.data().to_vec());
        pool.give(packet);
        cut?;
    }
    Ok(all)
}

fn cut(frame: &[u8], kind: u8, size: u16) -> Result<Vec<Vec<u8>>, Unusable> {
    cut_into(2048, frame, LinkLayer::Ethernet, &header(kind, size))
}

#[test]
fn packets_are_those_that_were_joined() {
    for (kind, joined, packets) in [TCP4, TCP6, UDP4, UDP6] {
        assert_eq!(cut(&bytes(joined), kind as u8, 10).unwrap(), packets.map(bytes), "{kind:?}");
        // Without Ethernet, and behind a tag.
        let ip = LinkLayer::Ip;
        let without = cut_into(2048, &bytes(joined)[14..], ip, &header(kind as u8, 10)).unwrap();
        assert_eq!(without, packets.map(|packet| bytes(packet).split_off(14)));
        let tag = |frame: &str| [&bytes(frame)[..12], &[0x81, 0, 0, 5], &bytes(frame)[12..]].concat();
        assert_eq!(cut(&tag(joined), kind as u8, 10).unwrap(), packets.map(tag));
    }
}

#[test]
fn one_packet_stays_what_it_is() {
    for (kind, joined, _) in [TCP4, TCP6, UDP4, UDP6] {
        for size in [25, 26, 65_535] {
            assert_eq!(cut(&bytes(joined), kind as u8, size).unwrap(), [bytes(joined)], "{kind:?} {size}");
        }
    }
}

#[test]
fn padding_behind_the_packet_is_no_payload() {
    let (kind, joined, packets) = TCP4;
    let padded = [&bytes(joined)[..], &[9; 7]].concat();
    assert_eq!(cut(&padded, kind as u8, 10).unwrap(), packets.map(bytes));
}

#[test]
fn sizes_that_make_no_packets_or_too_many_are_refused() {
    let (kind, joined, _) = TCP4;
    let joined = bytes(joined);
    assert_eq!(cut(&joined, kind as u8, 0), Err(Unusable::Broken));
    assert_eq!(cut(&joined, kind as u8, 1).unwrap().len(), 25);
    let long = |payload: usize| {
        let mut frame = joined[..66].to_vec();
        frame.resize(66 + payload, 7);
        frame[16..18].copy_from_slice(&(52 + payload as u16).to_be_bytes());
        frame[24..26].fill(0);
        let sum = checksum::of(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    assert_eq!(cut(&long(MOST), kind as u8, 1).unwrap().len(), MOST);
    assert_eq!(cut(&long(MOST + 1), kind as u8, 1), Err(Unusable::Broken));
    assert_eq!(cut(&long(65_483), kind as u8, 48).unwrap().len(), 1365);
    // The longest frame that may be joined, and one byte too many for a frame of the pool.
    let all = cut(&long(65_483), kind as u8, 1448).unwrap();
    assert_eq!((all.len(), all[0].len(), all[45].len()), (46, 1514, 66 + 65_483 - 45 * 1448));
    assert_eq!(cut(&long(4000), kind as u8, 1726).unwrap().len(), 3);
    assert_eq!(cut(&long(4000), kind as u8, 1727), Err(Unusable::Oversize));
    let mut joined = JoinedFrame::new();
    assert_eq!(joined.start(LONGEST + 1, LinkLayer::Ethernet, &header(1, 1448)), Err(Unusable::Oversize));
}

#[test]
fn frames_that_are_not_what_their_header_says_are_refused() {
    let ten = |frame: &[u8], kind| cut(frame, kind, 10);
    for (kind, joined, _) in [TCP4, TCP6, UDP4, UDP6] {
        let joined = bytes(joined);
        for other in (0..=255).filter(|other| other & 0x7f != kind as u8) {
            assert_eq!(ten(&joined, other), Err(Unusable::Broken), "{kind:?} {other}");
        }
        for end in 0..joined.len() {
            assert_eq!(ten(&joined[..end], kind as u8), Err(Unusable::Broken), "{kind:?} {end}");
        }
    }
    // A TCP header that is too short, or longer than the packet.
    let (kind, joined, _) = TCP6;
    for (offset, is_sound) in [(0x40, false), (0x50, true), (0xe0, true), (0xf0, false)] {
        let mut frame = bytes(joined);
        frame[14 + 40 + DATA_OFFSET] = offset;
        assert_eq!(ten(&frame, kind as u8).is_ok(), is_sound, "{offset:x}");
    }
    // A fragment.
    let (kind, joined, _) = UDP4;
    let mut frame = bytes(joined);
    frame[20] = 0x20;
    frame[24..26].fill(0);
    let sum = checksum::of(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(ten(&frame, kind as u8), Err(Unusable::Broken));
}

#[test]
fn a_next_frame_takes_the_place_of_what_was_left() {
    let (kind, frame, packets) = UDP6;
    let mut joined = JoinedFrame::new();
    let mut pool = Pool::new(1, 2048).unwrap();
    let mut packet = pool.take().unwrap();
    for _ in 0..2 {
        joined.room()[..bytes(frame).len()].copy_from_slice(&bytes(frame));
        assert!(!joined.is_left());
        joined.start(bytes(frame).len(), LinkLayer::Ethernet, &header(kind as u8, 10)).unwrap();
        joined.next(&mut packet, HEADROOM).unwrap();
        assert_eq!((packet.data(), joined.is_left()), (&bytes(packets[0])[..], true));
    }
    joined.room();
    assert_eq!(joined.next(&mut packet, HEADROOM), Err(Unusable::Broken));
    pool.give(packet);
}

proptest! {
    #[test]
    fn any_bytes_do_no_harm(
        frame in proptest::collection::vec(any::<u8>(), 0..300),
        header: [u8; 10],
        is_ip: bool,
    ) {
        let link = if is_ip { LinkLayer::Ip } else { LinkLayer::Ethernet };
        let _ = cut_into(512, &frame, link, &VnetHeader(header));
    }

    #[test]
    fn any_change_of_a_joined_frame_does_no_harm(
        which in 0usize..4,
        changes in proptest::collection::vec((0usize..100, any::<u8>()), 1..4),
        size: u16,
    ) {
        let (kind, joined, _) = [TCP4, TCP6, UDP4, UDP6][which];
        let mut frame = bytes(joined);
        for (at, value) in changes {
            let at = at % frame.len();
            frame[at] = value;
        }
        if let Ok(all) = cut(&frame, kind as u8, size) {
            prop_assert!(all.len() <= MOST);
        }
    }
}
