//! `[dpdk]` and its ports.

use super::*;
use wayfarer_dataplane::port::dpdk::Options;

const TABLE: &str = "[dpdk]\nallow = [\"03:00.0\"]\nvdev = [\"net_tap0,iface=wf0\"]\n";

/// Returns a DPDK port. Its name is in the line after `[[port]]`.
fn port(name: &str, device: &str, keys: &str) -> String {
    format!("[[port]]\nname = {name:?}\nkind = \"dpdk\"\ndevice = {device:?}\n{keys}\n")
}

/// Returns the error of a table with these keys, and of a port on `net_tap0`, which the keys need
/// not create.
fn table(keys: &str) -> String {
    error(&format!("[dpdk]\n{keys}\n{}", port("a", "net_tap0", "")))
}

#[test]
fn defaults_are_filled_in() {
    let config = Folder::new().parse(&format!("{TABLE}{}", port("a", "net_tap0", ""))).unwrap();
    let device = "net_tap0".to_owned();
    assert_eq!(config.ports[0].kind, PortKind::Dpdk { device, promiscuous: false, exception: None });
    let options = Options {
        cores: vec![],
        memory: None,
        hugepages: true,
        allow: vec!["0000:03:00.0".into()],
        vdev: vec!["net_tap0,iface=wf0".into()],
        options: vec![],
    };
    assert_eq!((config.dpdk, config.gateway.workers), (Some(options), None));
    assert_eq!(Folder::new().parse(PORTS).unwrap().dpdk, None);
}

#[test]
fn every_key_reaches_the_model() {
    let table = r#"
[dpdk]
cores = [2, 3]
memory = "512MiB"
hugepages = false
allow = ["0000:3B:00.1,txq_inline_max=0", "04:1f.7"]
vdev = ["net_tap0,iface=wf0", "net_ring1"]
options = ["--iova-mode=va", "--log-level", "lib.eal:debug", "--no-hpet"]
"#;
    let keys = "promiscuous = true\nexception = \"wf-a\"\nexception_rate = 500\nmac = \"02:00:00:00:00:01\"\nmtu = 9000";
    let text =
        format!("{table}{}{}", port("a", "3b:00.1", keys), port("b", "net_ring1", "exception = \"wf-b\""));
    let config = Folder::new().parse(&text).unwrap();
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let options = Options {
        cores: vec![2, 3],
        memory: Some(512 << 20),
        hugepages: false,
        allow: words(&["0000:3b:00.1,txq_inline_max=0", "0000:04:1f.7"]),
        vdev: words(&["net_tap0,iface=wf0", "net_ring1"]),
        options: words(&["--iova-mode=va", "--log-level", "lib.eal:debug", "--no-hpet"]),
    };
    assert_eq!((config.dpdk, config.gateway.workers), (Some(options), Some(vec![2, 3])));
    let nic = &config.ports[0];
    assert_eq!((nic.mtu, nic.mac), (Some(9000), Some([2, 0, 0, 0, 0, 1])));
    let exception = |device: &str, rate| Some(Exception { device: device.into(), rate });
    let kind = |device: &str, promiscuous, exception| PortKind::Dpdk {
        device: device.into(),
        promiscuous,
        exception,
    };
    assert_eq!(nic.kind, kind("0000:3b:00.1", true, exception("wf-a", 500)));
    assert_eq!(config.ports[1].kind, kind("net_ring1", false, exception("wf-b", 10_000)));
}

