//! Devices of the kernel's own in the VLANs of ports. Not every kernel has such devices, so others stand for
//! them.

use super::{
    closed_devices::{VlanDevice, vlan_devices},
    *,
};
use crate::log::{Format, recorded};
use netlink_packet_core::Parseable;
use netlink_packet_route::link::{LinkMessage, VlanProtocol};
use std::process::Command;
use wayfarer_dataplane::port::device::Device;

const Q: VlanProtocol = VlanProtocol::Ieee8021Q;
const AD: VlanProtocol = VlanProtocol::Ieee8021Ad;

fn parse(text: &str) -> Config {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/test.toml");
    crate::config::parse(text, &file).unwrap()
}

fn index(device: &str) -> u32 {
    Device::find(device).unwrap().index()
}

fn device(index: u32, name: &str, below: u32, tag: (VlanProtocol, u16)) -> VlanDevice {
    VlanDevice { index, name: name.to_owned(), below, tag }
}

fn list(devices: impl Fn() -> io::Result<Vec<VlanDevice>> + Send + 'static) -> VlanList {
    VlanList(Box::new(devices))
}

/// Returns the table of a port in this VLAN of eth0.
fn port_in_vlan(name: &str, vlan: u16) -> String {
    format!(
        "[[port]]\nname = \"{name}\"\nkind = \"af_packet\"\ndevice = \"eth0\"\nvlan = {vlan}\n\
         addresses = [\"10.{vlan}.0.1/16\"]\n"
    )
}

/// Lists those of the devices `guests` and `staff` that there are, as if they were in VLAN 100 of eth0. It
/// fails as long as there is none.
fn stand_ins() -> io::Result<Vec<VlanDevice>> {
    let below = index("eth0");
    let there = ["guests", "staff"].into_iter().filter_map(|name| Device::find(name).ok());
    let all: Vec<_> = there.map(|found| device(found.index(), found.name(), below, (Q, 100))).collect();
    if all.is_empty() { Err(io::Error::other("no")) } else { Ok(all) }
}

/// For tests of the slow path too.
impl Barrier {
    /// Raises the barrier around the ports' devices alone. From then on, [`stand_ins`] lists the devices in
    /// VLANs.
    pub(crate) fn with_stand_ins(config: &Config) -> Self {
        Self { vlan_list: list(stand_ins), ..Self::raise(config).unwrap() }
    }

    /// Returns the names of the closed devices.
    pub(crate) fn closed_names(&self) -> Vec<&str> {
        self.closed.iter().map(|device| &device.name[..]).collect()
    }
}

#[test]
fn a_device_is_in_the_vlan_that_all_its_tags_name() {
    alone(|| {
        ip("link add eth0 type veth peer name eth9");
        let ports = [("single", "vlan = 100\n"), ("double", "vlan = [7, 200]\n"), ("plain", "")];
        let ports = (1..).zip(ports).map(|(n, (name, vlan))| {
            format!(
                "[[port]]\nname = \"{name}\"\nkind = \"af_packet\"\ndevice = \"eth0\"\n{vlan}\
                 addresses = [\"10.{n}.0.1/16\"]\n"
            )
        });
        let ports = SharedPorts::of(&parse(&ports.collect::<String>()));
        let (eth0, eth9) = (index("eth0"), index("eth9"));
        let all = [
            device(100, "a", eth0, (Q, 100)),
            device(101, "another number", eth0, (Q, 101)),
            device(102, "another protocol", eth0, (AD, 100)),
            device(103, "another device", eth9, (Q, 100)),
            device(104, "the outer tag alone", eth0, (AD, 7)),
            device(105, "b", 104, (Q, 200)),
            device(106, "one tag too many", 100, (Q, 200)),
            device(107, "c", 100, (Q, 0)),
            device(108, "d", eth0, (Q, 0)),
            device(109, "e", 108, (Q, 100)),
            device(110, "a circle", 110, (Q, 100)),
        ];
        let found = ports.in_vlans(&all, &[]);
        let names: Vec<_> = found.iter().map(|device| (&device.name[..], &device.port[..])).collect();
        let expected = [("a", "single"), ("b", "double"), ("c", "single"), ("d", "plain"), ("e", "single")];
        assert_eq!(names, expected);
        assert_eq!(found[0].segments, BTreeSet::from(["10.1.0.0/16".parse::<Prefix>().unwrap()]));
        assert!(ports.in_vlans(&all, &found).is_empty(), "they are closed already");
    });
}

