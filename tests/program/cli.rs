//! The program `wayfarer` as a user runs it.

use crossbeam::channel;
use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};
use wayfarer::control::{
    protocol::{
        Answer, Command as Control, CounterView, DeviceCounter, DropView, Outcome, PortView, Reply, VERSION,
        View,
    },
    server::Server,
};
use wayfarer_dataplane::port::dpdk::Eal;

fn wayfarer(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wayfarer"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    command
}

/// Exit code, standard output, standard error.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = wayfarer(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

/// A gateway's control socket at `path`, where one reason has drops and one has none.
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
                Control::Show { what: View::Ports } => Outcome::Result(Reply::Ports(vec![PortView {
                    port: "nic".into(),
                    counters: [("rx_good_bytes", 9), ("rx_errors", 0)]
                        .map(|(name, value)| DeviceCounter { name: name.into(), value })
                        .to_vec(),
                    ..PortView::default()
                }])),
                Control::Show { .. } => {
                    Outcome::Result(Reply::Drops(vec![drop("RuntFrame", 0), drop("UdpLength", 7)]))
                }
                Control::SaMove { tunnel, remote, port } => {
                    Outcome::Error(format!("{tunnel} to {remote} port {port:?}"))
                }
                Control::PeerDown { peer } => Outcome::Error(format!("{peer} down")),
                Control::PeerRekey { peer, ike } => Outcome::Error(format!("{peer} rekey, ike {ike}")),
                Control::PeerMove { peer, local } => Outcome::Error(format!("{peer} from {local}")),
            };
            to.send(Answer { version: VERSION, outcome }).unwrap();
        }
    });
    Server::start(path, sender).unwrap()
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
        (&["show", "--help"], "wayfarer show drops"),
        (&["show", "--help"], "wayfarer show ports --counters"),
        (&["peer", "down", "--help"], "wayfarer peer down 17"),
        (&["peer", "rekey", "--help"], "wayfarer peer rekey alice --ike"),
        (&["peer", "move", "--help"], "wayfarer peer move office --local 198.51.100.2"),
        (&["sa", "move", "--help"], "wayfarer sa move alice [2001:db8::7]:4500"),
    ] {
        let (code, out, _) = run(command);
        assert_eq!(code, 0);
        assert!(out.contains(example), "{out}");
    }
}

/// A build without the feature `bench` is a gateway and nothing else.
#[cfg(not(feature = "bench"))]
#[test]
fn an_appliance_knows_no_benchmarks() {
    let (code, help, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for absent in ["bench", "demo"] {
        assert!(!help.to_lowercase().contains(absent), "{help}");
        assert_eq!(run(&[absent]).0, 2);
    }
}

#[test]
fn a_wrong_command_line_is_2() {
    for (arguments, said) in [
        (&[][..], "Usage"),
        (&["chekc", "x"], "similar subcommand exists: 'check'"),
        (&["gateway"], "--config"),
        (&["show", "everything"], "possible values: sa, ports, workers, drops, peers, ike"),
        (&["show", "sa", "--jsn"], "'--json'"),
        (&["sa", "move", "alice", "nowhere"], "must be an IP address"),
        (&["peer", "move", "alice"], "--local <ADDRESS>"),
        (&["peer", "down"], "<NAME|NUMBER>"),
        (&["--log", "loud", "check", "x"], "possible values: error, warn, info, debug, trace"),
    ] {
        let (code, _, said_really) = run(arguments);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(said_really.contains(said), "{said_really}");
    }
}

#[test]
fn a_right_configuration_is_0() {
    let (code, out, _) = run(&["check", "conf/gateway.toml"]);
    assert_eq!(
        (code, &out[..]),
        (0, "conf/gateway.toml: valid: 2 ports, 1 route, 1 tunnel, 0 connections, 0 policy rules\n")
    );
    let (code, out, _) = run(&["check", "conf/transport.toml"]);
    assert_eq!(
        (code, &out[..]),
        (0, "conf/transport.toml: valid: 2 ports, 0 routes, 1 tunnel, 0 connections, 2 policy rules\n")
    );
}

#[test]
fn a_wrong_configuration_is_2_and_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("typo.toml");
    let path = path.to_str().unwrap();
    fs::write(path, "[gateway]\nmss_clam = true\n").unwrap();
    let said = format!("{path}:2: gateway: unknown key \"mss_clam\"; did you mean \"mss_clamp\"?\n");
    for arguments in [&["check", path][..], &["gateway", "--config", path]] {
        assert_eq!(run(arguments), (2, String::new(), said.clone()));
    }
    let said = "nowhere.toml: cannot be read: entity not found\n";
    assert_eq!(run(&["check", "nowhere.toml"]), (2, String::new(), said.to_owned()));
}

#[test]
fn a_program_without_dpdk_says_how_to_build_one_with_it() {
    if Eal::VERSION.is_none() {
        let (code, _, said) = run(&["gateway", "--config", "conf/dpdk-lab.toml"]);
        let wanted =
            "dpdk: this program was built without it; build it with: cargo build --release --features dpdk\n";
        assert_eq!((code, said.ends_with(wanted)), (1, true), "{said}");
    }
}

#[test]
fn others_may_not_read_keys() {
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
    let (code, _, said) = check(0o640);
    assert_eq!(
        (code, said.contains("users other than its owner can access this key file")),
        (0, true),
        "{said}"
    );
    assert!(!said.contains('\x1b') && !said.contains("abab"), "{said}");
    let (code, _, said) = check(0o600);
    assert_eq!((code, &said[..]), (0, ""));
}

#[test]
fn no_gateway_is_1() {
    for arguments in [&["show", "sa"][..], &["sa", "move", "alice", "192.0.2.7"]] {
        let (code, out, said) = run(&[arguments, &["--socket", "/nonexistent/sock"]].concat());
        assert_eq!((code, &out[..], &said[..]), (1, "", "no gateway at /nonexistent/sock\n"));
    }
}

#[test]
fn a_running_gateway_is_shown_and_told() {
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
    let (code, _, said) = run(&["sa", "move", "alice", "[2001:db8::7]:4501", "--socket", path]);
    assert_eq!((code, &said[..]), (1, "alice to 2001:db8::7 port Some(4501)\n"));
    let (code, out, _) = run(&["show", "ike", "--socket", path]);
    assert_eq!((code, &out[..]), (0, "COUNT  NAME         MEANING\n    3  CookiesSent  cookies asked for\n"));
    let (code, out, _) = run(&["show", "ports", "--counters", "--socket", path]);
    assert_eq!((code, &out[..]), (0, "PORT  COUNT  NAME\nnic       9  rx_good_bytes\n"));
    for (arguments, wanted) in [
        (&["peer", "down", "17"][..], "17 down\n"),
        (&["peer", "rekey", "alice"], "alice rekey, ike false\n"),
        (&["peer", "rekey", "alice", "--ike"], "alice rekey, ike true\n"),
        (&["peer", "move", "alice", "--local", "2001:db8::9"], "alice from 2001:db8::9\n"),
    ] {
        let (code, _, said) = run(&[arguments, &["--socket", path]].concat());
        assert_eq!((code, &said[..]), (1, wanted));
    }
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
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
fn the_demonstration_prints_one_object() {
    let (code, out, said) = run(&[
        "demo",
        "--seconds",
        "1",
        "--terminals",
        "20",
        "--move-every",
        "200",
        "--in-flight",
        "1000",
        "--json",
    ]);
    assert_eq!((code, &said[..]), (0, ""));
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
