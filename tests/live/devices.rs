//! Devices that change while the gateway runs.

use super::{
    lab::{Gateway, Lab, wait_for},
    traffic::{IperfServer, lost, ping, wait_for_packets, wait_for_ping},
    world::{BY_CORE, SERVER, TERMINAL, gateway_config, start, start_terminal, terminal_lab, use_tap},
};
use wayfarer::control::protocol::PortView;

/// Lines of the log: a device is gone, is used again, and has another name.
pub(crate) const GONE: &str = "there is no device: this port waits for it";
pub(crate) const OPENED: &str = "the device was opened again";
pub(crate) const RENAMED: &str = "the device has another name: this port stays on it";
/// Pings that must pass before and after a device gets another name.
const PINGS: u64 = 30;

/// Returns the gateway's port of this name.
pub(crate) fn port(gateway: &Gateway, name: &str) -> PortView {
    gateway.ports().into_iter().find(|port| port.port == name).expect("a port of this name")
}

/// Checks that senders hear of a lower MTU of a device, that nothing is lost in silence, and that a
/// higher one is used.
pub(crate) fn mtu_is_followed(kind: &str) {
    let lab = terminal_lab();
    let (gateway, terminal) = start(&lab, kind, "192.0.2.1");
    let one = |size: usize, df: &str| {
        lab.output("srv", &format!("ping -c 1 -W 2 -M {df} -s {} {TERMINAL}", size - 28))
    };
    assert!(one(1400, "do").status.success());
    let set = |mtu: usize| {
        lab.run("core", &format!("ip link set k1 mtu {mtu}"));
        lab.change("gw", &format!("ip link set g0 mtu {mtu}"), || port(&gateway, "outside").mtu == mtu);
    };
    set(1400);
    let refused = one(1400, "do");
    let output = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(!refused.status.success() && output.contains("Frag needed"), "{output}");
    assert!(one(1400, "dont").status.success());
    let mut server = IperfServer::start(&lab, "term");
    assert!(server.run(&lab, "srv", TERMINAL, "").received > 100_000);
    set(1500);
    lab.run("srv", "ip route flush cache");
    assert!(one(1400, "do").status.success());
    wait_for_lines(&gateway, "the device's MTU has changed", 2);
    gateway.assert_no_drops();
    terminal.assert_no_drops();
}

/// Joins `core` and `gw` as [`terminal_lab`] does.
fn connect(lab: &Lab) {
    lab.link([("core", "k1", &["192.0.2.254/24"]), ("gw", "g0", &["192.0.2.1/24"])]);
}

/// Counts the lines of the log that have `text`.
pub(crate) fn count_lines(gateway: &Gateway, text: &str) -> usize {
    gateway.log().lines().filter(|line| line.contains(text)).count()
}

/// Waits until so many lines of the log have `text`.
pub(crate) fn wait_for_lines(gateway: &Gateway, text: &str, count: usize) {
    wait_for("the log", || (count_lines(gateway, text) == count).then_some(()));
}

/// Waits until a port's device is in this state.
pub(crate) fn wait_for_link(gateway: &Gateway, name: &str, link: &str) {
    wait_for("the port's state", || (port(gateway, name).link.as_deref() == Some(link)).then_some(()));
}

/// Makes `gw` a host that forwards, and counts in `core` what comes in clear.
pub(crate) fn watch_for_clear(lab: &Lab) {
    lab.forward("gw");
    lab.run("gw", "ip route add 10.98.0.0/24 via 192.0.2.254");
    let rule = "type filter hook prerouting priority 0; ip saddr 10.99.0.0/24 counter;";
    lab.nft("core", &format!("table inet watch {{\n  chain c {{ {rule} }}\n}}"));
}

pub(crate) fn assert_none_in_clear(lab: &Lab) {
    let counted = lab.run("core", "nft list table inet watch");
    assert!(counted.contains("counter packets 0 "), "{counted}");
}

