//! The best way to open a device, and the reasons why a better one was not possible.

use crate::{
    frames::numbered,
    traffic,
    world::{World, wait_for},
};
use wayfarer_dataplane::{
    packet::Burst,
    pool::Pool,
    port::{
        PortError,
        classifier::Rules,
        monitor::DeviceState,
        open::{self, Driver, Kind, OpenDevice, Request},
    },
};

fn request(device: &str, kind: Kind) -> Request<'_> {
    Request { device, kind, rules: Rules::default(), tap_mtu: 1500 }
}

fn pools(count: usize) -> Vec<Pool> {
    (0..count).map(|_| Pool::new(4096, 2048).unwrap()).collect()
}

fn open(world: &World, device: &str, kind: Kind, pools: &mut [Pool]) -> Result<OpenDevice, PortError> {
    world.gw(|| open::open(&request(device, kind), pools))
}

#[test]
fn devices_opened_by_af_xdp_carry_traffic() {
    let world = World::new(2, 2);
    let mut pools = pools(2);
    let opened = ["gw0", "gw1"].map(|device| {
        let opened = open(&world, device, Kind::AfXdp, &mut pools).unwrap();
        assert_eq!(
            (opened.driver, opened.ports.len(), opened.passed_over.len()),
            (Driver::AfXdpNative, 2, 0)
        );
        assert_eq!((opened.mtu, opened.needs_finished), (1500, true));
        assert!(world.in_gw(&format!("ethtool -k {device}")).contains("rx-vlan-offload: off"));
        opened
    });
    let [inside, _outside] = opened;
    let mut workers: Vec<_> = inside.ports.into_iter().zip(pools).collect();
    for (port, pool) in &mut workers {
        port.rx(pool, &mut Burst::new());
    }
    traffic::echo(&mut workers, inside.mac, &world.peer("peer0"), 1000, 200);
}

#[test]
fn auto_takes_af_packet_where_senders_leave_work_to_the_device() {
    let world = World::new(1, 2);
    world.in_gw("ip link set lo up mtu 1500");
    for device in ["gw0", "lo"] {
        let mut pools = pools(1);
        let opened = open(&world, device, Kind::Auto, &mut pools).unwrap();
        let reasons: Vec<_> = opened.passed_over.iter().map(|(way, why)| format!("{way}: {why}")).collect();
        let reason = "AF_XDP would lose what senders on this machine leave to the device to finish (checksums, segments)";
        assert_eq!(reasons, [format!("af_xdp (native): {device}: {reason}")]);
        assert_eq!((opened.driver, opened.needs_finished), (Driver::AfPacket, false));
    }
}

#[test]
fn af_xdp_needs_a_queue_for_each_worker() {
    let world = World::new(1, 1);
    let error = open(&world, "gw0", Kind::AfXdp, &mut pools(2)).err().unwrap();
    assert_eq!(error.to_string(), "gw0: AF_XDP needs a queue for each of 2 workers; it has 1");
    // Packet sockets do not.
    let mut two = pools(2);
    let opened = open(&world, "gw0", Kind::Auto, &mut two).unwrap();
    assert_eq!((opened.driver, opened.ports.len()), (Driver::AfPacket, 2));
    let mut workers: Vec<_> = opened.ports.into_iter().zip(two).collect();
    traffic::echo(&mut workers, opened.mac, &world.peer("peer0"), 1000, 200);
}

#[test]
fn generic_xdp_is_taken_if_the_driver_has_none() {
    let world = World::new(0, 1);
    world.in_gw("ip link set lo up mtu 1500");
    let opened = open(&world, "lo", Kind::AfXdp, &mut pools(1)).unwrap();
    assert_eq!(opened.driver, Driver::AfXdpGeneric);
    assert_eq!(opened.passed_over.len(), 1);
    assert_eq!(opened.passed_over[0].0.to_string(), "af_xdp (native)");
}

#[test]
fn worker_with_several_queues_serves_all() {
    let world = World::new(1, 2);
    let mut pools = pools(1);
    let opened = open(&world, "gw0", Kind::AfXdp, &mut pools).unwrap();
    let mut workers: Vec<_> = opened.ports.into_iter().zip(pools).collect();
    let (port, pool) = &mut workers[0];
    port.rx(pool, &mut Burst::new());
    traffic::echo(&mut workers, opened.mac, &world.peer("peer0"), 2000, 200);
}

#[test]
fn tap_device_belongs_to_one_gateway() {
    let world = World::new(0, 1);
    let opened = open(&world, "tap0", Kind::Tap, &mut pools(2)).unwrap();
    assert_eq!((opened.driver, opened.ports.len(), opened.mtu), (Driver::Tap, 2, 1500));
    assert!(opened.shared.is_none());
}

