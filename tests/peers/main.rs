//! Independent software on both sides of a gateway that runs on files: scapy seals packets for the
//! gateway and opens the gateway's, and tshark dissects those; for every suite, mode and pair of
//! address families, with and without ESN and UDP.
//!
//! Needs the Debian packages python3-scapy and tshark.

mod captures;
mod fragments;

use serde::Serialize;
use std::{
    ffi::OsStr,
    fmt::Write,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};
use wayfarer_dataplane::{
    crypto::Suite,
    port::pcap,
    wire::{ethernet, ip},
};

/// Packets of every case in each direction, as in association.py.
const ROUNDS: usize = 3;
/// The last sequence number used before a case with ESN, so that its packets cross a multiple of
/// 2^32.
const ESN_SEQUENCE: u64 = 0x1_ffff_fffd;

/// One tunnel of the gateway, with all that its peers need.
#[derive(Serialize)]
struct Case {
    name: String,
    suite: String,
    mode: &'static str,
    esn: bool,
    udp: bool,
    /// Length to which inner packets are padded in both directions (RFC 4303 §2.7); 0 for no
    /// padding.
    tfc: usize,
    /// The last sequence number used before, in both directions.
    sequence: u64,
    spi_in: usize,
    spi_out: usize,
    key_in: String,
    key_out: String,
    /// Outer addresses.
    gateway: String,
    peer: String,
    /// Inner addresses.
    inside: String,
    terminal: String,
}

/// Lists every combination of suite, mode, families, ESN and UDP.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for &suite in Suite::ALL {
        for (mode, outer, inner) in [
            ("tunnel", 4, 4),
            ("tunnel", 4, 6),
            ("tunnel", 6, 4),
            ("tunnel", 6, 6),
            ("transport", 4, 4),
            ("transport", 6, 6),
        ] {
            for (esn, udp) in [(false, false), (false, true), (true, false), (true, true)] {
                cases.push(case(cases.len(), suite, mode, (outer, inner), esn, udp));
            }
        }
    }
    cases
}

fn case(index: usize, suite: Suite, mode: &'static str, families: (u8, u8), esn: bool, udp: bool) -> Case {
    let (high, low) = (index / 250, index % 250 + 1);
    let choose = |family, v4: String, v6: String| if family == 4 { v4 } else { v6 };
    let gateway = choose(families.0, "203.0.113.1".into(), "2001:db8:1::1".into());
    let peer = choose(families.0, format!("198.18.{high}.{low}"), format!("2001:db8:2::{index:x}"));
    let (inside, terminal) = match mode {
        "transport" => (gateway.clone(), peer.clone()),
        _ => (
            choose(families.1, "10.99.0.7".into(), "fd00:99::7".into()),
            choose(families.1, format!("10.98.{high}.{low}"), format!("fd00:98::{index:x}")),
        ),
    };
    let key = |salt| hex((0..suite.key_len()).map(|i| (index * 31 + i * 7 + salt) as u8));
    // Every second combination of a suite, and the other half of the next suite.
    let is_padded = mode == "tunnel" && (index / 4 + index / 24) % 2 == 1;
    let encap = if udp { "udp" } else { "ip" };
    Case {
        name: format!(
            "{suite}/{mode}/{}in{}/{encap}{}",
            families.1,
            families.0,
            if esn { "/esn" } else { "" }
        ),
        suite: suite.to_string(),
        mode,
        esn,
        udp,
        tfc: if is_padded { 1000 } else { 0 },
        sequence: if esn { ESN_SEQUENCE } else { 0 },
        spi_in: 0x1000 + index,
        spi_out: 0x10_0000 + index,
        key_in: key(1),
        key_out: key(2),
        gateway,
        peer,
        inside,
        terminal,
    }
}

