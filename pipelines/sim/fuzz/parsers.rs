//! Fuzzes parsers one by one.

use crate::{
    config,
    control::{
        protocol::{Answer, Request, VERSION},
        server,
    },
    sim::{
        esp::{Layout, seal},
        files::with_file,
    },
};
use std::{net::IpAddr, path::Path};
use wayfarer_dataplane::{
    crypto::{self, Backend, Key, OpenJob, Suite},
    port::pcap,
    sa::Flow,
    wire::{
        arp::Arp,
        esp,
        ethernet::{self, Ethernet},
        icmp::{self, Problem},
        ip::{self, IpHeader},
        nd::Neighbour,
        probe::{self, Probe},
        tcp, udp,
    },
};
use wayfarer_mobility::ike::{wire as ike, wire::ProtectedMessage};

/// Checks the headers of a frame: lengths lie within the bytes, and changed packets stay
/// well-formed.
pub fn wire(data: &[u8]) {
    if let Some((length, _)) = esp::trailer(data) {
        assert!(length + esp::TRAILER <= data.len());
    }
    if let Some(probe) = Probe::parse(data) {
        let mut again = [0; probe::LEN];
        probe.emit(&mut again);
        assert_eq!(again, data[..probe::LEN]);
    }
    let _ = (esp::header(data), tcp::clamp_mss(&mut data.to_vec(), 1200));
    if Ethernet::parse(data).is_err() {
        return;
    }
    let packet = &data[ethernet::HEADER..];
    let Ok(header) = IpHeader::parse(packet) else { return };
    assert!(header.protocol_at() < header.header_len() && header.header_len() <= header.total_len());
    let packet = &packet[..header.total_len()];
    let payload = header.payload(packet);
    let flow = Flow::of(&header, packet);
    assert_eq!(flow.reversed().reversed(), flow);
    if let Ok(udp) = udp::Udp::parse(payload) {
        assert!((udp::HEADER..=payload.len()).contains(&udp.length));
    }
    if icmp::may_answer(&header, packet) {
        for problem in [Problem::TooBig { mtu: 1280 }, Problem::TimeExceeded, Problem::HostUnreachable] {
            let answer = icmp::error(problem, header.dst.into(), &header, packet).expect("one family");
            let outer = IpHeader::parse(&answer).expect("a packet");
            assert_eq!(outer.dst, header.src);
            if let Some((quoted, bytes)) = icmp::quoted(&outer, &answer) {
                assert_eq!((quoted.src, quoted.total_len()), (header.src, bytes.len()));
            }
        }
    }
    if let Some((quoted, bytes)) = icmp::quoted(&header, packet) {
        assert!(quoted.header_len() <= quoted.total_len() && quoted.total_len() == bytes.len());
    }
    let mut changed = packet.to_vec();
    ip::set_traffic_class(&mut changed, !header.traffic_class);
    if header.hop_limit > 0 {
        ip::decrement_hop_limit(&mut changed);
    }
    tcp::clamp_mss(&mut changed[header.header_len()..], 1200);
    let again = IpHeader::parse(&changed).expect("still a packet");
    assert_eq!(again.hop_limit, header.hop_limit.saturating_sub(1));
    assert_eq!(again.traffic_class, !header.traffic_class);
}

/// Checks ARP and neighbour discovery: a message that was parsed is emitted unchanged.
pub fn neighbours(data: &[u8]) {
    if let Ok(message) = Arp::parse(data) {
        assert_eq!(Arp::parse(&message.frame(ethernet::BROADCAST)[ethernet::HEADER..]), Ok(message));
    }
    let Ok(header) = IpHeader::parse(data) else { return };
    let Ok(message) = Neighbour::parse(&header, data) else { return };
    if let (IpAddr::V6(src), IpAddr::V6(dst)) = (header.src.into(), header.dst.into()) {
        let sender = [2, 0, 0, 0, 0, 1];
        let frame = message.frame(sender, src, ethernet::BROADCAST, dst);
        let packet = &frame[ethernet::HEADER..];
        let again = Neighbour::parse(&IpHeader::parse(packet).expect("a packet"), packet);
        assert_eq!(again, Ok(Neighbour { mac: message.mac.or(Some(sender)), ..message }));
    }
}

