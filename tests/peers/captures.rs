//! Captures of every link type, made by scapy and Wireshark's tools: scapy checks what the gateway
//! makes of each packet, and when.

use crate::scapy;
use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// The captures that only a part of arrives of, and what the gateway says of each direction.
const SKIPPED: &[(&str, u32, &str)] = &[
    ("snapped", 5, "cut short by the snapshot length of the capture"),
    ("truncated", 1, "truncated: the input ends in the middle of a record"),
    ("radio", 2, "link type 105 (IEEE802_11) is not supported"),
];

/// Makes the captures in a folder of this name, and returns their names.
fn make(folder: &str) -> (PathBuf, Vec<String>) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    for (way, byte) in [("up", "11"), ("down", "22")] {
        fs::write(folder.join(format!("key-{way}")), byte.repeat(20)).unwrap();
        fs::set_permissions(folder.join(format!("key-{way}")), Permissions::from_mode(0o600)).unwrap();
    }
    let names = scapy("captures.py", [Path::new("make"), &folder]);
    (folder, names.lines().map(str::to_owned).collect())
}

/// Returns the command that runs the gateway from `up` and `down` to `up_out` and `down_out`, files of
/// the folder.
fn gateway(folder: &Path, up: &str, down: &str, up_out: &str, down_out: &str) -> Command {
    let config = folder.join("gateway.toml");
    let text = format!(
        r#"
        [gateway]
        workers = [0]
        control = "none"
        [[port]]
        name = "outside"
        kind = "pcap"
        input = "{up}"
        output = "{down_out}"
        addresses = "203.0.113.1/24"
        mac = "02:00:00:00:00:01"
        [[port]]
        name = "inside"
        kind = "pcap"
        input = "{down}"
        output = "{up_out}"
        addresses = "10.99.0.1/24"
        mac = "02:00:00:00:00:02"
        [[route]]
        to = "0.0.0.0/0"
        via = "203.0.113.254"
        [[tunnel]]
        name = "t"
        local = "203.0.113.1"
        remote = "192.0.2.7"
        encap = "none"
        inner_local = "10.99.0.0/24"
        inner_remote = "10.98.0.7"
        inbound = {{ spi = 0x1001, cipher = "aes128gcm16", key_file = "key-up" }}
        outbound = {{ spi = 0x2001, cipher = "aes128gcm16", key_file = "key-down" }}
        "#
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_wayfarer"));
    command.args(["--log-format", "json", "gateway", "--config"]).arg(config);
    command
}

/// Returns the warnings about skipped records: port, number and reason.
fn skipped(output: &Output) -> Vec<(String, u64, String)> {
    let log = str::from_utf8(&output.stderr).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let about = lines.filter(|line| line["event"] == "records_skipped");
    about
        .map(|line| {
            assert_eq!(line["level"], "WARN");
            let text = |field: &str| line[field].as_str().unwrap().to_owned();
            (text("port"), line["records"].as_u64().unwrap(), text("reason"))
        })
        .collect()
}

#[test]
fn packets_of_every_link_type_arrive_with_their_times() {
    let (folder, names) = make("captures");
    assert!(names.len() >= 10, "{names:?}");
    for name in &names {
        let [up, down] = ["up", "down"].map(|way| format!("{name}.{way}"));
        let [up_out, down_out] = ["up", "down"].map(|way| format!("{name}-{way}.pcapng"));
        let output = gateway(&folder, &up, &down, &up_out, &down_out).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {text}");
        let expected: Vec<_> = SKIPPED
            .iter()
            .filter(|(of, ..)| of == name)
            .flat_map(|(_, records, why)| ["outside", "inside"].map(|port| (port, u64::from(*records), *why)))
            .map(|(port, records, why)| (port.to_owned(), records, why.to_owned()))
            .collect();
        assert_eq!(skipped(&output), expected, "{name}: {text}");
    }
    let arguments = [String::from("check"), folder.to_str().unwrap().to_owned()];
    let checked = scapy("captures.py", arguments.iter().chain(&names));
    assert_eq!(checked, format!("{} captures\n", names.len()));
}

#[test]
fn pipes_carry_the_same_as_files() {
    let (folder, _) = make("pipes");
    let file = |name: &str| fs::read(folder.join(name)).unwrap();
    let mut files = gateway(&folder, "sll.up", "sll.down", "files.pcap", "down.pcap");
    assert!(files.output().unwrap().status.success());
    let fifo = folder.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut pipes = gateway(&folder, "/dev/stdin", "fifo", "/dev/stdout", "down.pcap");
    let mut pipes = pipes.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = pipes.stdin.take().unwrap();
    input.write_all(&file("sll.up")).unwrap();
    // Records that are skipped, and more than a pipe holds: the gateway reads them although nobody
    // writes to its other input yet.
    let noise = [&[0; 8][..], &1000u32.to_le_bytes(), &1000u32.to_le_bytes(), &[0; 1000]].concat();
    input.write_all(&noise.repeat(200)).unwrap();
    drop(input);
    fs::write(&fifo, file("sll.down")).unwrap();
    let mut found = Vec::new();
    pipes.stdout.take().unwrap().read_to_end(&mut found).unwrap();
    assert!(pipes.wait().unwrap().success());
    assert_eq!(found, file("files.pcap"));
    assert!(found.len() > 5 * 60);
}

#[test]
fn a_pipe_with_something_else_ends_the_gateway_with_an_error() {
    let (folder, _) = make("strange");
    let compressed = folder.join("sll.up.gz");
    assert!(Command::new("gzip").arg(folder.join("sll.up")).status().unwrap().success());
    let mut command = gateway(&folder, "/dev/stdin", "sll.down", "up.pcap", "down.pcap");
    let mut feed = Command::new("cat").arg(compressed).stdout(Stdio::piped()).spawn().unwrap();
    let from_pipe = command.stdin(feed.stdout.take().unwrap()).output().unwrap();
    assert!(feed.wait().unwrap().success());
    let from_file = gateway(&folder, "sll.up.gz", "sll.down", "up.pcap", "down.pcap").output().unwrap();
    for output in [from_pipe, from_file] {
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("not a capture: it is compressed by gzip"), "{text}");
    }
}