/// Checks that a port whose device is deleted drops and says so, that no frame of its is lost, and that
/// it works again with the device that gets its name.
pub(crate) fn device_that_is_made_again_is_opened_again(kind: &str) {
    let lab = terminal_lab();
    let (gateway, _terminal) = start(&lab, kind, "192.0.2.1");
    watch_for_clear(&lab);
    for round in 1..=2 {
        let free = gateway.free_frames();
        lab.change("gw", "ip link del g0", || count_lines(&gateway, GONE) == round);
        if (kind, round) == ("af_xdp", 1) {
            wait_for_lines(&gateway, "the frames in the rings of the earlier device came back", 1);
            // Each of the two devices had an eighth of them.
            wait_for("the frames", || (gateway.free_frames() >= free + 1800).then_some(()));
        }
        assert_eq!(port(&gateway, "outside").link.as_deref(), Some("gone"));
        let before = gateway.dropped("PortGone");
        assert!(!lab.output("srv", &format!("ping -c 3 -i 0.02 -W 1 {TERMINAL}")).status.success());
        wait_for("the drops to be counted", || (gateway.dropped("PortGone") >= before + 3).then_some(()));
        connect(&lab);
        lab.run("gw", "ip route replace 10.98.0.0/24 via 192.0.2.254");
        wait_for_lines(&gateway, OPENED, round);
        wait_for_link(&gateway, "outside", "up");
        wait_for_ping(&lab, "term", SERVER);
        ping(&lab, "term", SERVER, 20);
        ping(&lab, "srv", TERMINAL, 20);
        let mac = lab.run("gw", "cat /sys/class/net/g0/address");
        let shown = port(&gateway, "outside");
        assert_eq!((&shown.mac[..], &shown.kind[..]), (mac.trim(), "af_packet"));
    }
    assert_none_in_clear(&lab);
}

/// Makes devices in one go, which takes no more than milliseconds.
fn batch(lab: &Lab, commands: &str) {
    std::fs::write(lab.path("batch"), commands).unwrap();
    lab.run("gw", "ip -batch batch");
}

#[test]
fn device_that_is_made_again_at_once_with_the_same_index_is_opened_again() {
    let lab = terminal_lab();
    let (gateway, terminal) = start(&lab, "af_packet", "192.0.2.1");
    let of = |what: &str| lab.run("gw", &format!("cat /sys/class/net/g0/{what}")).trim().to_owned();
    let identity = || (of("ifindex"), of("address"));
    let before = identity();
    let (index, mac) = &before;
    let core = lab.full("core");
    batch(
        &lab,
        &format!(
            "link del g0\nlink add g0 index {index} address {mac} type veth peer name k1 netns {core}\n\
             address add 192.0.2.1/24 dev g0\nlink set g0 up\n"
        ),
    );
    lab.run("core", "ip address add 192.0.2.254/24 dev k1");
    lab.run("core", "ip link set k1 up");
    for (space, device) in [("gw", "g0"), ("core", "k1")] {
        lab.run(space, &format!("ethtool -K {device} tx off tso off gso off gro off"));
    }
    assert_eq!(identity(), before);
    wait_for_lines(&gateway, OPENED, 1);
    wait_for_ping(&lab, "term", SERVER);
    ping(&lab, "srv", TERMINAL, 20);
    terminal.assert_no_drops();
}