/// Checks capture files, pcap and pcapng: all frames together are no longer than the file.
pub fn capture(data: &[u8]) {
    if let Ok((frames, _)) = with_file(data, |path| pcap::read(path, [2; 6])) {
        assert!(frames.iter().map(Vec::len).sum::<usize>() <= data.len());
    }
}

/// Checks configurations: each is accepted, or refused in one line.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(why) = config::parse(text, Path::new("/nonexistent/x.toml")) {
        assert_eq!(why.to_string().lines().count(), 1, "{why}");
    }
}

/// Checks lines of the control socket: commands and answers survive a round trip, and other lines
/// get an answer.
pub fn control(line: &[u8]) {
    match server::parse(line) {
        Ok(command) => {
            let request = Request { version: VERSION, command };
            let line = serde_json::to_vec(&request).expect("JSON");
            assert_eq!(server::parse(&line).ok(), Some(request.command));
        }
        Err(answer) => assert_eq!(answer.version, VERSION),
    }
    if let Ok(answer) = serde_json::from_slice::<Answer>(line) {
        let line = serde_json::to_vec(&answer).expect("JSON");
        assert_eq!(serde_json::from_slice::<Answer>(&line).ok(), Some(answer));
    }
}

/// Checks ESP of every suite. The first two bytes choose suite and ESN. The others, taken as a
/// packet, are not authentic; sealed as a payload they open again, but not after a bit has changed.
pub fn open(data: &[u8]) {
    let [suite, flags, data @ ..] = data else { return };
    let suite = Suite::ALL[usize::from(*suite) % Suite::ALL.len()];
    let esn = flags & 1 != 0;
    let seq = u64::from(*flags) << 30 | 1;
    let key = Key::new(
        suite,
        &vec![0x5a; suite.key_len()],
        Backend::from_env().expect("a backend that this processor can run"),
    )
    .expect("a key");
    let opens = |esp: &mut [u8]| {
        let mut jobs = [OpenJob { key: &key, seq, esn, esp, authentic: false }];
        crypto::open(&mut jobs);
        jobs[0].authentic
    };
    assert!(!opens(&mut data.to_vec()));

    let layout = Layout::new(suite, data.len());
    let mut packet = vec![0; layout.len];
    layout.emit(&mut packet, 0x1001, seq, 4);
    packet[layout.payload.clone()].copy_from_slice(data);
    seal(&key, seq, esn, &mut packet);
    let mut changed = packet.clone();
    let at = usize::from(*flags) * 97 % changed.len();
    changed[at] ^= 1 << (flags % 8);
    assert!(!opens(&mut changed), "{suite}: byte {at} of {}", packet.len());
    assert!(opens(&mut packet));
    assert_eq!(&packet[layout.payload.clone()], data);
    let plain = &packet[layout.payload.start..layout.trailer.end];
    assert_eq!(esp::trailer(plain), Some((data.len(), 4)));
}

/// Checks IKE messages: a message that was parsed is emitted unchanged, in no more bytes. Its
/// header first gets the true length, because others are refused early.
pub fn ike_message(data: &[u8]) {
    let mut message = data.to_vec();
    if let Some(length) = message.get_mut(24..ike::HEADER) {
        length.copy_from_slice(&(data.len() as u32).to_be_bytes());
    }
    let Ok(header) = ike::Header::parse(&message) else { return };
    if let Ok(payloads) = ike::parse(header.next, &message[ike::HEADER..]) {
        let again = ike::emit_message(header, &payloads);
        assert!(again.len() <= message.len());
        assert_eq!(ike::parse(header.next, &again[ike::HEADER..]), Ok(payloads));
    }
    if let Ok(found) = ike::protected(&message) {
        assert_eq!([found.aad, found.rest].concat(), message);
        let mut again = vec![];
        ike::emit_protected(header, found.first, found.fragment, found.rest.len(), &mut again);
        let before_iv = again.clone();
        again.extend_from_slice(found.rest);
        assert_eq!(ike::protected(&again), Ok(ProtectedMessage { aad: &before_iv, ..found }));
    }
}