fn hex(bytes: impl Iterator<Item = u8>) -> String {
    bytes.fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Writes the gateway's configuration.
fn config(cases: &[Case]) -> String {
    let mut text = String::from(
        r#"
        [gateway]
        workers = [0]
        control = "none"
        [[port]]
        name = "outside"
        kind = "pcap"
        input = "outside-in.pcap"
        output = "outside-out.pcap"
        addresses = ["203.0.113.1/24", "2001:db8:1::1/64"]
        mac = "02:00:00:00:00:01"
        [[port]]
        name = "inside"
        kind = "pcap"
        input = "inside-in.pcap"
        output = "inside-out.pcap"
        addresses = ["10.99.0.1/24", "fd00:99::1/64"]
        mac = "02:00:00:00:00:02"
        [[port]]
        name = "host"
        kind = "pcap"
        input = "host-in.pcap"
        output = "host-out.pcap"
        host = true
        mac = "02:00:00:00:00:03"
        [[route]]
        to = "0.0.0.0/0"
        via = "203.0.113.254"
        [[route]]
        to = "::/0"
        via = "2001:db8:1::fe"
        "#,
    );
    for (index, case) in cases.iter().enumerate() {
        let Case { mode, tfc, gateway, peer, inside, terminal, esn, suite, sequence, .. } = case;
        let encap = if case.udp { "udp" } else { "none" };
        let inner = match *mode {
            "tunnel" => format!("inner_local = \"{inside}\"\ninner_remote = \"{terminal}\""),
            _ => String::new(),
        };
        let sa = |way, spi: usize| {
            format!(
                "{{ spi = {spi}, cipher = \"{suite}\", key_file = \"{index}-{way}\", sequence = {sequence} }}"
            )
        };
        // Transport mode does not pad.
        let padding = if *mode == "tunnel" { format!("tfc = {tfc}\n") } else { String::new() };
        let (inbound, outbound) = (sa("in", case.spi_in), sa("out", case.spi_out));
        let _ = write!(
            text,
            "[[tunnel]]\nname = \"t{index}\"\nmode = \"{mode}\"\nlocal = \"{gateway}\"\nremote = \"{peer}\"\n\
             encap = \"{encap}\"\npath_mtu_probing = \"off\"\nesn = {esn}\n{padding}{inner}\n\
             inbound = {inbound}\noutbound = {outbound}\n"
        );
    }
    text
}

/// Returns the folder in which the gateway has run between its peers. It runs once for all tests.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let cases = cases();
        for (index, case) in cases.iter().enumerate() {
            for (way, key) in [("in", &case.key_in), ("out", &case.key_out)] {
                let file = folder.join(format!("{index}-{way}"));
                fs::write(&file, key).unwrap();
                fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            }
        }
        fs::write(folder.join("cases.json"), serde_json::to_vec(&cases).unwrap()).unwrap();
        fs::write(folder.join("gateway.toml"), config(&cases)).unwrap();
        scapy("scapy_peer.py", [Path::new("make"), &folder]);
        let mut gateway = Command::new(env!("CARGO_BIN_EXE_wayfarer"));
        run(gateway.arg("gateway").arg("--config").arg(folder.join("gateway.toml")));
        folder
    })
}

/// Runs a script for scapy, one of this folder, with these arguments; returns its output.
fn scapy<A: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = A>) -> String {
    // Debian's own Python, because Debian's packages are installed there.
    let mut python = Command::new("/usr/bin/python3");
    assert!(
        python.args(["-B", "-c", "import scapy.layers.ipsec"]).output().is_ok_and(|o| o.status.success()),
        "scapy is missing: apt-get install python3-scapy"
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(script);
    run(Command::new("/usr/bin/python3").arg("-B").arg(script).args(arguments))
}

/// Runs a command that must succeed, and returns its standard output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}:\n{stdout}\n{stderr}");
    stdout
}

#[test]
fn scapy_and_the_gateway_open_what_the_other_sealed() {
    let each = ROUNDS * cases().len();
    assert_eq!(scapy("scapy_peer.py", [Path::new("check"), folder()]), format!("{each} {each}\n"));
}