/// Checks that a port stays on a device that gets another name, with the host closed there, until that
/// device is gone.
pub(crate) fn device_with_another_name_stays_the_ports(kind: &str) {
    let lab = terminal_lab();
    let (gateway, _terminal) = start(&lab, kind, "192.0.2.1");
    watch_for_clear(&lab);
    let way = port(&gateway, "outside").kind;
    for (round, [from, to]) in (1..).zip([["g0", "wan0"], ["wan0", "g0"], ["g0", "wan0"]]) {
        let mut pings = lab.spawn("term", &format!("ping -i 0.02 -w 60 {SERVER}"));
        pings.wait_for_line(&format!("icmp_seq={PINGS} "));
        let command = format!("ip link set {from} name {to}");
        lab.change("gw", &command, || count_lines(&gateway, RENAMED) == round);
        wait_for_packets(&gateway, PINGS);
        let shown = port(&gateway, "outside");
        assert_eq!((shown.device.as_deref(), shown.link.as_deref()), (Some(to), Some("up")));
        assert_eq!(shown.kind, way, "it was opened again");
        // One may be on its way as ping is interrupted.
        let output = pings.interrupt();
        assert!(lost(&output) <= 1, "{output}");
    }
    assert!(lab.run("gw", "nft list tables").contains("wayfarer-wan0"));
    let mac = "02:00:00:00:00:77";
    lab.run("gw", &format!("ip link set wan0 address {mac}"));
    wait_for_lines(&gateway, OPENED, 1);
    wait_for("the router to hear of it", || {
        lab.run("core", "ip neigh show 192.0.2.1").contains(mac).then_some(())
    });
    ping(&lab, "srv", TERMINAL, 20);
    lab.run("gw", "ip link del wan0");
    wait_for_lines(&gateway, GONE, 1);
    assert_eq!(port(&gateway, "outside").device.as_deref(), Some("g0"), "the name that it waits for");
    connect(&lab);
    lab.run("gw", "ip route replace 10.98.0.0/24 via 192.0.2.254");
    wait_for_lines(&gateway, OPENED, 2);
    wait_for_link(&gateway, "outside", "up");
    wait_for_ping(&lab, "term", SERVER);
    ping(&lab, "srv", TERMINAL, 20);
    assert_none_in_clear(&lab);
}

#[test]
fn devices_in_use_that_swap_their_names_stay_with_their_ports() {
    let lab = terminal_lab();
    let (gateway, terminal) = start(&lab, "af_packet", "192.0.2.1");
    batch(&lab, "link set g0 name swap\nlink set g1 name g0\nlink set swap name g1\n");
    wait_for("the names to be followed", || {
        let devices = ["outside", "inside"].map(|name| port(&gateway, name).device);
        let has_both = devices == ["g1", "g0"].map(|name| Some(name.to_owned()));
        (has_both && gateway.log().matches(RENAMED).count() >= 2).then_some(())
    });
    ping(&lab, "term", SERVER, 20);
    ping(&lab, "srv", TERMINAL, 20);
    gateway.assert_no_drops();
    terminal.assert_no_drops();
}

/// A veth pair has as many queues as it is told to use.
#[test]
fn queues_that_a_device_gets_later_are_served() {
    let lab = terminal_lab();
    // Neither end may send by more queues than the other one receives by.
    let set_queues = |count: u32, ends: [(&str, &str); 2]| {
        for (space, device) in ends {
            lab.run(space, &format!("ethtool -L {device} rx {count} tx {count}"));
        }
    };
    set_queues(1, [("core", "k1"), ("gw", "g0")]);
    let (gateway, _terminal) = start(&lab, "af_xdp", "192.0.2.1");
    assert_eq!(port(&gateway, "outside").kind, "af_xdp (native)");
    set_queues(2, [("gw", "g0"), ("core", "k1")]);
    // From now on everything comes by the new one, whatever core sends it.
    let steer = "printf %x $(( (1 << $(nproc --all)) - 1 )) > /sys/class/net/k1/queues/tx-1/xps_cpus";
    assert!(lab.command("core", "sh -c").arg(steer).status().unwrap().success());
    wait_for_lines(&gateway, "the device has more receive queues than AF_XDP serves", 1);
    wait_for_lines(&gateway, OPENED, 1);
    wait_for_ping(&lab, "term", SERVER);
    ping(&lab, "term", SERVER, 20);
    ping(&lab, "srv", TERMINAL, 20);
    assert_eq!(port(&gateway, "outside").kind, "af_packet");
}

