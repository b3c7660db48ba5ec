//! Ports that share a device: it is opened once, and divided by VLANs.

use super::assembly::OpenPort;
use crate::{
    config::model::{Config, Port, PortKind},
    slow_path::{SubPort, kind_in_vlan},
};
use wayfarer_dataplane::port::vlan::{self, Tagging};

/// Largest IP packet, in bytes, of ports without a device.
pub(super) const MTU: usize = 1500;

/// Returns the indices of all ports, those of one device together, in the order of their first ones.
pub(super) fn devices(config: &Config) -> Vec<Vec<usize>> {
    let mut devices: Vec<Vec<usize>> = vec![];
    for (index, port) in config.ports.iter().enumerate() {
        match devices.iter_mut().find(|device| config.ports[device[0]].shares_device(port)) {
            Some(device) => device.push(index),
            None => devices.push(vec![index]),
        }
    }
    devices
}

/// Returns the settings to open the device of these ports with.
pub(super) fn device(config: &Config, ports: &[usize]) -> Port {
    let first = &config.ports[ports[0]];
    if is_whole(config, ports) {
        return first.clone();
    }
    let all = || ports.iter().map(|index| &config.ports[*index]);
    let wanted = all().map(|port| port.mtu.unwrap_or(MTU) + port.tagging.map_or(0, mtu_cost)).max();
    let mtu = match first.kind {
        PortKind::Tap { .. } => wanted,
        PortKind::Dpdk { .. } => wanted.filter(|_| all().any(|port| port.mtu.is_some())),
        _ => None,
    };
    let untagged = all().find(|port| port.tagging.is_none());
    let addresses = untagged.map(|port| port.addresses.clone()).unwrap_or_default();
    Port { mtu, addresses, ..first.clone() }
}

/// Divides an open device among these ports. Returns each with its index.
pub(super) fn divide(config: &Config, ports: &[usize], device: OpenPort) -> Vec<(usize, OpenPort)> {
    if is_whole(config, ports) {
        return vec![(ports[0], device)];
    }
    let sub_ports: Vec<_> =
        ports.iter().map(|&port| SubPort { port, tagging: config.ports[port].tagging }).collect();
    let taggings: Vec<_> = sub_ports.iter().map(|sub_port| sub_port.tagging).collect();
    let has_device = device.monitor.is_some();
    // The kernel's addresses and routes by a TAP device are in no VLAN, so a port in none leads to the host.
    let is_tap = matches!(config.ports[ports[0]].kind, PortKind::Tap { .. });
    let has_untagged = taggings.contains(&None);
    let parts = vlan::divide(device.queues, device.monitor, &taggings);
    let (mut shared, mut capture, mut reopener) = (device.shared, device.capture, device.reopener);
    let mut rest = Some(sub_ports.clone());
    let open = |(SubPort { port: index, tagging }, part): (SubPort, vlan::SubPort)| {
        let port = &config.ports[index];
        let (is_untagged, wanted) = (tagging.is_none(), port.mtu.unwrap_or(usize::MAX));
        let [cost, tags] = tagging.map_or([0; 2], |tagging| [mtu_cost(tagging), tagging.vlan.tags()]);
        let frames_hold = device.frames_hold.saturating_sub(tags);
        let [mtu, mtu_limit] = if has_device {
            [device.mtu.saturating_sub(cost), device.mtu_limit.saturating_sub(cost).min(frames_hold)]
        } else {
            [port.mtu.unwrap_or(MTU); 2]
        };
        let open = OpenPort {
            name: port.name.clone(),
            kind: kind_in_vlan(&device.kind, tagging),
            device_name: device.device_name.clone(),
            device: device.device.filter(|_| is_untagged),
            vlan: tagging.map(|tagging| tagging.vlan),
            sub_ports: rest.take().unwrap_or_default(),
            mac: device.mac,
            mtu: mtu.min(mtu_limit).min(wanted),
            mtu_limit: mtu_limit.min(wanted),
            frames_hold,
            fills_checksums: device.fills_checksums && is_untagged,
            addresses: port.addresses.clone(),
            stations: device.stations,
            is_host: port.is_host || (is_tap && (is_untagged || !has_untagged)),
            shared: if is_untagged { shared.take() } else { None },
            exception: None,
            monitor: part.monitor,
            capture: capture.take(),
            reopener: reopener.take(),
            queues: part.queues,
        };
        (index, open)
    };
    sub_ports.into_iter().zip(parts).map(open).collect()
}

/// Returns whether these ports are one that has its device for itself, in no VLAN.
fn is_whole(config: &Config, ports: &[usize]) -> bool {
    ports.len() == 1 && config.ports[ports[0]].tagging.is_none()
}

fn mtu_cost(tagging: Tagging) -> usize {
    tagging.vlan.mtu_cost()
}
