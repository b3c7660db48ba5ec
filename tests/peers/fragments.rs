//! ESP in IP fragments on a port in a VLAN, and errors about packets that do not go on. Scapy cuts and
//! joins packets, and tshark judges what the gateway has sent.

use crate::{Case, case, run, scapy};
use std::{
    fmt::Write,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};
use wayfarer_dataplane::crypto::Suite;

/// Packets of every case in each direction, as in fragments.py: one that the gateway must cut, and one
/// that it must not.
const ROUNDS: usize = 2;
/// The severity of tshark's warnings. Errors have higher numbers.
const WARNING: u32 = 0x0060_0000;

/// Lists all combinations of ESP with and without UDP, and both families outside and inside.
fn cases() -> Vec<Case> {
    let families = [(4, 4), (4, 6), (6, 4), (6, 6)];
    let all = families.into_iter().flat_map(|families| [(families, false), (families, true)]);
    let one = |(index, (families, udp))| case(index, Suite::AES_128_GCM_16, "tunnel", families, false, udp);
    (0..).zip(all).map(one).collect()
}

/// Lists tunnels without outer fragments, with both families inside.
fn plain() -> Vec<Case> {
    let one = |(index, inner)| case(index, Suite::AES_128_GCM_16, "tunnel", (4, inner), false, false);
    (100..).zip([4, 6]).map(one).collect()
}

fn config(cases: &[Case], plain: &[Case]) -> String {
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
        vlan = [7, 100]
        pcp = 5
        addresses = ["203.0.113.1/24", "2001:db8:1::1/64"]
        mac = "02:00:00:00:00:01"
        [[port]]
        name = "inside"
        kind = "pcap"
        input = "inside-in.pcap"
        output = "inside-out.pcap"
        addresses = ["10.99.0.1/24", "fd00:99::1/64"]
        mac = "02:00:00:00:00:02"
        [[route]]
        to = "0.0.0.0/0"
        via = "203.0.113.254"
        [[route]]
        to = "::/0"
        via = "2001:db8:1::fe"
        "#,
    );
    for (cases, outer_fragments) in [(cases, true), (plain, false)] {
        for Case { suite, gateway, peer, inside, terminal, udp, spi_in, spi_out, .. } in cases {
            let encap = if *udp { "udp" } else { "none" };
            let sa = |way, spi: &usize| {
                format!("{{ spi = {spi}, cipher = \"{suite}\", key_file = \"{spi_in}-{way}\" }}")
            };
            let (inbound, outbound) = (sa("in", spi_in), sa("out", spi_out));
            let _ = write!(
                text,
                "[[tunnel]]\nname = \"t{spi_in}\"\nlocal = \"{gateway}\"\nremote = \"{peer}\"\nencap = \"{encap}\"\n\
                 inner_local = \"{inside}\"\ninner_remote = \"{terminal}\"\nmtu = 1280\n\
                 path_mtu_probing = \"off\"\n\
                 outer_fragments = {outer_fragments}\ninbound = {inbound}\noutbound = {outbound}\n"
            );
        }
    }
    text
}

/// Returns the folder in which the gateway has run between its peers. It runs once for all tests.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fragments");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let (cases, plain) = (cases(), plain());
        for Case { spi_in, key_in, key_out, .. } in cases.iter().chain(&plain) {
            for (way, key) in [("in", key_in), ("out", key_out)] {
                let file = folder.join(format!("{spi_in}-{way}"));
                fs::write(&file, key).unwrap();
                fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
            }
        }
        let world = serde_json::json!({ "cases": cases, "plain": plain });
        fs::write(folder.join("world.json"), world.to_string()).unwrap();
        fs::write(folder.join("gateway.toml"), config(&cases, &plain)).unwrap();
        scapy("fragments.py", [Path::new("make"), &folder]);
        let mut gateway = Command::new(env!("CARGO_BIN_EXE_wayfarer"));
        run(gateway.arg("gateway").arg("--config").arg(folder.join("gateway.toml")));
        folder
    })
}

#[test]
fn scapy_and_the_gateway_join_what_the_other_has_cut() {
    let each = ROUNDS * cases().len();
    assert_eq!(scapy("fragments.py", [Path::new("check"), folder()]), format!("{each} {each}\n"));
}

/// Returns these fields of the packets that the gateway has written to a file, as tshark sees them. It
/// must find nothing wrong with any of them.
fn dissected(file: &str, filter: &str, fields: &[&str]) -> Vec<Vec<String>> {
    let mut tshark = Command::new("tshark");
    tshark.env("WIRESHARK_CONFIG_DIR", folder()).arg("-r").arg(folder().join(file)).args(["-Y", filter]);
    for setting in ["ip.defragment", "ipv6.defragment", "ip.check_checksum", "udp.check_checksum"] {
        tshark.args(["-o", &format!("{setting}:TRUE")]);
    }
    tshark.args(["-T", "fields", "-e", "_ws.expert.severity"]);
    for field in fields {
        tshark.args(["-e", *field]);
    }
    let row = |line: &str| -> Vec<String> {
        let mut row = line.split('\t').map(str::to_owned);
        let severities = row.next().expect("a first field");
        for severity in severities.split(',').filter(|severity| !severity.is_empty()) {
            assert!(severity.parse::<u32>().unwrap() < WARNING, "{file}: {line}");
        }
        row.collect()
    };
    run(&mut tshark).lines().map(row).collect()
}

#[test]
fn tshark_joins_the_gateways_fragments_and_finds_nothing_wrong() {
    let fields =
        ["ip.checksum.status", "udp.checksum.status", "ip.reassembled.length", "ipv6.reassembled.length"];
    let [tags, esp] = [&["ieee8021ad.id", "vlan.id", "vlan.priority"][..], &["esp.spi"]];
    let rows = dissected("outside-out.pcap", "frame", &[tags, esp, &fields].concat());
    // One packet of each case goes in two fragments.
    let all = cases().len();
    assert_eq!(rows.len(), 3 * all);
    let has = |column: usize, value: &str| rows.iter().filter(|row| row[column] == value).count();
    let is_set = |column: usize| rows.iter().filter(|row| !row[column].is_empty()).count();
    assert_eq!([has(0, "7"), has(1, "100"), has(2, "5")], [3 * all; 3]);
    // ESP is seen in whole packets only: half of them, joined.
    assert_eq!((is_set(3), is_set(6) + is_set(7)), (ROUNDS * all, all));
    // Every header of IPv4 has a right checksum. So has UDP over IPv6, while it has none over IPv4.
    assert_eq!((has(4, "1"), is_set(4)), (3 * all / 2, 3 * all / 2));
    assert_eq!((has(5, "1"), has(5, "3"), is_set(5)), (all / 2, all / 2, all));
}

#[test]
fn tshark_reads_the_gateways_errors() {
    let of =
        |version: &str| ["type", "code", "mtu", "checksum.status"].map(|field| format!("{version}.{field}"));
    let fields = [of("icmp"), of("icmpv6")].concat();
    let fields: Vec<_> = fields.iter().map(String::as_str).collect();
    // Too long for the tunnel, and at the last hop. No sender of IPv6 is told less than 1280.
    let expected = [
        ["3", "4", "1226", "1", "", "", "", ""],
        ["11", "0", "", "1", "", "", "", ""],
        ["", "", "", "", "2", "0", "1280", "1"],
        ["", "", "", "", "3", "0", "", "1"],
    ];
    assert_eq!(dissected("inside-out.pcap", "icmp or icmpv6", &fields), expected);
}
