//! The host's own stack behind a TAP device.

use crate::{
    frames::numbered,
    traffic,
    world::{World, wait_for},
};
use wayfarer_dataplane::{
    packet::Burst,
    pool::Pool,
    port::{Port, PortError, device::Device, tap::TapPort},
};

#[test]
fn the_host_and_the_port_see_each_other() {
    let world = World::new(0, 1);
    let mut pool = Pool::new(64, 2048).unwrap();
    let mut port = world.gw(|| TapPort::open("tap0", 1400, 1).unwrap()).remove(0);
    assert_eq!((port.device().mtu().unwrap(), port.device().is_running().unwrap()), (1400, true));
    assert_ne!(port.mac(), port.host_mac());
    let host = world.kernel("tap0", libc::ETH_P_ALL);
    for (number, len) in [(1, 60), (2, 777), (3, 1414)] {
        let frame = numbered(port.mac(), port.host_mac(), 9, number, len);
        host.send(&frame);
        // The host may send frames of its own in between.
        let mut burst = wait_for("the host's frame", || {
            let mut burst = traffic::receive(&mut port, &mut pool);
            let it = burst.iter().position(|p| p.data() == frame).map(|i| burst.swap_remove(i));
            pool.give_all(&mut burst);
            burst.extend(it);
            (!burst.is_empty()).then_some(burst)
        });
        port.tx(&mut pool, &mut burst);
        assert!(burst.is_empty());
        assert_eq!(wait_for("the frame to return", || host.try_recv()), frame);
    }
    let stats = port.stats();
    assert_eq!((stats.tx_packets, stats.tx_bytes, stats.tx_errors), (3, 2251, 0));
    assert_eq!(pool.available(), 64);
}

#[test]
fn kernels_end_can_change_its_mac_address_while_up() {
    let world = World::new(0, 1);
    let port = world.gw(|| TapPort::open("tap0", 1500, 1).unwrap()).remove(0);
    port.device().set_mac([2, 0, 0, 7, 7, 7]).unwrap();
    assert_eq!(world.gw(|| Device::find("tap0").unwrap()).mac(), [2, 0, 0, 7, 7, 7]);
    let group = port.device().set_mac([1, 0, 0, 7, 7, 7]).unwrap_err();
    assert!(group.to_string().starts_with("tap0: cannot set the MAC address"), "{group}");
}

#[test]
fn a_runt_is_freed_and_counted() {
    let world = World::new(0, 1);
    let mut pool = Pool::new(4, 2048).unwrap();
    let mut port = world.gw(|| TapPort::open("tap0", 1500, 1).unwrap()).remove(0);
    let mut burst = Burst::new();
    burst.push(pool.take().unwrap());
    port.tx(&mut pool, &mut burst);
    assert_eq!((burst.len(), pool.available(), port.stats().tx_errors), (0, 4, 1));
}

#[test]
fn frames_to_a_device_that_is_down_are_refused_and_the_port_says_so() {
    let world = World::new(0, 1);
    let mut pool = Pool::new(4, 2048).unwrap();
    let mut port = world.gw(|| TapPort::open("tap0", 1500, 1).unwrap()).remove(0);
    assert!(!port.is_down());
    world.in_gw("ip link set tap0 down");
    let (mut burst, mut packet) = (Burst::new(), pool.take().unwrap());
    packet.fill(256, &numbered(port.host_mac(), port.mac(), 9, 1, 100)).unwrap();
    burst.push(packet);
    port.tx(&mut pool, &mut burst);
    assert_eq!((burst.len(), port.refused(), port.is_down()), (0, 1, true));
    port.device().set_up().unwrap();
    assert!(!port.is_down());
}

#[test]
fn a_frame_too_long_is_counted() {
    let world = World::new(0, 1);
    let mut pool = Pool::new(64, 2048).unwrap();
    let mut port = world.gw(|| TapPort::open("tap0", 9000, 1).unwrap()).remove(0);
    let host = world.kernel("tap0", libc::ETH_P_ALL);
    host.send(&numbered(port.mac(), port.host_mac(), 9, 1, 4000));
    wait_for("the long frame", || {
        let mut burst = Burst::new();
        port.rx(&mut pool, &mut burst);
        pool.give_all(&mut burst);
        (port.stats().rx_oversize == 1).then_some(())
    });
    assert_eq!(pool.available(), 64);
}

#[test]
fn device_is_removed_with_its_last_queue() {
    let world = World::new(0, 1);
    for _ in 0..10 {
        let mut ports = world.gw(|| TapPort::open("tap0", 1500, 2).unwrap());
        assert_eq!(ports.len(), 2);
        assert_eq!(ports[0].host_mac(), ports[1].host_mac());
        let host = world.kernel("tap0", libc::ETH_P_ALL);
        let mut pool = Pool::new(8, 2048).unwrap();
        for (number, port) in ports.iter_mut().enumerate() {
            let frame = numbered(port.host_mac(), port.mac(), 9, number as u32, 100);
            let (mut burst, mut packet) = (Burst::new(), pool.take().unwrap());
            packet.fill(256, &frame).unwrap();
            burst.push(packet);
            port.tx(&mut pool, &mut burst);
            assert_eq!(wait_for("a frame", || host.try_recv()), frame);
        }
        assert!(world.in_gw("ip link").contains("tap0"));
        drop(ports);
        wait_for("the device to go", || (!world.in_gw("ip link").contains("tap0")).then_some(()));
    }
}

#[test]
fn errors_name_the_reason() {
    let world = World::new(1, 1);
    world.gw(|| {
        let text = |name| TapPort::open(name, 1500, 1).unwrap_err().to_string();
        assert_eq!(text("gw0"), "gw0: not a TAP device of 1 queues, or not a name for one");
        assert_eq!(text("tap%d"), "tap%d: not a TAP device of 1 queues, or not a name for one");
        let _taken = TapPort::open("tap0", 1500, 1).unwrap();
        assert_eq!(text("tap0"), "tap0: in use by another process");
        let error = TapPort::open("tap1", 100_000_000, 1).unwrap_err();
        assert!(matches!(error, PortError::NotSupported { .. } | PortError::System { .. }), "{error}");
    });
}
