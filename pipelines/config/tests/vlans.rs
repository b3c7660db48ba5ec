//! Ports in VLANs.

use super::*;
use wayfarer_dataplane::{
    port::vlan::{Priority, Tagging},
    wire::vlan::Vlan,
};

/// Returns a port in a VLAN of `eth0`, with more `keys`.
fn port(name: &str, keys: &str) -> String {
    format!("[[port]]\nname = \"{name}\"\ndevice = \"eth0\"\n{keys}\n")
}

#[test]
fn several_ports_have_one_device() {
    let first = port("a", "vlan = 100\npcp = \"dscp\"\ndscp = \"pcp\"\nmtu = 1400");
    let text = first + &port("b", "vlan = [100, 200]\npcp = 5") + &port("c", "") + &port("d", "vlan = [7]");
    let config = Folder::new().parse(&text).unwrap();
    let vlan = |outer, inner| Vlan::new(outer, inner).unwrap();
    let tagging = |vlan, priority, sets_dscp| Some(Tagging { vlan, priority, sets_dscp });
    let expected = [
        tagging(vlan(None, 100), Priority::Dscp, true),
        tagging(vlan(Some(100), 200), Priority::Fixed(5), false),
        None,
        tagging(vlan(None, 7), Priority::Fixed(0), false),
    ];
    assert_eq!(config.ports.iter().map(|port| port.tagging).collect::<Vec<_>>(), expected);
    assert_eq!(config.ports.iter().map(|port| port.mtu).collect::<Vec<_>>(), [Some(1400), None, None, None]);
    assert!(config.ports.iter().all(|port| port.shares_device(&config.ports[0])));
}

#[test]
fn files_are_shared_only_with_vlans() {
    let file = |name: &str, keys: &str| {
        format!("[[port]]\nname = \"{name}\"\nkind = \"pcap\"\ninput = \"i.pcap\"\n{keys}\n")
    };
    let plain = Folder::new().parse(&(file("a", "") + &file("b", ""))).unwrap();
    assert!(!plain.ports[0].shares_device(&plain.ports[1]));
    let [first, second] = [file("a", "vlan = 1"), file("b", "")];
    let tagged = Folder::new().parse(&format!("{first}{second}")).unwrap();
    assert!(tagged.ports[0].shares_device(&tagged.ports[1]));
    let other = Folder::new().parse(&(first.clone() + &file("b", "output = \"o.pcap\""))).unwrap();
    assert!(!other.ports[0].shares_device(&other.ports[1]));
    assert_eq!(
        error(&format!("{}{second}{first}", file("c", ""))),
        "x.toml:9: port.input = \"i.pcap\": already used in line 4"
    );
}

#[test]
fn wrong_numbers_are_refused() {
    let line = |keys: &str| error(&port("a", keys));
    let wanted = "must be a VLAN like 100, or two like [100, 200]: that of the 802.1ad tag, then that of the 802.1Q tag";
    for list in ["[]", "[1, 2, 3]"] {
        assert_eq!(line(&format!("vlan = {list}")), format!("x.toml:4: port.vlan = {list}: {wanted}"));
    }
    for number in ["0", "4095", "-1", "[0, 5]", "[5, 70000]"] {
        let expected = format!("x.toml:4: port.vlan = {number}: must be from 1 to 4094");
        assert_eq!(line(&format!("vlan = {number}")), expected);
    }
    let text = "x.toml:4: port.vlan = \"100\": must be an integer or a list of integers";
    assert_eq!(line("vlan = \"100\""), text);
    for pcp in ["8", "-1", "\"high\""] {
        let expected = format!("x.toml:5: port.pcp = {pcp}: must be \"dscp\" or a number from 0 to 7");
        assert_eq!(line(&format!("vlan = 1\npcp = {pcp}")), expected);
    }
    assert_eq!(
        line("vlan = 1\ndscp = \"copy\""),
        "x.toml:5: port.dscp = \"copy\": must be \"keep\" or \"pcp\""
    );
    for (key, word) in [("pcp", "pcp = 0"), ("dscp", "dscp = \"pcp\"")] {
        assert_eq!(line(word), format!("x.toml:1: port: missing key \"vlan\", which {key} needs"));
    }
    assert_eq!(
        error("[[port]]\nname = \"a\"\nkind = \"sink\"\nvlan = 1\n"),
        "x.toml:4: port.vlan = 1: has no meaning with kind = \"sink\""
    );
}

#[test]
fn each_vlan_of_a_device_has_one_port_of_the_same_settings() {
    let after = |keys: &str| error(&(port("a", "vlan = 100") + &port("b", "") + &port("c", keys)));
    assert_eq!(after("vlan = 100"), "x.toml:12: port.vlan = 100: already used in line 4");
    assert_eq!(after(""), "x.toml:11: port.device = \"eth0\": already used in line 7");
    let shared = "has the device of the port in line 1, so it needs the same kind, mac, optional, promiscuous and count";
    for keys in
        ["vlan = 101\nkind = \"af_packet\"", "vlan = 101\nkind = \"tap\"", "vlan = 101\noptional = true"]
    {
        assert_eq!(after(keys), format!("x.toml:9: port: {shared}"));
    }
    let exception = "kind = \"dpdk\"\nexception = \"eth0\"\n";
    let dpdk =
        format!("[dpdk]\nallow = [\"03:00.0\"]\n[[port]]\nname = \"n\"\ndevice = \"03:00.0\"\n{exception}");
    assert_eq!(
        error(&(port("a", "vlan = 100") + &dpdk)),
        "x.toml:11: port.exception = \"eth0\": already used in line 3"
    );
}