#[test]
fn link_carries_traffic_after_going_down_and_up() {
    for kind in [Kind::AfXdp, Kind::AfPacket] {
        let world = World::new(1, 1);
        let mut pools = pools(1);
        let opened = open(&world, "gw0", kind, &mut pools).unwrap();
        let mut workers: Vec<_> = opened.ports.into_iter().zip(pools).collect();
        let peer = world.peer("peer0");
        let (port, pool) = &mut workers[0];
        port.rx(pool, &mut Burst::new());
        traffic::echo(&mut workers, opened.mac, &peer, 100, 50);
        world.in_gw("ip link set gw0 down");
        let (port, pool) = &mut workers[0];
        let mut burst = Burst::new();
        let mut packet = pool.take().unwrap();
        packet.fill(256, &numbered(peer.mac, opened.mac, 9, 7, 60)).unwrap();
        burst.push(packet);
        port.tx(pool, &mut burst);
        port.flush(pool);
        port.rx(pool, &mut burst);
        pool.give_all(&mut burst);
        world.in_gw("ip link set gw0 up");
        traffic::drain(&mut **port, pool);
        while peer.try_recv().is_some() {}
        traffic::echo(&mut workers, opened.mac, &peer, 1000, 50);
    }
}

#[test]
fn removed_device_does_no_harm() {
    for kind in [Kind::AfXdp, Kind::AfPacket, Kind::Tap] {
        let world = World::new(1, 1);
        let mut pools = pools(1);
        let device = if kind == Kind::Tap { "tap0" } else { "gw0" };
        let mut opened = open(&world, device, kind, &mut pools).unwrap();
        world.in_gw(&format!("ip link del {device}"));
        let (port, pool) = (&mut opened.ports[0], &mut pools[0]);
        let before = port.stats();
        for _ in 0..3 {
            let mut burst = Burst::new();
            let mut packet = pool.take().unwrap();
            packet.fill(256, &numbered([2; 6], opened.mac, 9, 7, 60)).unwrap();
            burst.push(packet);
            port.tx(pool, &mut burst);
            port.flush(pool);
            port.rx(pool, &mut burst);
            pool.give_all(&mut burst);
        }
        assert_eq!(port.stats().rx_packets, before.rx_packets);
        if let Some(shared) = opened.shared {
            let neighbours = shared.neighbours.unwrap();
            assert!(neighbours.send(&[0; 60]).is_err());
            assert_eq!(neighbours.recv(&mut [0; 100]), None);
        }
    }
}

#[test]
fn device_with_an_mtu_beyond_the_frames_is_opened() {
    let world = World::new(1, 1);
    world.in_gw("ip link set gw0 mtu 3000");
    for kind in [Kind::Auto, Kind::AfPacket] {
        let opened = open(&world, "gw0", kind, &mut pools(1)).unwrap();
        assert_eq!((opened.mtu, opened.monitor.state().mtu), (3000, Some(3000)));
    }
}

#[test]
fn device_that_is_made_again_at_once_is_not_taken_for_the_earlier_one() {
    let world = World::new(1, 1);
    let opened = open(&world, "gw0", Kind::AfPacket, &mut pools(1)).unwrap();
    assert!(opened.monitor.state().is_up);
    let mac = world.in_gw("cat /sys/class/net/gw0/address");
    world.in_gw("ip link del gw0");
    let same = format!("index {} address {}", opened.index, mac.trim());
    world.in_gw(&format!("ip link add gw0 {same} type veth peer name gw9"));
    for device in ["gw0", "gw9"] {
        world.in_gw(&format!("ip link set {device} up"));
    }
    assert_eq!(opened.monitor.state(), DeviceState { is_gone: true, ..DeviceState::default() });
    let again = open(&world, "gw0", Kind::AfPacket, &mut pools(1)).unwrap();
    assert_eq!((again.index, again.mac, again.monitor.state().is_up), (opened.index, opened.mac, true));
}

