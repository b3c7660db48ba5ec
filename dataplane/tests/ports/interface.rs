//! Devices of DPDK whose drivers use one of the kernel's.

use crate::world::{World, wait_for};
use wayfarer_dataplane::port::{
    device::Device,
    dpdk::on_interface,
    monitor::{DeviceState, Monitor},
    tap::TapPort,
};

/// A driver that says the same, whatever becomes of the kernel's device.
#[derive(Debug)]
struct Driver(DeviceState);

impl Monitor for Driver {
    fn state(&self) -> DeviceState {
        self.0.clone()
    }

    fn counters(&self) -> Vec<(String, u64)> {
        vec![("own".to_owned(), 4)]
    }
}

fn own(is_up: bool) -> DeviceState {
    DeviceState { is_up, mtu: Some(1500), rx_missed: 7, ..DeviceState::default() }
}

fn on(world: &World, own: DeviceState, interface: &str) -> Box<dyn Monitor> {
    world.gw(|| on_interface(Box::new(Driver(own)), Device::find(interface).unwrap()).unwrap())
}

fn gone() -> DeviceState {
    DeviceState { is_gone: true, ..DeviceState::default() }
}

#[test]
fn device_has_the_carrier_and_mtu_of_its_interface_and_is_gone_with_it() {
    let world = World::new(1, 1);
    let monitor = on(&world, own(true), "gw0");
    assert_eq!((monitor.state(), monitor.counters().len()), (own(true), 1));
    for (mtu, expected) in [(1400, 1400), (9000, 1500)] {
        world.in_gw(&format!("ip link set gw0 mtu {mtu}"));
        assert_eq!(monitor.state().mtu, Some(expected));
    }
    world.in_peer("ip link set peer0 down");
    wait_for("the carrier to go", || (monitor.state() == own(false)).then_some(()));
    world.in_gw("ip link del gw0");
    assert_eq!(monitor.state(), gone());
}

#[test]
fn device_whose_driver_says_that_it_is_gone_is_gone() {
    let world = World::new(1, 1);
    assert_eq!(on(&world, gone(), "gw0").state(), gone());
}

/// There its driver finds it no more, but it carries packets.
#[test]
fn far_end_of_a_tap_device_may_be_in_another_namespace() {
    let world = World::new(0, 1);
    let _queues = world.gw(|| TapPort::open("wf-moved", 1500, 1)).unwrap();
    let monitor = on(&world, own(false), "wf-moved");
    assert_eq!(monitor.state(), own(true));
    world.in_gw(&format!("ip link set wf-moved netns {}", world.peer_name()));
    assert_eq!(monitor.state(), own(true));
    world.in_peer("ip link set wf-moved name elsewhere");
    assert_eq!(monitor.state(), own(true));
    world.in_peer("ip link del elsewhere");
    assert_eq!(monitor.state(), gone());
}