#[test]
fn host_sends_nothing_in_clear_by_a_device_of_its_own_in_a_ports_vlan() {
    alone(|| {
        NETWORK.into_iter().for_each(ip);
        ip("link add eth1 type veth peer name eth8");
        let config = parse(&format!(
            "[[port]]\nname = \"outside\"\nkind = \"af_packet\"\ndevice = \"eth1\"\nvlan = 100\n\
             addresses = [\"192.0.2.7/24\"]\n\
             {PSK}inner_local = [\"192.0.2.0/24\"]\ninner_remote = [\"10.98.0.0/24\", \"192.0.0.0/8\"]\n"
        ));
        let (index, below) = (index("eth0"), index("eth1"));
        let in_vlan = || list(move || Ok(vec![device(index, "eth0", below, (Q, 100))]));
        let is_open = || can_send("192.0.2.7", FAR);
        assert!(is_open(), "without a gateway");
        let barrier = Barrier::raise_with(&config, in_vlan()).unwrap();
        assert!(!is_open() && can_send("192.0.2.7", "192.0.2.9"), "but to stations of the segment");
        drop(barrier);
        assert!(!is_open(), "the gateway has ended");
        once_unlocked(|| open_host(&[]));
        assert!(is_open(), "the host was opened");
        let mut barrier = once_unlocked(|| Barrier::raise(&config));
        assert!(is_open(), "no device is in the VLAN");
        barrier.vlan_list = in_vlan();
        (0..2).for_each(|_| assert!(barrier.close_vlans()));
        assert!(!is_open(), "it has appeared since");
        assert_eq!(tables(), [table("eth1"), table("eth0")]);
        assert!(matches!(DeviceLock::take("eth0"), Err(LockError::Taken(_))));
    });
}

#[test]
fn a_device_that_is_made_again_is_closed_for_the_port_whose_vlan_it_is_in_now() {
    alone(|| {
        ip("link add eth0 type veth peer name eth9");
        let own = "[[port]]\nname = \"own\"\nkind = \"af_packet\"\ndevice = \"staff\"\n\
                   addresses = [\"10.7.0.1/16\"]\n";
        let ports = [port_in_vlan("a", 100), port_in_vlan("b", 200), own.to_owned()];
        let below = index("eth0");
        let mut barrier = Barrier::raise(&parse(&ports.concat())).unwrap();
        for (vlan, port) in [(100, "a"), (200, "b"), (100, "a")] {
            barrier.vlan_list = list(move || {
                let guests = device(1000 + u32::from(vlan), "guests", below, (Q, vlan));
                Ok(vec![guests, device(1000, "staff", below, (Q, vlan))])
            });
            assert!(barrier.close_vlans());
            let closed = barrier.closed.iter().find(|device| device.name == "guests").unwrap();
            let segment: Prefix = format!("10.{vlan}.0.0/16").parse().unwrap();
            assert_eq!((&closed.port[..], &closed.segments), (port, &BTreeSet::from([segment])));
            let staff = barrier.closed.iter().find(|device| device.name == "staff").unwrap();
            assert_eq!(staff.port, "own", "a port's own device stays that port's");
        }
        assert_eq!(barrier.closed_names(), ["eth0", "staff", "guests"]);
        assert_eq!(tables(), ["eth0", "staff", "guests"].map(table));
    });
}