pub(crate) fn packets_to_a_device_that_is_down_are_counted_as_such(kind: &str) {
    let lab = terminal_lab();
    let (gateway, _terminal) = start(&lab, kind, "192.0.2.1");
    // Without a carrier, and switched off.
    for (count, (space, device)) in (1..).zip([("core", "k1"), ("gw", "g0")]) {
        lab.run(space, &format!("ip link set {device} down"));
        wait_for("the kernel to say so", || {
            (lab.run("gw", "cat /sys/class/net/g0/operstate").trim() != "up").then_some(())
        });
        let assert_counted = || {
            let before = ["PortDown", "TxRingFull"].map(|reason| gateway.dropped(reason));
            assert!(!lab.output("srv", &format!("ping -c 3 -i 0.02 -W 1 {TERMINAL}")).status.success());
            let is_counted = || (gateway.dropped("PortDown") >= before[0] + 3).then_some(());
            wait_for("the drops to be counted", is_counted);
            assert_eq!(gateway.dropped("TxRingFull"), before[1], "{device}");
        };
        // The gateway waits before it says so. AF_XDP's ring takes packets meanwhile.
        if kind == "af_packet" {
            assert_counted();
        }
        wait_for_lines(&gateway, "the device is down", count);
        assert_counted();
        let command = format!("ip link set {device} up");
        lab.change(space, &command, || count_lines(&gateway, "the device is up") == count);
        wait_for_ping(&lab, "term", SERVER);
    }
}

#[test]
fn device_with_an_mtu_beyond_the_frames_is_used_and_the_log_says_so_once() {
    let lab = terminal_lab();
    for (space, device) in [("gw", "g0"), ("core", "k1")] {
        lab.run(space, &format!("ip link set {device} mtu 9000"));
    }
    let config = gateway_config("af_packet", BY_CORE);
    let gateway = lab.gateway("gw", &format!("frame_size = \"2KiB\"\n{config}"));
    let _terminal = start_terminal(&lab, "af_packet", "192.0.2.1");
    wait_for_lines(&gateway, "a frame holds less than the device's MTU", 1);
    let shown = port(&gateway, "outside");
    assert_eq!((shown.mtu, shown.device_mtu), (1778, Some(9000)));
    ping(&lab, "srv", TERMINAL, 20);
}

#[test]
fn frames_hold_the_mtus_that_devices_have_at_the_start() {
    let lab = terminal_lab();
    for (space, device) in [("gw", "g0"), ("core", "k1"), ("gw", "g1"), ("srv", "s0")] {
        lab.run(space, &format!("ip link set {device} mtu 9000"));
    }
    let (gateway, _terminal) = start(&lab, "af_packet", "192.0.2.1");
    assert_eq!(["outside", "inside"].map(|name| port(&gateway, name).mtu), [9000; 2]);
    wait_for_lines(&gateway, "frames are larger than usual", 1);
    // Its sender hears that it does not fit the tunnel, as it could not if no frame held it.
    let refused = lab.output("srv", &format!("ping -c 1 -W 2 -M do -s 8972 {TERMINAL}"));
    let output = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(output.contains("Frag needed"), "{output}");
    assert_eq!(gateway.dropped("PortOversize"), 0);
}

#[test]
fn optional_device_is_found_by_an_alternative_name_and_closed_to_the_host() {
    let lab = terminal_lab();
    lab.run("gw", "ip link del g0");
    let config = gateway_config("af_packet", BY_CORE);
    let optional = config.replace("device = \"g0\"\n", "device = \"uplink\"\noptional = true\n");
    let gateway = lab.gateway("gw", &optional);
    let mut terminal = None;
    for round in 1..=2 {
        assert_eq!(port(&gateway, "outside").link.as_deref(), Some("gone"));
        connect(&lab);
        lab.run("gw", "ip link property add dev g0 altname uplink");
        watch_for_clear(&lab);
        wait_for_link(&gateway, "outside", "up");
        assert!(lab.run("gw", "nft list tables").contains("wayfarer-g0"));
        terminal.get_or_insert_with(|| start_terminal(&lab, "af_packet", "192.0.2.1"));
        wait_for_ping(&lab, "term", SERVER);
        ping(&lab, "srv", TERMINAL, 20);
        assert_none_in_clear(&lab);
        lab.run("core", "nft flush ruleset");
        lab.run("gw", "ip route flush 10.98.0.0/24");
        lab.run("gw", "ip link del g0");
        wait_for_lines(&gateway, GONE, round + 1);
    }
}

