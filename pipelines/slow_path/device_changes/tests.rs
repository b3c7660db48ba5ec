//! Devices that change, in network namespaces of the running kernel.

use super::*;
use crate::{
    barrier::Barrier,
    config::{self, model::Config},
    gateway::tables::{Settings, Tables},
    namespace::alone,
    slow_path::neighbours::Segment,
};
use crossbeam::channel::bounded;
use std::{
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::Instant,
};
use wayfarer_dataplane::{
    port::{classifier::Rules, device::Device},
    table::Writer,
};

const PORT: &str = "[[port]]\nname = \"outside\"\nkind = \"af_packet\"\ndevice = \"eth0\"\nvlan = 100\n\
                    addresses = [\"192.0.2.7/24\"]\n";

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "{arguments}");
}

fn add_veth(name: &str, peer: &str) {
    ip(&format!("link add {name} type veth peer name {peer}"));
}

fn configured() -> Config {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/test.toml");
    config::parse(PORT, &file).unwrap()
}

/// Returns a slow path without workers, on these ports.
fn slow_path(config: &Config, ports: Vec<PortHandle>) -> SlowPath {
    let settings = Settings {
        ports: Box::default(),
        encap_ports: Box::default(),
        siu_port: None,
        home_agent: None,
        host: None,
        mss_clamp: false,
        discards: false,
        nats: Box::default(),
    };
    let writer = Writer::new();
    let tables = Arc::new(Tables::new(&writer, 16, settings));
    let ((_, requests), (_, new_config)) = (bounded(1), bounded(1));
    SlowPath::new(config, writer, tables, vec![], ports, (requests, new_config)).unwrap()
}

#[test]
fn host_is_closed_by_a_name_that_a_device_got_just_before_it_was_opened() {
    alone(|| {
        add_veth("eth0", "eth9");
        let config = configured();
        let barrier = Arc::new(Mutex::new(Barrier::raise(&config).unwrap()));
        ip("link set eth0 name lan0");
        let device = Device::find("lan0").unwrap();
        let segment = Segment { mac: device.mac(), addresses: vec![], stations: Stations::Ask };
        let rules = Rules::default();
        let reopener = Reopener { device: "uplink".into(), rules, workers: 0, frame_size: 2048, tap: None };
        let port = PortHandle {
            name: "outside".into(),
            kind: "af_packet".into(),
            mtu: 1500,
            mtu_limit: 1500,
            frames_hold: 1500,
            device_name: Some("lan0".into()),
            device: None,
            vlan: None,
            sub_ports: vec![],
            exception_of: None,
            segment,
            shared: None,
            monitor: Some(Box::new(device)),
            reopener: Some(reopener),
        };
        let mut slow_path = slow_path(&config, vec![port]);
        slow_path.use_barrier(barrier.clone());
        slow_path.handle_devices(Duration::ZERO);
        assert_eq!(barrier.lock().unwrap().closed_names(), ["eth0", "lan0"]);
    });
}

/// Not every kernel has devices in VLANs, so others stand for them.
#[test]
fn host_is_closed_by_devices_of_its_own_in_a_ports_vlan_that_appear_later() {
    alone(|| {
        add_veth("eth0", "eth9");
        let config = configured();
        let mut slow_path = slow_path(&config, vec![]);
        let barrier = Arc::new(Mutex::new(Barrier::with_stand_ins(&config)));
        slow_path.use_barrier(barrier.clone());
        let closed = || barrier.lock().unwrap().closed_names().join(" ");
        // The list fails until there is a device.
        slow_path.handle_devices(Duration::ZERO);
        add_veth("guests", "guests9");
        slow_path.handle_devices(Duration::from_millis(499));
        assert_eq!(closed(), "eth0");
        slow_path.handle_devices(Duration::from_millis(500));
        assert_eq!(closed(), "eth0 guests", "it was not tried again");
        slow_path.follow_kernel(false, vec![]).unwrap();
        add_veth("staff", "staff9");
        let (mut now, end) = (Duration::from_secs(1), Instant::now() + Duration::from_secs(10));
        while closed() != "eth0 guests staff" {
            assert!(Instant::now() < end, "a device that the kernel told of stays open");
            slow_path.handle_kernel(now);
            now += Duration::from_secs(1);
            slow_path.handle_devices(now);
        }
    });
}
