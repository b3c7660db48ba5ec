//! The program `wayfarer` as a user runs it.

use crossbeam::channel;
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};
use wayfarer::control::{
    protocol::{
        Answer, BarView, Command as Control, CounterView, DeviceCounter, DropView, Outcome, PortView, Reply,
        VERSION, View,
    },
    server::Server,
};
use wayfarer_dataplane::port::dpdk::Eal;

/// Prepares a run of the program.
pub(super) fn wayfarer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wayfarer"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command
}

/// Runs the program; returns exit code, standard output and standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = wayfarer(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

/// Serves a control socket at `path` with fixed answers.
fn control(path: &Path) -> Server {
    let (sender, requests) = channel::bounded::<wayfarer::slow_path::ControlRequest>(4);
    std::thread::spawn(move || {
        for (command, to) in requests {
            let drop = |reason: &str, packets| DropView {
                reason: reason.into(),
                severity: "error".into(),
                packets,
                meaning: "broken".into(),
            };
            let outcome = match command {
                Control::Show { what: View::Ike } => Outcome::Result(Reply::Ike(vec![CounterView {
                    name: "CookiesSent".into(),
                    count: 3,
                    meaning: "cookies asked for".into(),
                }])),
                Control::Show { what: View::SlowPath } => {
                    Outcome::Result(Reply::SlowPath(vec![CounterView {
                        name: "punted".into(),
                        count: 5,
                        meaning: "frames taken from workers".into(),
                    }]))
                }
                Control::Show { what: View::Ports } => Outcome::Result(Reply::Ports(vec![PortView {
                    port: "nic".into(),
                    counters: [("rx_good_bytes", 9), ("rx_errors", 0)]
                        .map(|(name, value)| DeviceCounter { name: name.into(), value })
                        .to_vec(),
                    ..PortView::default()
                }])),
                Control::Show { what: View::Bars } => {
                    let bar = BarView { identity: "alice".into(), left_s: 7200.0 };
                    Outcome::Result(Reply::Bars(vec![bar]))
                }
                Control::Show { .. } => {
                    Outcome::Result(Reply::Drops(vec![drop("RuntFrame", 0), drop("UdpLength", 7)]))
                }
                Control::SaMove { tunnel, remote, port } => {
                    Outcome::Error(format!("{tunnel} to {remote} port {port:?}"))
                }
                Control::PeerDown { peer, bar_ms } => {
                    Outcome::Error(format!("{peer} down, barred for {bar_ms:?} ms"))
                }
                Control::PeerUnbar { identity } => Outcome::Error(format!("{identity} unbarred")),
                Control::PeerMove { peer, .. } if peer == "office" => Outcome::Result(Reply::Done),
                Control::PeerRekey { peer, ike } => Outcome::Error(format!("{peer} rekey, ike {ike}")),
                Control::PeerMove { peer, local } => Outcome::Error(format!("{peer} from {local}")),
                Control::Reload => panic!("the slow path reads no files"),
            };
            to.send(Answer { version: VERSION, outcome }).unwrap();
        }
    });
    Server::start(path, sender, Arc::new(|| Err("gateway.toml:3: wrong".into()))).unwrap()
}

#[test]
fn help_and_version() {
    let (code, out, _) = run(&["--version"]);
    let dpdk = Eal::VERSION.map_or_else(|| "without DPDK".to_owned(), |version| format!("DPDK {version}"));
    assert_eq!((code, out), (0, format!("wayfarer {} ({dpdk})\n", env!("CARGO_PKG_VERSION"))));
    for (command, example) in [
        (&["--help"][..], "wayfarer sa move alice 192.0.2.7:4500"),
        (&["gateway", "--help"], "wayfarer gateway --config conf/gateway.toml"),
        #[cfg(feature = "bench")]
        (&["--help"], "wayfarer demo"),
        #[cfg(feature = "bench")]
        (&["bench", "esp", "--help"], "wayfarer bench esp --direction out,in"),
        #[cfg(feature = "bench")]
        (&["bench", "crypto", "--help"], "wayfarer bench crypto --size 64,512,1420"),
        #[cfg(feature = "bench")]
        (&["bench", "rate", "--help"], "wayfarer bench rate --port eth1 --peer-port eth2"),
        (&["check", "--help"], "wayfarer check conf/gateway.toml"),
        (&["pki", "gateway", "--help"], "wayfarer pki gateway vpn.example.org --file vpn"),
        (&["pki", "user", "--help"], "wayfarer pki user alice@example.org"),
        (&["profile", "--help"], "wayfarer profile --for apple --config gateway.toml > vpn.mobileconfig"),
        (&["show", "--help"], "wayfarer show drops"),
        (&["show", "--help"], "wayfarer show ports --counters"),
        (&["show", "--help"], "wayfarer show neighbours"),
        (&["reload", "--help"], "wayfarer reload"),
        (&["peer", "down", "--help"], "wayfarer peer down 17"),
        (&["peer", "down", "--help"], "wayfarer peer down alice --bar 12h"),
        (&["peer", "unbar", "--help"], "wayfarer peer unbar alice"),
        (&["peer", "rekey", "--help"], "wayfarer peer rekey alice --ike"),
        (&["peer", "move", "--help"], "wayfarer peer move office --local 198.51.100.2"),
        (&["sa", "move", "--help"], "wayfarer sa move alice [2001:db8::7]:4500"),
    ] {
        let (code, out, _) = run(command);
        assert_eq!(code, 0);
        assert!(out.contains(example), "{out}");
    }
}

