//! The log of the program, in JSON.

use crate::cli::wayfarer;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

fn object(line: &str) -> Value {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
    for field in ["time", "level", "message"] {
        assert!(value[field].is_string(), "{line}");
    }
    value
}

/// Every line of a gateway's log is an object, from its start over a reload that fails to its end.
#[test]
fn every_line_of_a_run_is_a_json_object() {
    let folder = tempfile::tempdir().unwrap();
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let mut frames = words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1, 0, 0, 60, 60]);
    frames.extend([0x55; 60]);
    fs::write(folder.path().join("frames.pcap"), frames).unwrap();
    let key = folder.path().join("key \"\n");
    fs::write(&key, "ab".repeat(20)).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let config = folder.path().join("gateway.toml");
    let sa = |spi| format!("{{ spi = {spi}, cipher = \"aes128gcm16\", key_file = \"key \\\"\\n\" }}");
    let text = format!(
        "[gateway]\ncontrol = \"none\"\n[[port]]\nname = \"load\"\nkind = \"generator\"\ninput = \
         \"frames.pcap\"\naddresses = \"192.0.2.1\"\n[[port]]\nname = \"bin\"\nkind = \"sink\"\n[[tunnel]]\nname = \
         \"t\"\nlocal = \"192.0.2.1\"\nremote = \"any\"\ninner_local = \"10.0.0.0/8\"\ninner_remote = \
         \"10.0.0.0/8\"\ninbound = {}\noutbound = {}\n",
        sa(256),
        sa(257)
    );
    fs::write(&config, &text).unwrap();

    let mut command = wayfarer(&["--log-format", "json", "gateway", "--config", config.to_str().unwrap()]);
    let mut gateway = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(gateway.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    let process = gateway.id().to_string();
    let signal =
        |name: &str| assert!(Command::new("kill").args([name, &process]).status().unwrap().success());
    let mut until = |event: &str| {
        let mut seen = vec![];
        while seen.last().is_none_or(|last: &Value| last["event"] != event) {
            seen.push(object(&log.next().unwrap_or_else(|| panic!("no {event}: {seen:?}"))));
        }
        seen
    };
    let start = until("gateway_running");
    let about_key = start.iter().find(|line| line["level"] == "WARN").unwrap();
    assert_eq!(about_key["file"], key.to_str().unwrap());
    fs::write(&config, "nonsense").unwrap();
    signal("-HUP");
    until("not_reloaded");
    signal("-TERM");
    let stopped = until("gateway_stopped").pop().unwrap();
    assert!(stopped["received"].is_u64(), "{stopped}");
    assert!(log.map(|line| object(&line)).all(|line| line["event"] == "dropped"));
    assert!(gateway.wait().unwrap().success());
}

#[test]
fn reason_of_a_failure_is_a_json_object_too() {
    let output = wayfarer(&["check", "nowhere.toml", "--log-format", "json"]).output().unwrap();
    let said = object(std::str::from_utf8(&output.stderr).unwrap());
    assert_eq!(
        (output.status.code(), &said["event"], &said["level"]),
        (Some(2), &"failed".into(), &"ERROR".into())
    );
    assert_eq!(said["message"], "nowhere.toml: cannot be read: entity not found");
}

/// `docs/log.md` has every event that the program has a name for.
#[test]
fn every_event_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_to_string(root.join("docs/log.md")).unwrap();
    let mut folders = vec![root.join("pipelines")];
    let mut events = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|ending| ending == "rs") {
                events.extend(events_in(&fs::read_to_string(entry).unwrap()));
            }
        }
    }
    assert!(events.contains("peer_moved") && events.contains("failed"), "{events:?}");
    let missing: Vec<_> = events.iter().filter(|event| !docs.contains(&format!("`{event}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Returns the names of the events that this source text logs.
fn events_in(source: &str) -> Vec<String> {
    let macros = ["info!(", "warn!(", "error!("];
    let calls = macros.iter().flat_map(|call| source.split(call).skip(1));
    let names = calls.filter_map(|call| call.trim_start().strip_prefix("name: \"")?.split('"').next());
    names.map(str::to_owned).collect()
}