#[test]
fn device_is_found_again_by_its_alternative_name_only() {
    let lab = terminal_lab();
    lab.run("gw", "ip link property add dev g0 altname uplink");
    let config = gateway_config("af_packet", BY_CORE);
    let gateway = lab.gateway("gw", &config.replace("device = \"g0\"\n", "device = \"uplink\"\n"));
    let mut old = "g0";
    for (round, new) in [(1, "g5"), (2, "g0")] {
        lab.run("gw", &format!("ip link del {old}"));
        wait_for_lines(&gateway, GONE, round);
        lab.run("gw", &format!("ip link add {new} type veth peer name g6"));
        ["g6", new].iter().for_each(|device| _ = lab.run("gw", &format!("ip link set {device} up")));
        // Longer than from one poll to the next.
        std::thread::sleep(std::time::Duration::from_millis(1500));
        assert_eq!(port(&gateway, "outside").link.as_deref(), Some("gone"), "{new}");
        lab.run("gw", &format!("ip link property add dev {new} altname uplink"));
        wait_for_link(&gateway, "outside", "up");
        assert!(lab.run("gw", "nft list tables").contains(&format!("wayfarer-{new}")));
        old = new;
    }
}

/// The kernel numbers devices in the order in which they are there.
#[test]
fn devices_that_swap_their_primary_names_go_to_the_ports_that_they_are_named_for() {
    let lab = terminal_lab();
    for (device, name) in [("g0", "wan"), ("g1", "lan")] {
        lab.run("gw", &format!("ip link property add dev {device} altname {name}"));
    }
    let config = gateway_config("af_packet", BY_CORE);
    let config = config.replace("device = \"g0\"", "device = \"wan\"");
    let gateway = lab.gateway("gw", &config.replace("device = \"g1\"", "device = \"lan\""));
    let remove = "link del g0\nlink del g1\n";
    let add = |device: &str, name: &str| {
        format!(
            "link add {device} type veth peer name {name}-peer\nlink property add dev {device} altname {name}\n\
             link set {name}-peer up\nlink set {device} up\n"
        )
    };
    let wait_for_device = |name: &str, device: &str| {
        let mac = lab.run("gw", &format!("cat /sys/class/net/{device}/address"));
        wait_for("the port to have its device", || {
            let shown = port(&gateway, name);
            (shown.link.as_deref() == Some("up") && shown.mac == mac.trim()).then_some(())
        });
    };
    batch(&lab, remove);
    wait_for_lines(&gateway, GONE, 2);
    // The first one gets the name that the other port's device had.
    batch(&lab, &add("g0", "lan"));
    wait_for_device("inside", "g0");
    assert_eq!(port(&gateway, "outside").link.as_deref(), Some("gone"));
    batch(&lab, &add("g1", "wan"));
    wait_for_device("outside", "g1");
    wait_for_device("inside", "g0");
    // Both at once.
    batch(&lab, &[remove, &add("g0", "wan"), &add("g1", "lan")].concat());
    wait_for_device("outside", "g0");
    wait_for_device("inside", "g1");
}

/// Checks that a device's new MAC address is used, and that its stations are told.
pub(crate) fn mac_address_is_followed_and_announced(kind: &str) {
    let lab = terminal_lab();
    let (gateway, _terminal) = start(&lab, kind, "192.0.2.1");
    let mac = "02:00:00:00:00:77";
    lab.change("gw", &format!("ip link set g0 address {mac}"), || {
        lab.run("core", "ip neigh show 192.0.2.1").contains(mac)
    });
    assert_eq!(port(&gateway, "outside").mac, mac);
    ping(&lab, "term", SERVER, 20);
    ping(&lab, "srv", TERMINAL, 20);
}