#[test]
fn device_with_another_name_is_the_same_one() {
    for kind in [Kind::AfXdp, Kind::AfPacket, Kind::Tap] {
        let world = World::new(2, 1);
        world.in_gw("ip link set gw1 mtu 1400");
        let device = if kind == Kind::Tap { "tap0" } else { "gw0" };
        let mut pools = pools(1);
        let opened = open(&world, device, kind, &mut pools).unwrap();
        assert_eq!(opened.name, device);
        let before = opened.monitor.state();
        let is_named = |name: &str| {
            let wanted = DeviceState { name: Some(name.into()), ..before.clone() };
            wait_for("the device's state", || (opened.monitor.state() == wanted).then_some(()));
        };
        is_named(device);
        world.in_gw(&format!("ip link set {device} name wan0"));
        is_named("wan0");
        // Another one has its name now.
        world.in_gw(&format!("ip link set gw1 name {device}"));
        is_named("wan0");
        world.in_gw(&format!("ip link set {device} down"));
        is_named("wan0");
        if kind != Kind::Tap {
            let mut workers: Vec<_> = opened.ports.into_iter().zip(pools).collect();
            let (port, pool) = &mut workers[0];
            port.rx(pool, &mut Burst::new());
            traffic::echo(&mut workers, opened.mac, &world.peer("peer0"), 1000, 200);
        }
        world.in_gw("ip link del wan0");
        assert_eq!(opened.monitor.state(), DeviceState { is_gone: true, ..DeviceState::default() });
    }
}

#[test]
fn queues_that_a_device_gets_later_are_not_served_by_af_xdp() {
    for (kind, is_unserved) in [(Kind::AfXdp, true), (Kind::AfPacket, false)] {
        let world = World::new(1, 2);
        world.in_peer("ethtool -L peer0 rx 1 tx 1");
        world.in_gw("ethtool -L gw0 rx 1 tx 1");
        let opened = open(&world, "gw0", kind, &mut pools(1)).unwrap();
        assert!(!opened.monitor.state().has_unserved_queues);
        world.in_gw("ethtool -L gw0 rx 2");
        assert_eq!(opened.monitor.state().has_unserved_queues, is_unserved);
    }
}

#[test]
fn errors_are_one_clear_line() {
    let world = World::new(1, 1);
    let text = |device: &str, kind, pools: &mut [Pool]| {
        open(&world, device, kind, pools).err().map(|e| e.to_string()).unwrap_or_default()
    };
    for kind in [Kind::Auto, Kind::AfXdp, Kind::AfPacket] {
        assert_eq!(text("eth7", kind, &mut pools(1)), "no device named \"eth7\"");
    }
    assert_eq!(text("gw0", Kind::Auto, &mut []), "gw0: no worker to open it for");
    assert_eq!(text("tap0", Kind::Tap, &mut []), "tap0: no worker to open it for");
    let mut small = vec![Pool::new(64, 1280).unwrap()];
    let reason = "gw0: frames of 1280 bytes are too small for packets of 1280 bytes";
    assert_eq!(text("gw0", Kind::Auto, &mut small), reason);
    world.in_gw("ip link set gw0 down");
    assert_eq!(text("gw0", Kind::Auto, &mut pools(1)), "gw0: the device is down");
}

#[test]
fn without_capabilities_the_error_names_them() {
    let world = World::new(1, 1);
    let text = |device: &'static str, kind| {
        world.gw(|| {
            // SAFETY: changes only the credentials of this thread, which ends here.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) }, 0);
            let mut pools = pools(1);
            open::open(&request(device, kind), &mut pools).err().unwrap().to_string()
        })
    };
    assert!(
        text("gw0", Kind::AfXdp).contains("needs CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF (or CAP_SYS_ADMIN)")
    );
    assert!(text("gw0", Kind::AfPacket).contains("no permission to"));
    assert!(text("tap0", Kind::Tap).contains("needs CAP_NET_ADMIN and access to /dev/net/tun"));
}

#[test]
fn a_devices_state_follows_its_link() {
    let world = World::new(1, 1);
    let opened = open(&world, "gw0", Kind::AfPacket, &mut pools(1)).unwrap();
    let state = || opened.monitor.state();
    let veth = DeviceState {
        name: Some("gw0".into()),
        mtu: Some(1500),
        mac: Some(opened.mac),
        is_up: true,
        speed: Some(10_000),
        full_duplex: Some(true),
        is_promiscuous: false,
        ..DeviceState::default()
    };
    assert_eq!(state(), veth);
    world.in_gw("ip link set gw0 promisc on");
    assert_eq!(state(), DeviceState { is_promiscuous: true, ..veth.clone() });
    world.in_gw("ip link set gw0 promisc off");
    world.in_peer("ip link set peer0 down");
    wait_for("the carrier to go", || (state() == DeviceState { is_up: false, ..veth.clone() }).then_some(()));
    world.in_gw("ip link del gw0");
    let gone = DeviceState { is_gone: true, ..DeviceState::default() };
    assert_eq!(state(), gone);
    // Another device with the same name is not the same device.
    world.in_gw("ip link add gw0 up type veth");
    assert_eq!(state(), gone);
}