#[cfg(not(feature = "bench"))]
#[test]
fn build_without_bench_knows_no_benchmarks() {
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for absent in ["bench", "demo"] {
        assert!(!help.to_lowercase().contains(absent), "{help}");
        assert_eq!(run(&[absent]).0, 2);
    }
}

#[test]
fn wrong_command_line_exits_with_2() {
    for (arguments, message) in [
        (&[][..], "Usage"),
        (&["chekc", "x"], "similar subcommand exists: 'check'"),
        (&["gateway"], "--config"),
        (
            &["show", "everything"],
            "possible values: sa, ports, neighbours, workers, slow-path, drops, peers, bars, ike",
        ),
        (&["show", "sa", "--jsn"], "'--json'"),
        (&["sa", "move", "alice", "nowhere"], "must be an IP address"),
        (&["peer", "move", "alice"], "--local <ADDRESS>"),
        (&["peer", "down"], "<NAME|NUMBER>"),
        (&["peer", "down", "alice", "--bar", "12"], "must be a time above zero, like \"500ms\""),
        (&["--log", "loud", "check", "x"], "possible values: error, warn, info, debug, trace"),
        (&["--log-format", "xml", "check", "x"], "possible values: text, json"),
    ] {
        let (code, _, errors) = run(arguments);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(errors.contains(message), "{errors}");
    }
}

#[test]
fn valid_configuration_exits_with_0() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    fs::write(&path, "[[port]]\nname = \"a\"\nkind = \"sink\"\n").unwrap();
    let (code, out, _) = run(&["check", path.to_str().unwrap()]);
    let end = "valid: 1 port, 0 routes, 0 tunnels, 0 connections, 0 policy rules\n";
    assert_eq!((code, out), (0, format!("{}: {end}", path.display())));
    // How many warnings there are depends on this machine's devices.
    for (file, counts) in [
        ("conf/gateway.toml", "2 ports, 1 route, 1 tunnel, 0 connections, 0 policy rules"),
        ("conf/transport.toml", "2 ports, 0 routes, 1 tunnel, 0 connections, 2 policy rules"),
        ("conf/dpdk-pcap.toml", "2 ports, 0 routes, 1 tunnel, 0 connections, 0 policy rules"),
    ] {
        let (code, out, _) = run(&["check", file]);
        assert_eq!(code, 0, "{out}");
        let (warnings, last) = out.trim_end().rsplit_once('\n').unwrap();
        assert!(warnings.contains("warning: tunnel.inbound.key_file: is an example"), "{out}");
        assert!(last.starts_with(&format!("{file}: valid, with ")), "{out}");
        assert!(last.ends_with(&format!(" warnings: {counts}")), "{out}");
    }
}

#[test]
fn invalid_configuration_exits_with_2_and_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("typo.toml");
    let path = path.to_str().unwrap();
    fs::write(path, "[gateway]\nmss_clam = true\n").unwrap();
    let errors = format!("{path}:2: gateway: unknown key \"mss_clam\"; did you mean \"mss_clamp\"?\n");
    for arguments in [&["check", path][..], &["gateway", "--config", path]] {
        assert_eq!(run(arguments), (2, String::new(), errors.clone()));
    }
    let errors = "nowhere.toml: cannot be read: entity not found\n";
    assert_eq!(run(&["check", "nowhere.toml"]), (2, String::new(), errors.to_owned()));
}

#[test]
fn program_without_dpdk_tells_how_to_build_it() {
    if Eal::VERSION.is_none() {
        let (code, _, errors) = run(&["gateway", "--config", "conf/dpdk-lab.toml"]);
        let expected =
            "dpdk: this program was built without it; build it with: cargo build --release --features dpdk\n";
        assert_eq!((code, errors.ends_with(expected)), (1, true), "{errors}");
    }
}

#[test]
fn check_warns_of_keys_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, "ab".repeat(20)).unwrap();
    let sa = |spi| format!("{{ spi = {spi}, cipher = \"aes128gcm16\", key_file = \"key\" }}");
    let text = format!(
        "[[port]]\nname = \"a\"\nkind = \"sink\"\naddresses = \"192.0.2.1\"\n[[tunnel]]\nname = \"t\"\nlocal = \
         \"192.0.2.1\"\nremote = \"any\"\ninner_local = \"10.0.0.0/8\"\ninner_remote = \"10.0.0.0/8\"\ninbound = \
         {}\noutbound = {}\n",
        sa(256),
        sa(257)
    );
    let path = folder.path().join("a.toml");
    fs::write(&path, text).unwrap();
    let check = |mode| {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        run(&["check", path.to_str().unwrap()])
    };
    let (code, _, errors) = check(0o640);
    assert_eq!(
        (code, errors.contains("users other than its owner can access this key file")),
        (0, true),
        "{errors}"
    );
    assert!(!errors.contains('\x1b') && !errors.contains("abab"), "{errors}");
    let (code, _, errors) = check(0o600);
    assert_eq!((code, &errors[..]), (0, ""));
}