/// Returns the SA's line in tshark's table of ESP SAs; `None` if tshark 4.0 cannot open it: ESN,
/// whose upper half it does not know, AES-GMAC, and ChaCha20-Poly1305.
fn esp_sa(case: &Case) -> Option<String> {
    if case.esn {
        return None;
    }
    let key = |hex: &str| if hex.is_empty() { String::new() } else { format!("0x{hex}") };
    let (cipher, cipher_key, auth, auth_key) = match case.suite.split_once('-') {
        Some((cipher, hash)) => {
            let (auth, digits) = match hash {
                "sha1" => ("HMAC-SHA-1-96 [RFC2404]", 40),
                "sha256" => ("HMAC-SHA-256-128 [RFC4868]", 64),
                "sha384" => ("HMAC-SHA-384-192 [RFC4868]", 96),
                _ => ("HMAC-SHA-512-256 [RFC4868]", 128),
            };
            let (cipher_key, auth_key) = case.key_out.split_at(case.key_out.len() - digits);
            (if cipher == "null" { "NULL" } else { "AES-CBC [RFC3602]" }, cipher_key, auth, auth_key)
        }
        None if case.suite.ends_with("gcm16") => {
            ("AES-GCM with 16 octet ICV [RFC4106]", &case.key_out[..], "NULL", "")
        }
        None => return None,
    };
    let family = if case.gateway.contains(':') { "IPv6" } else { "IPv4" };
    let (cipher_key, auth_key) = (key(cipher_key), key(auth_key));
    let spi = case.spi_out;
    Some(format!(
        "\"{family}\",\"*\",\"*\",\"{spi:#x}\",\"{cipher}\",\"{cipher_key}\",\"{auth}\",\"{auth_key}\"\n"
    ))
}

/// Returns the expected ESP payload of each packet in hexadecimal, from the file that the gateway
/// read: in tunnel mode the forwarded packet, in transport mode the payload of its IP header.
fn expected_payloads(folder: &Path, file: &str, mode: &str) -> Vec<String> {
    let payload = |frame: &Vec<u8>| {
        let packet = &mut frame[ethernet::HEADER..].to_vec();
        let header = ip::IpHeader::parse(packet).unwrap();
        if mode == "transport" {
            return hex(header.payload(packet).iter().copied());
        }
        ip::decrement_hop_limit(packet);
        hex(packet.iter().copied())
    };
    pcap::read(&folder.join(file), [0; 6]).unwrap().0.iter().map(payload).collect()
}

#[test]
fn tshark_opens_the_gateways_packets() {
    assert!(
        Command::new("tshark").arg("--version").output().is_ok_and(|o| o.status.success()),
        "tshark is missing: apt-get install tshark"
    );
    let folder = folder();
    let cases = cases();
    let table: String = cases.iter().filter_map(esp_sa).collect();
    fs::write(folder.join("esp_sa"), &table).unwrap();
    let mut tshark = Command::new("tshark");
    tshark.env("WIRESHARK_CONFIG_DIR", folder).arg("-r").arg(folder.join("outside-out.pcap"));
    tshark.args(["-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"]);
    tshark.args(["-T", "fields", "-e", "esp.spi", "-e", "esp.icv_good", "-e", "esp.decrypted_data"]);
    let text = run(&mut tshark);
    let mut rows: Vec<(usize, &str, &str)> = text
        .lines()
        .map(|line| {
            let fields: Vec<_> = line.split('\t').collect();
            let spi = usize::from_str_radix(fields[0].trim_start_matches("0x"), 16).unwrap();
            (spi, fields[1], fields[2])
        })
        .collect();
    // Sorts by case, and keeps the order within a case.
    rows.sort_by_key(|row| row.0);
    let mut checked = 0;
    for (mode, file) in [("tunnel", "inside-in.pcap"), ("transport", "host-in.pcap")] {
        let payloads = expected_payloads(folder, file, mode);
        let cases: Vec<_> = cases.iter().filter(|case| case.mode == mode).collect();
        for (index, case) in cases.iter().enumerate().filter(|(_, case)| esp_sa(case).is_some()) {
            let found: Vec<_> = rows.iter().filter(|row| row.0 == case.spi_out).collect();
            assert_eq!(found.len(), ROUNDS, "{}", case.name);
            for (turn, (_, good, data)) in found.into_iter().enumerate() {
                assert_eq!(*good, "1", "ICV of {}, packet {turn}", case.name);
                let payload = &payloads[turn * cases.len() + index];
                // Padding, pad length and next header follow the payload.
                assert!(data.starts_with(payload.as_str()), "{}, packet {turn}: {data}", case.name);
                checked += 1;
            }
        }
    }
    assert_eq!(checked, ROUNDS * table.lines().count());
    assert!(table.lines().count() > 200);
}
