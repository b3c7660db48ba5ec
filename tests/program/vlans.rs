//! Ports in VLANs of one capture.

use crate::cli::wayfarer;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};
use wayfarer::sim::{fixtures::*, frames::*, terminal::Terminal};
use wayfarer_dataplane::wire::ethernet;

const SUITE: &str = "aes128gcm16";
/// The tags of the ports: outside, inside.
const TAGS: [&[u8]; 2] = [&[0x81, 0, 0, 100], &[0x88, 0xa8, 0, 100, 0x81, 0, 0, 200]];

fn in_vlan(port: usize, packet: &[u8]) -> Vec<u8> {
    let mut frame = frame(GATEWAY_MAC[OUTSIDE], STATION_MAC[port], packet);
    frame.splice(12..12, TAGS[port].iter().copied());
    frame
}

/// Writes a capture in the pcap format.
fn write(path: &Path, frames: &[Vec<u8>]) {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let mut file = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1]);
    for frame in frames {
        file.extend(words(&[1, 0, frame.len() as u32, frame.len() as u32]));
        file.extend(frame);
    }
    fs::write(path, file).unwrap();
}

/// Reads the frames of a capture in the pcap format.
fn read(path: &Path) -> Vec<Vec<u8>> {
    let file = fs::read(path).unwrap();
    let (mut rest, mut frames) = (&file[24..], vec![]);
    while let Some((header, records)) = rest.split_first_chunk::<16>() {
        let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        frames.push(records[..length].to_vec());
        rest = &records[length..];
    }
    frames
}

/// Runs a gateway on these frames, with an outside and an inside port on one capture, and returns the
/// frames that it writes.
fn run(frames: &[Vec<u8>], kind: &str) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, seed) in [("in", 1), ("out", 1001)] {
        let key: String = material(suite(SUITE), seed).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(path(name), key).unwrap();
        fs::set_permissions(path(name), Permissions::from_mode(0o600)).unwrap();
    }
    write(&path("in.pcap"), frames);
    let config = format!(
        r#"
[gateway]
workers = [0]
control = "none"
[[port]]
name = "outside"
{kind}
vlan = 100
mac = "02:00:00:00:00:10"
addresses = "203.0.113.1/24"
[[port]]
name = "inside"
{kind}
vlan = [100, 200]
mac = "02:00:00:00:00:10"
addresses = "10.99.0.1/24"
[[route]]
to = "0.0.0.0/0"
via = "203.0.113.254"
[[tunnel]]
name = "t"
local = "203.0.113.1"
remote = "192.0.2.1"
inner_local = "10.99.0.0/24"
inner_remote = "10.98.0.1"
inbound = {{ spi = 0x1001, cipher = "{SUITE}", key_file = "in" }}
outbound = {{ spi = 0x2001, cipher = "{SUITE}", key_file = "out" }}
"#
    );
    fs::write(path("gateway.toml"), config).unwrap();
    let output = wayfarer(&["gateway", "--config", path("gateway.toml").to_str().unwrap()]).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{log}");
    match path("out.pcap").exists() {
        true => read(&path("out.pcap")),
        // The log says at the end what was forwarded.
        false => vec![log.into_bytes()],
    }
}

#[test]
fn a_capture_of_several_vlans_is_divided_among_ports() {
    let mut terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
    let up = datagram("10.98.0.1", "10.99.0.7", (1, 2), b"up");
    let down = datagram("10.99.0.7", "10.98.0.1", (2, 1), b"down");
    let mut other = in_vlan(INSIDE, &down);
    other[19] += 1;
    let frames = [in_vlan(OUTSIDE, &terminal.seal(&up)), in_vlan(INSIDE, &down), other];
    let mut written = run(&frames, "kind = \"pcap\"\ninput = \"in.pcap\"\noutput = \"out.pcap\"");
    written.sort_by_key(|frame| frame[12] != 0x88);
    let [inside, outside] = &written[..] else { panic!("{written:x?}") };
    let packet = |port: usize, frame: &[u8]| {
        assert_eq!((&frame[6..12], frame[12..].starts_with(TAGS[port])), (&GATEWAY_MAC[OUTSIDE][..], true));
        frame[ethernet::HEADER + TAGS[port].len()..].to_vec()
    };
    assert_eq!(packet(INSIDE, inside), forwarded(&up));
    assert_eq!(terminal.open(&packet(OUTSIDE, outside)).2, forwarded(&down));
}

#[test]
fn generated_load_of_several_vlans_is_divided_among_ports() {
    let mut terminal = Terminal::new(1, suite(SUITE), "192.0.2.1");
    let up = datagram("10.98.0.1", "10.99.0.7", (1, 2), b"up");
    let down = datagram("10.99.0.7", "10.98.0.1", (2, 1), b"down");
    let frames = [in_vlan(OUTSIDE, &terminal.seal(&up)), in_vlan(INSIDE, &down)];
    let log = run(&frames, "kind = \"generator\"\ninput = \"in.pcap\"\ncount = 2").remove(0);
    let log = String::from_utf8(log).unwrap();
    assert!(log.contains("received=2 opened=1 sealed=1 sent=2"), "{log}");
}