#[test]
fn cores_are_those_of_workers() {
    let cores = |workers: &str, cores: &str| {
        let table = TABLE.replace("[dpdk]\n", &format!("[gateway]\n{workers}\n[dpdk]\n{cores}\n"));
        Folder::new().parse(&format!("{table}{}", port("a", "net_tap0", ""))).map(|config| {
            let cores = config.dpdk.unwrap().cores;
            assert_eq!(config.gateway.workers.unwrap_or_default(), cores);
            cores
        })
    };
    assert_eq!(cores("workers = [1, 2]", ""), Ok(vec![1, 2]));
    assert_eq!(cores("workers = [1, 2]", "cores = [1, 2]"), Ok(vec![1, 2]));
    assert!(cores("workers = [1, 2]", "cores = [1]").is_err());
    assert_eq!(
        error(&format!("[gateway]\nworkers = [1]\n[dpdk]\ncores = [2]\n{}", port("a", "net_tap0", ""))),
        "x.toml:4: dpdk.cores = [2]: must list the same cores as gateway.workers"
    );
    assert_eq!(table("cores = []"), "x.toml:2: dpdk.cores = []: must not be empty");
    assert_eq!(cores("", "cores = [127]"), Ok(vec![127]));
    assert_eq!(table("cores = [128]"), "x.toml:2: dpdk.cores = [128]: must be from 0 to 127");
    assert_eq!(
        error(&format!("[gateway]\nworkers = [128]\n{TABLE}{}", port("a", "net_tap0", ""))),
        "x.toml:2: gateway.workers = [128]: must be from 0 to 127"
    );
    let file = "[[port]]\nname = \"f\"\nkind = \"pcap\"\ninput = \"x\"\n";
    assert_eq!(
        error(&format!("[dpdk]\ncores = [1, 2]\nvdev = [\"net_tap0\"]\n{}{file}", port("a", "net_tap0", ""))),
        "x.toml:2: dpdk.cores = [1, 2]: must be one core, because port f has only one queue"
    );
}

#[test]
fn devices() {
    let pci = "must be PCI addresses like \"0000:03:00.0\", each optionally followed by \",key=value\"";
    for address in [
        "",
        "eth0",
        "03:00",
        "3:00.0",
        "00:0000:03:00.0",
        "0000:03:00:0",
        "0000.03.00.0",
        "03:20.0",
        "03:00.8",
        "+3:00.0",
        "0000:03:00.0,a b",
        "0000:03:00.0 ",
        "ü3:00.0",
    ] {
        assert_eq!(
            table(&format!("allow = [{address:?}]")),
            format!("x.toml:2: dpdk.allow = [{address:?}]: {pci}")
        );
    }
    let vdev = "must be virtual devices like \"net_tap0,iface=wf0\"";
    for device in ["", ",iface=wf0", "net_tap0, iface=wf0"] {
        assert_eq!(
            table(&format!("vdev = [{device:?}]")),
            format!("x.toml:2: dpdk.vdev = [{device:?}]: {vdev}")
        );
    }
    assert_eq!(
        table("vdev = [\"net_tap0,iface=a\", \"net_tap0,iface=b\"]"),
        "x.toml:2: dpdk.vdev = [\"net_tap0,iface=a\", \"net_tap0,iface=b\"]: already used in line 2"
    );
    assert_eq!(
        table("allow = [\"03:00.0\",\n\"0000:03:00.0\"]"),
        "x.toml:2: dpdk.allow = [\"03:00.0\",…: already used in line 2"
    );
}

#[test]
fn memory_and_further_options() {
    let range = "must be from 1048576 to 1099511627776";
    assert_eq!(table("memory = 512"), format!("x.toml:2: dpdk.memory = 512: {range}"));
    assert_eq!(table("memory = 1048577"), "x.toml:2: dpdk.memory = 1048577: must be a multiple of 1048576");
    for (option, meant, key) in [
        ("-l", "-l", "cores"),
        ("-l2", "-l", "cores"),
        ("-c", "-c", "cores"),
        ("--lcores=1", "--lcores", "cores"),
        ("--lc", "--lcores", "cores"),
        ("-m", "-m", "memory"),
        ("--socket-mem=64", "--socket-mem", "memory"),
        ("--no-huge", "--no-huge", "hugepages"),
        ("-a", "-a", "allow"),
        ("--allow=03:00.0", "--allow", "allow"),
        ("--vdev", "--vdev", "vdev"),
    ] {
        assert_eq!(
            table(&format!("options = [{option:?}]")),
            format!("x.toml:2: dpdk.options = [{option:?}]: {meant} must be set by the key {key}")
        );
    }
    for (option, meant) in [
        ("-h", "-h"),
        ("--help", "--help"),
        ("--he", "--help"),
        ("-v", "-v"),
        ("--version", "--version"),
        ("--", "--"),
        ("--no-pci", "--no-pci"),
        ("--proc-type=secondary", "--proc-type"),
        ("--in-memory", "--in-memory"),
        ("--no-shconf", "--no-shconf"),
        ("--no-telemetry", "--no-telemetry"),
        ("--telemetry", "--telemetry"),
    ] {
        let why = "is not allowed: the gateway sets it itself, or it would end the gateway";
        assert_eq!(
            table(&format!("options = [{option:?}]")),
            format!("x.toml:2: dpdk.options = [{option:?}]: {meant} {why}")
        );
    }
    for (options, word) in [
        ("[\"iova\"]", "iova"),
        ("[\"-n\", \"4\", \"5\"]", "5"),
        ("[\"--iova-mode=va\", \"pa\"]", "pa"),
        ("[\"\"]", ""),
        ("[\"-n 4\"]", "-n 4"),
    ] {
        assert_eq!(
            table(&format!("options = {options}")),
            format!(
                "x.toml:2: dpdk.options = {options}: {word:?} must be one word that begins with \"-\", or the value of \
                 the option before"
            )
        );
    }
}