#[test]
fn devices_in_vlans_that_could_not_be_closed_are_tried_again_with_one_warning() {
    alone(|| {
        ip("link add eth0 type veth peer name eth9");
        let mut barrier = Barrier::with_stand_ins(&parse(&port_in_vlan("outside", 100)));
        let close = |barrier: &mut Barrier| {
            let mut is_done = false;
            let log = recorded(Format::Text(false), || is_done = barrier.close_vlans());
            (is_done, log.matches("in clear through a VLAN").count())
        };
        assert_eq!(close(&mut barrier), (false, 1), "the kernel does not tell of its devices");
        assert_eq!(close(&mut barrier), (false, 0));
        ip("link add guests type veth peer name guests9");
        let taken = DeviceLock::take("guests").unwrap();
        assert_eq!(close(&mut barrier), (false, 0), "another gateway has the device");
        assert_eq!(tables(), [table("eth0")]);
        drop(taken);
        once_unlocked(|| barrier.close_vlans().then_some(()).ok_or("it is still locked"));
        assert_eq!(tables(), ["eth0", "guests"].map(table));
        assert_eq!(close(&mut barrier), (true, 0));
        ip("link delete guests");
        assert_eq!(close(&mut barrier), (false, 1), "another failure");
    });
}

#[test]
fn host_is_closed_even_if_the_kernel_does_not_tell_of_its_devices() {
    alone(|| {
        ip("link add eth0 type veth peer name eth9");
        let refuse = list(|| Err(io::Error::other("no")));
        let (port, why) = Barrier::raise_with(&configured("eth0", ""), refuse).unwrap_err();
        let expected = "eth0: cannot find the kernel's devices in VLANs: no";
        assert_eq!((&port[..], &why.to_string()[..]), ("outside", expected));
        assert_eq!(tables(), [table("eth0")]);
    });
}

#[test]
fn the_running_kernel_lists_its_devices_in_vlans() {
    alone(|| {
        ip("link add eth0 type veth peer name eth9");
        let vlan = "link add link eth0 name guests type vlan protocol 802.1ad id 100";
        // Not every kernel has them.
        let has_vlans = Command::new("ip").args(vlan.split(' ')).output().unwrap().status.success();
        let found = vlan_devices().unwrap();
        let found: Vec<_> = found.iter().map(|found| (&found.name[..], found.below, found.tag)).collect();
        let expected = [("guests", index("eth0"), (AD, 100))];
        assert_eq!(found, expected[..usize::from(has_vlans)]);
    });
}

/// Returns an attribute of rtnetlink.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = value.len() as u16 + 4;
    let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// As Linux 6.12 sends them (linux/if_link.h).
#[test]
fn messages_of_the_kernel_tell_of_devices_in_vlans() {
    let header = [&[0, 0, 1, 0][..], &5u32.to_ne_bytes(), &[0; 8]].concat();
    let (name, link) = (attribute(3, b"eth0.7\0"), attribute(5, &2u32.to_ne_bytes()));
    let of_vlan = [attribute(5, &[0x88, 0xa8]), attribute(1, &7u16.to_ne_bytes()), attribute(2, &[0; 8])];
    let info = attribute(18, &[attribute(1, b"vlan\0"), attribute(2, &of_vlan.concat())].concat());
    let veth = attribute(18, &attribute(1, b"veth\0"));
    let elsewhere = attribute(37, &0i32.to_ne_bytes());
    let read = |attributes: &[&[u8]]| {
        let message = LinkMessage::parse(&[&header[..], &attributes.concat()].concat()[..]).unwrap();
        let found = closed_devices::vlan_device(&message);
        found.map(|device| (device.index, device.name, device.below, device.tag))
    };
    assert_eq!(read(&[&name, &link, &info]), Some((5, "eth0.7".to_owned(), 2, (AD, 7))));
    assert_eq!(read(&[&name, &link, &elsewhere, &info]), None, "above a device of another namespace");
    assert_eq!(read(&[&name, &link, &veth]), None);
}