#[test]
fn missing_gateway_exits_with_1() {
    for arguments in [&["show", "sa"][..], &["sa", "move", "alice", "192.0.2.7"]] {
        let (code, out, errors) = run(&[arguments, &["--socket", "/nonexistent/sock"]].concat());
        assert_eq!((code, &out[..], &errors[..]), (1, "", "no gateway at /nonexistent/sock\n"));
    }
}

#[test]
fn shows_and_commands_a_running_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let _server = control(&path);
    let path = path.to_str().unwrap();
    let (code, out, _) = run(&["show", "drops", "--socket", path]);
    assert_eq!(
        (code, &out[..]),
        (0, "PACKETS  SEVERITY  REASON     MEANING\n      7  error     UdpLength  broken\n")
    );
    let (_, out, _) = run(&["show", "drops", "--json", "--socket", path]);
    let drops: Vec<DropView> = serde_json::from_str(&out).unwrap();
    assert_eq!((drops.len(), drops[1].packets), (2, 7));
    let (_, out, _) = run(&["show", "ports", "--json", "--socket", path]);
    let ports: Vec<PortView> = serde_json::from_str(&out).unwrap();
    assert_eq!(ports[0].counters.iter().map(|counter| counter.value).collect::<Vec<_>>(), [9, 0]);
    let (code, _, errors) = run(&["sa", "move", "alice", "[2001:db8::7]:4501", "--socket", path]);
    assert_eq!((code, &errors[..]), (1, "alice to 2001:db8::7 port Some(4501)\n"));
    let (code, out, _) = run(&["show", "ike", "--socket", path]);
    assert_eq!((code, &out[..]), (0, "COUNT  NAME         MEANING\n    3  CookiesSent  cookies asked for\n"));
    let (code, out, _) = run(&["show", "slow-path", "--socket", path]);
    assert_eq!((code, &out[..]), (0, "COUNT  NAME    MEANING\n    5  punted  frames taken from workers\n"));
    let (_, out, _) = run(&["show", "slow-path", "--json", "--socket", path]);
    let counters: Vec<CounterView> = serde_json::from_str(&out).unwrap();
    assert_eq!((counters.len(), &counters[0].name[..], counters[0].count), (1, "punted", 5));
    let (code, out, _) = run(&["show", "ports", "--counters", "--socket", path]);
    assert_eq!((code, &out[..]), (0, "PORT  COUNT  NAME\nnic       9  rx_good_bytes\n"));
    let (code, out, _) = run(&["peer", "move", "office", "--local", "198.51.100.2", "--socket", path]);
    assert_eq!((code, &out[..]), (0, "moved\n"));
    let (code, out, _) = run(&["show", "bars", "--socket", path]);
    assert_eq!((code, &out[..]), (0, "IDENTITY   LEFT\nalice     2h 0m\n"));
    for (arguments, expected) in [
        (&["reload"][..], "gateway.toml:3: wrong\n"),
        (&["peer", "down", "17"], "17 down, barred for None ms\n"),
        (&["peer", "down", "alice", "--bar", "2h"], "alice down, barred for Some(7200000) ms\n"),
        (&["peer", "unbar", "alice"], "alice unbarred\n"),
        (&["peer", "rekey", "alice"], "alice rekey, ike false\n"),
        (&["peer", "rekey", "alice", "--ike"], "alice rekey, ike true\n"),
        (&["peer", "move", "alice", "--local", "2001:db8::9"], "alice from 2001:db8::9\n"),
    ] {
        let (code, _, errors) = run(&[arguments, &["--socket", path]].concat());
        assert_eq!((code, &errors[..]), (1, expected));
    }
}

#[test]
fn closed_output_pipe_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let _server = control(&path);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let arguments = ["show", "drops", "--json", "--socket", path.to_str().unwrap()];
    let output = wayfarer(&arguments).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
}

#[cfg(feature = "bench")]
#[test]
fn demonstration_prints_one_json_object() {
    let (code, out, errors) = run(&[
        "demo",
        "--seconds",
        "1",
        "--terminals",
        "20",
        "--move-every",
        "200",
        // The machine may stop the gateway for long.
        "--in-flight",
        "60000",
        "--json",
    ]);
    assert_eq!((code, &errors[..]), (0, ""));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    for field in ["packets", "mpps", "gbps", "moves"] {
        assert!(report[field].as_f64().unwrap() > 0.0, "{field} in {out}");
    }
    assert_eq!(report["lost_to_moves"], 0);
    for percentile in ["p50", "p99", "p999", "max"] {
        assert!(report["latency_us"][percentile].as_f64().unwrap() > 0.0, "{percentile} in {out}");
    }
    assert_eq!(run(&["demo", "--terminals", "0"]).0, 2);
}
