//! Devices that get other names while the gateway runs.

use super::{closed_devices::VlanDevice, *};
use netlink_packet_route::link::VlanProtocol;
use wayfarer_dataplane::port::device::Device;

#[test]
fn a_device_with_another_name_is_closed_by_it_too() {
    alone(|| {
        ip("link add eth0 type veth peer name eth9");
        let mut barrier = Barrier::raise(&configured("eth0", "")).unwrap();
        ip("link set eth0 name wan0");
        barrier.close("outside", "wan0").unwrap();
        // The host stays closed on whatever device gets the earlier name.
        assert_eq!(barrier.closed_names(), ["eth0", "wan0"]);
        assert_eq!(tables(), [table("eth0"), table("wan0")]);
        drop(barrier);
        once_unlocked(|| open_host(&[]));
    });
}

/// Not every kernel has devices in VLANs, so another one stands for it.
#[test]
fn devices_in_the_vlan_of_a_device_with_another_name_are_found() {
    alone(|| {
        ip("link add eth0 type veth peer name eth9");
        ip("link add guests type veth peer name guests9");
        let [below, index] = ["eth0", "guests"].map(|name| Device::find(name).unwrap().index());
        let guests = move || -> io::Result<Vec<VlanDevice>> {
            let tag = (VlanProtocol::Ieee8021Q, 100);
            Ok(vec![VlanDevice { index, name: "guests".to_owned(), below, tag }])
        };
        let mut barrier = Barrier::raise(&configured("eth0", "vlan = 100\n")).unwrap();
        barrier.vlan_list = VlanList(Box::new(guests));
        ip("link set eth0 name wan0");
        assert!(barrier.close_vlans());
        assert_eq!(barrier.closed_names(), ["eth0"], "the barrier does not know the name yet");
        barrier.close("outside", "wan0").unwrap();
        assert_eq!(barrier.closed_names(), ["eth0", "wan0", "guests"]);
        drop(barrier);
        once_unlocked(|| open_host(&[]));
    });
}

#[test]
fn packets_of_a_tap_device_with_another_name_pass() {
    alone(|| {
        ip("link add eth0 type veth peer name eth9");
        let tap = "[[port]]\nname = \"programs\"\nkind = \"tap\"\ndevice = \"wf0\"\naddresses = [\"10.98.0.1/24\"]\n";
        let mut barrier = Barrier::raise(&configured("eth0", tap)).unwrap();
        let accepted = || {
            let rules = std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap();
            let rules = String::from_utf8(rules.stdout).unwrap();
            ["wf0", "vpn0"].map(|name| rules.contains(&format!("iifname \"{name}\" accept")))
        };
        assert_eq!(accepted(), [true, false]);
        barrier.rename_tap("wf0", "vpn0").unwrap();
        assert_eq!(accepted(), [false, true]);
        barrier.rename_tap("wf0", "wf1").unwrap();
        barrier.rename_tap("vpn0", "vpn0").unwrap();
        assert_eq!(accepted(), [false, true], "it knows no such device, or by this name already");
        drop(barrier);
        once_unlocked(|| open_host(&[]));
    });
}