#[test]
fn tap_device_that_is_deleted_is_made_again() {
    let lab = terminal_lab();
    let gateway = lab.gateway("gw", &gateway_config("af_packet", BY_CORE));
    let terminal = start_terminal(&lab, "af_packet", "192.0.2.1");
    for round in 1..=2 {
        let before = lab.run("term", "cat /sys/class/net/wf0/ifindex");
        lab.run("term", "ip link del wf0");
        wait_for_lines(&terminal, OPENED, round);
        assert_ne!(lab.run("term", "cat /sys/class/net/wf0/ifindex"), before);
        wait_for_link(&terminal, "programs", "up");
        assert_eq!((&port(&terminal, "programs").kind[..], port(&terminal, "programs").mtu), ("tap", 1500));
        use_tap(&lab);
        ping(&lab, "term", SERVER, 20);
        ping(&lab, "srv", TERMINAL, 20);
    }
    gateway.assert_no_drops();
}

#[test]
fn tap_device_with_another_name_stays_the_ports() {
    let lab = terminal_lab();
    let gateway = lab.gateway("gw", &gateway_config("af_packet", BY_CORE));
    let terminal = start_terminal(&lab, "af_packet", "192.0.2.1");
    lab.run("term", "ip link set wf0 name vpn0");
    wait_for_lines(&terminal, RENAMED, 1);
    assert_eq!(port(&terminal, "programs").device.as_deref(), Some("vpn0"));
    assert!(lab.run("term", "nft list ruleset").contains("iifname \"vpn0\" accept"));
    ping(&lab, "term", SERVER, 20);
    ping(&lab, "srv", TERMINAL, 20);
    lab.run("term", "ip link del vpn0");
    wait_for_lines(&terminal, OPENED, 1);
    assert_eq!(port(&terminal, "programs").device.as_deref(), Some("wf0"));
    assert!(lab.run("term", "nft list ruleset").contains("iifname \"wf0\" accept"));
    use_tap(&lab);
    ping(&lab, "term", SERVER, 20);
    ping(&lab, "srv", TERMINAL, 20);
    gateway.assert_no_drops();
}

#[test]
fn optional_device_may_be_absent_at_the_start() {
    let lab = terminal_lab();
    lab.run("gw", "ip link del g0");
    let config = gateway_config("af_packet", BY_CORE);
    let missing = lab.output(
        "gw",
        &format!("{} gateway --config {}", super::lab::program(), lab.config("gw", &config).display()),
    );
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no device named \"g0\""));
    let optional = config.replace("device = \"g0\"\n", "device = \"g0\"\noptional = true\n");
    let gateway = lab.gateway("gw", &optional);
    assert_eq!(port(&gateway, "outside").link.as_deref(), Some("gone"));
    connect(&lab);
    wait_for_link(&gateway, "outside", "up");
    let _terminal = start_terminal(&lab, "af_packet", "192.0.2.1");
    ping(&lab, "srv", TERMINAL, 20);
}

#[test]
fn device_that_flaps_neither_fills_the_log_nor_disturbs_other_ports() {
    let lab = terminal_lab();
    let spare = "[[port]]\nname = \"spare\"\nkind = \"af_packet\"\ndevice = \"g9\"\noptional = true\n";
    let gateway = lab.gateway("gw", &gateway_config("af_packet", &format!("{spare}{BY_CORE}")));
    let _terminal = start_terminal(&lab, "af_packet", "192.0.2.1");
    let make = || {
        lab.run("gw", "ip link add g9 type veth peer name g8");
        for device in ["g8", "g9"] {
            lab.run("gw", &format!("ip link set {device} up"));
        }
        wait_for_link(&gateway, "spare", "up");
    };
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", gateway.process())).unwrap().count();
    make();
    let before = descriptors();
    lab.run("gw", "ip link del g9");
    let once = "link add g9 type veth peer name g8\nlink set g8 up\nlink set g9 up\nlink set g9 mtu 1400\nlink del g9\n";
    std::fs::write(lab.path("flap"), once.repeat(200)).unwrap();
    let flapping = lab.spawn("gw", "ip -batch flap");
    ping(&lab, "term", SERVER, 100);
    flapping.finish();
    make();
    wait_for("the earlier devices to be closed", || (descriptors() <= before).then_some(()));
    let lines = gateway.log().lines().filter(|line| line.contains("spare")).count();
    // The line that says what the host closes, and those that a port may cause.
    assert!((1..=15).contains(&lines), "{}", gateway.log());
}
