//! Set-ups that cannot work end with one clear line; those in `conf` work.

use crate::{
    lab::{Gateway, Lab, program, wait_for},
    traffic::{lost, wait_for_ping},
};
use std::{fs, path::Path};

/// Configures a gateway on `net_ring0` and `net_null0`, with `dpdk` as the section `[dpdk]`.
pub(crate) fn null_config(dpdk: &str) -> String {
    with_devices(["net_ring0", "net_null0"], dpdk)
}

fn with_devices([outside, inside]: [&str; 2], dpdk: &str) -> String {
    format!(
        r#"
[dpdk]
{dpdk}
[[port]]
name = "outside"
kind = "dpdk"
device = "{outside}"
addresses = ["192.0.2.1/24"]
[[port]]
name = "inside"
kind = "dpdk"
device = "{inside}"
addresses = ["10.99.0.1/24"]
"#
    )
}

/// Checks that the gateway, run by `under`, ends with exit code 1 and one line on standard error
/// that contains all of `words`.
pub(crate) fn assert_refused(lab: &Lab, under: &str, config: &str, words: &[&str]) {
    let file = lab.config("refused", config);
    let command = format!("{under}{} --log error gateway --config {}", program(), file.display());
    let output = lab.output("gw", &command);
    let [errors, out] = [output.stderr, output.stdout].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!((output.status.code(), &out[..]), (Some(1), ""), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(words.iter().all(|word| errors.contains(word)), "{errors} lacks some of {words:?}");
    assert!(!lab.path("refused.sock").exists());
}

/// Asserts that the gateway's log has only lines of level INFO: no warnings, and no output of DPDK
/// itself.
pub(crate) fn assert_only_info_logged(gateway: &Gateway) {
    let log = gateway.log();
    assert_eq!(log.lines().find(|line| !line.contains("  INFO ")), None, "{log}");
}

#[test]
fn names_a_wrong_option() {
    let lab = Lab::new(&["gw"]);
    for (options, words) in [
        ("--nonsense", "unrecognized option '--nonsense'"),
        ("--iova-mode=xy", "invalid parameters for --iova-mode"),
        ("--base-virtaddr=here", "invalid parameter for --base-virtaddr"),
    ] {
        let vdev = "hugepages = false\nvdev = [\"net_ring0\", \"net_null0\"]";
        assert_refused(
            &lab,
            "",
            &null_config(&format!("{vdev}\noptions = [\"{options}\"]")),
            &["dpdk: ", words],
        );
    }
}

#[test]
fn reports_too_little_memory_and_the_amount_needed() {
    let lab = Lab::new(&["gw"]);
    let config = null_config("hugepages = false\nmemory = \"4MiB\"\nvdev = [\"net_ring0\", \"net_null0\"]");
    assert_refused(&lab, "", &config, &["dpdk: no memory for", "frames", "MiB", "Cannot allocate memory"]);
    let config = config.replace("4MiB", "1048576MiB");
    assert_refused(
        &lab,
        "",
        &config,
        &["dpdk: 1048576 MiB of memory are asked for; the machine has ", " MiB"],
    );
}

#[test]
fn reports_why_a_device_cannot_be_made() {
    let lab = Lab::new(&["gw"]);
    let refuses = |vdev: &str, words: &[&str]| {
        let device = vdev.split(',').next().unwrap();
        let dpdk = format!("hugepages = false\nvdev = [\"net_null0\", \"{vdev}\"]");
        assert_refused(&lab, "", &with_devices(["net_null0", device], &dpdk), words);
    };
    refuses("net_nonsense0", &["dpdk: ", "failed to parse device \"net_nonsense0\""]);
    refuses(
        "net_null1,nonsense=1",
        &["port inside: net_null1: its driver does not take \"net_null1,nonsense=1\""],
    );
    refuses("net_af_packet0,iface=eth77", &["port inside: net_af_packet0: ", "No such device"]);
    refuses("net_tap0,iface=lo", &["port inside: net_tap0: ", "TUNSETIFF for lo: Invalid argument"]);
    refuses("net_pcap0,rx_pcap=/missing.pcap", &["port inside: net_pcap0: ", "/missing.pcap: No such file"]);
    // The driver's frames are as large as an mbuf with its headroom, 2 KiB.
    let start = "port inside: net_af_packet0: its driver cannot set up a receive queue: ";
    refuses("net_af_packet0,iface=lo", &[start, "2016 bytes will not fit in mbuf (1920 bytes)"]);
}

#[test]
fn names_a_missing_nic() {
    let lab = Lab::new(&["gw"]);
    let dpdk = "hugepages = false\nvdev = [\"net_null0\"]\nallow = [\"0000:7f:1f.7\"]";
    let config = with_devices(["net_null0", "0000:7f:1f.7"], dpdk);
    assert_refused(&lab, "", &config, &["port inside: 0000:7f:1f.7: there is no PCI device of this address"]);
}

#[test]
fn refuses_more_workers_than_queues() {
    let lab = Lab::new(&["gw"]);
    let file = lab.path("out.pcap");
    let dpdk = format!("hugepages = false\nvdev = [\"net_null0\", \"net_pcap0,tx_pcap={}\"]", file.display());
    let config = format!("workers = [0, 1]\n{}", with_devices(["net_null0", "net_pcap0"], &dpdk));
    assert_refused(
        &lab,
        "",
        &config,
        &["port inside: net_pcap0: a queue for each of 2 workers is needed; it has 1"],
    );
}

/// The kernel takes the outer tag off a frame, and the driver reads only its number.
#[test]
fn refuses_a_vlan_that_its_driver_does_not_tell_from_others() {
    let lab = Lab::new(&["gw"]);
    let dpdk = "hugepages = false\nvdev = [\"net_null0\", \"net_af_packet0,iface=lo\"]";
    let inside = "device = \"net_af_packet0\"\n";
    let config = with_devices(["net_null0", "net_af_packet0"], dpdk);
    let config = config.replace(inside, &format!("{inside}vlan = [7, 100]\n"));
    let words = ["port inside: net_af_packet0: ", "802.1ad", "VLAN [7, 100]"];
    assert_refused(&lab, "", &config, &words);
}

/// Runs `conf/dpdk-lab.toml`, except for its control socket, with the commands that it lists.
#[test]
fn example_works_as_documented() {
    let page = include_str!("../../../conf/dpdk-lab.toml");
    for command in [
        "ip netns add far && ip link set wf0 netns far\n",
        "ip -n far addr add 203.0.113.254/24 dev wf0 && ip -n far link set wf0 up\n",
        "ip addr add 203.0.113.1/24 dev wf-outside ",
        "ip netns exec far ping 203.0.113.1 ",
        "wayfarer show ports --counters ",
    ] {
        assert!(page.contains(&format!("#   {command}")), "{command}");
    }
    let lab = Lab::new(&["gw", "far"]);
    let (_, gateway) = page.split_once("[gateway]\n").unwrap();
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/keys");
    lab.run("gw", "mkdir keys");
    for key in ["example-alice-up", "example-alice-down"] {
        lab.run("gw", &format!("install -m 600 {} keys/{key}", keys.join(key).display()));
    }
    let file = lab.path("gw.toml");
    fs::write(&file, format!("[gateway]\ncontrol = \"gw.sock\"\n{gateway}")).unwrap();
    let mut gateway = lab.gateway_from_file("gw", &file);
    lab.run("gw", &format!("ip link set wf0 netns {}", lab.full("far")));
    lab.run("far", "ip addr add 203.0.113.254/24 dev wf0");
    lab.run("far", "ip link set wf0 up");
    lab.run("gw", "ip addr add 203.0.113.1/24 dev wf-outside");
    wait_for_ping(&lab, "far", "203.0.113.1");
    // Longer than from one look at the device to the next. The driver may hold the last packet back.
    let pings = lab.run("far", "ping -i 0.1 -c 30 -W 2 203.0.113.1");
    assert!(lost(&pings) <= 1, "{pings}");
    assert_eq!(gateway.ports()[0].link.as_deref(), Some("up"), "its other end is in another namespace");
    let counters = gateway.command("show ports --counters");
    assert!(counters.contains("rx_good_packets"), "{counters}");
    wait_for("frames by net_tap", || (gateway.ports()[0].rx_packets > 0).then_some(()));
    assert!(gateway.stop().success(), "{}", gateway.log());
    assert_only_info_logged(&gateway);
}

/// Runs `conf/bench-ports.toml`, except for huge pages.
#[cfg(feature = "bench")]
#[test]
fn bench_ports_example_works() {
    let lab = Lab::new(&["gw"]);
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/bench-ports.toml");
    let config =
        fs::read_to_string(example).unwrap().replace("cores = [0]", "hugepages = false\ncores = [0]");
    fs::write(lab.path("bench-ports.toml"), config).unwrap();
    let program = env!("CARGO_BIN_EXE_wayfarer");
    let row = lab.run("gw", &format!("{program} bench ports bench-ports.toml --seconds 0.05 --json"));
    let row: serde_json::Value = serde_json::from_str(&row).unwrap();
    assert!(row["packets"].as_u64() > Some(10_000) && row["ns_per_packet"].as_f64() > Some(0.0), "{row}");
    assert_eq!(row["refused"], 0);
    assert_eq!(row["ports"], serde_json::json!(["left (dpdk (net_null))", "right (dpdk (net_null))"]));
}