#[test]
fn ports_and_the_table_need_each_other() {
    assert_eq!(error(&format!("{TABLE}{PORTS}")), "x.toml:1: dpdk: no [[port]] has kind = \"dpdk\"");
    assert_eq!(
        error(&port("a", "net_tap0", "")),
        "x.toml:4: port.device = \"net_tap0\": [dpdk] does not have this device: its \"allow\" and \"vdev\" name none"
    );
    assert_eq!(
        error(&format!("{TABLE}{}", port("a", "net_tap1", ""))),
        "x.toml:7: port.device = \"net_tap1\": [dpdk] does not have this device, only 0000:03:00.0, net_tap0"
    );
    assert_eq!(
        error(&format!("{TABLE}[[port]]\nname = \"a\"\nkind = \"dpdk\"\n")),
        "x.toml:4: port: missing key \"device\", which kind = \"dpdk\" needs"
    );
    let beside = |kind: &str| format!("[[port]]\nname = \"b\"\nkind = {kind:?}\ndevice = \"eth0\"\n");
    let text = format!("{TABLE}{}", port("a", "net_tap0", ""));
    assert_eq!(
        error(&format!("{text}{}", beside("af_xdp"))),
        "x.toml:11: port.kind = \"af_xdp\": cannot be used together with kind = \"dpdk\", whose frames have their own memory"
    );
    for kind in ["auto", "af_packet", "tap"] {
        Folder::new().parse(&format!("{text}{}", beside(kind))).unwrap();
    }
}

#[test]
fn refuses_keys_of_other_kinds_and_repeated_names() {
    for key in ["promiscuous = true", "exception = \"wf-a\"", "exception_rate = 5"] {
        assert_eq!(
            error(&format!("[[port]]\nname = \"a\"\ndevice = \"eth0\"\n{key}\n")),
            format!("x.toml:4: port.{key}: has no meaning with kind = \"auto\"")
        );
    }
    let line = |keys: &str| error(&format!("{TABLE}{}", port("a", "net_tap0", keys)));
    assert_eq!(
        line("exception_rate = 5"),
        "x.toml:4: port: missing key \"exception\", which exception_rate needs"
    );
    for rate in [0, 10_000_001] {
        assert_eq!(
            line(&format!("exception = \"wf-a\"\nexception_rate = {rate}")),
            format!("x.toml:9: port.exception_rate = {rate}: must be from 1 to 10000000")
        );
    }
    assert_eq!(
        line("exception = \"a/b\""),
        "x.toml:8: port.exception = \"a/b\": must be the name of a network device, at most 15 characters"
    );
    let two = |first: String, second: String| error(&format!("{TABLE}{first}{second}"));
    assert_eq!(
        two(port("a", "03:00.0", ""), port("b", "0000:03:00.0", "")),
        "x.toml:12: port.device = \"0000:03:00.0\": already used in line 7"
    );
    let wf = "exception = \"wf-a\"";
    assert_eq!(
        two(port("a", "03:00.0", wf), port("b", "net_tap0", wf)),
        "x.toml:13: port.exception = \"wf-a\": already used in line 8"
    );
    let tap = "[[port]]\nname = \"t\"\nkind = \"tap\"\ndevice = \"wf-a\"\n".to_owned();
    assert_eq!(
        two(tap, port("b", "net_tap0", wf)),
        "x.toml:12: port.exception = \"wf-a\": already used in line 7"
    );
    assert_eq!(line("exception = \"wf0\""), "x.toml:8: port.exception = \"wf0\": already used in line 3");
}
