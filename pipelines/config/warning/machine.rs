//! Devices, cores and programs of this machine.

use super::review::Review;
use crate::config::{
    file::Kind,
    frames::{frame_size, longest_packet, remedy},
    model::Port,
    value::NAT_T,
};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    ops::Range,
};
use toml::Spanned;
use wayfarer_dataplane::port::{PortError, device::Device, dpdk::Eal};

/// UDP port of IKE (RFC 7296 §2).
const IKE: u16 = 500;
/// The ports that the kernel takes for connections of the host's own.
const EPHEMERAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";

pub(super) fn review(review: &mut Review<'_>) {
    dpdk(review);
    // A configuration for another machine needs no more than one line.
    if devices(review) {
        cores(review);
        udp_ports(review);
        own_connections(review);
    }
}

/// Warns of DPDK's keys in a program that was built without it.
fn dpdk(review: &mut Review<'_>) {
    if Eal::VERSION.is_some() {
        return;
    }
    let table = review.raw.dpdk.as_ref().map(|dpdk| ("dpdk", dpdk.span()));
    let kinds = review.raw.port.iter().filter_map(|port| port.get_ref().kind.as_ref());
    let port =
        kinds.filter(|kind| *kind.get_ref() == Kind::Dpdk).map(|kind| ("port.kind", kind.span())).next();
    if let Some((key, place)) = port.or(table) {
        let text = "this program was built without DPDK: build it by cargo build --release --features dpdk";
        review.warn(key, place, text);
    }
}

/// Warns of devices that are missing or too small. Returns `false` if all devices are missing.
fn devices(review: &mut Review<'_>) -> bool {
    let (raw, config) = (review.raw, review.config);
    let holds = longest_packet(frame_size(config));
    let (mut count, mut missing) = (0, vec![]);
    for (raw, port) in raw.port.iter().zip(&config.ports) {
        let Some(name) = port.kind.shared_device() else { continue };
        let raw = raw.get_ref();
        if port.is_optional && matches!(Device::find(name), Err(PortError::NoDevice { .. })) {
            continue;
        }
        let place = |key: Option<_>| key.unwrap_or_else(|| raw.name.span());
        let device_place = place(raw.device.as_ref().map(Spanned::span));
        count += 1;
        match Device::find(name) {
            Err(PortError::NoDevice { .. }) => missing.push((name, device_place)),
            Err(why) => review.warn("port.device", device_place, why.to_string()),
            Ok(device) => {
                if let Ok(most) = device.mtu() {
                    let cost = port.tagging.map_or(0, |tagging| tagging.vlan.mtu_cost());
                    let most = most.saturating_sub(cost);
                    mtus(review, port, name, most);
                    frames(review, port, most, holds, device_place);
                }
            }
        }
    }
    if count > 1 && missing.len() == count {
        let names: Vec<_> = missing.iter().map(|(name, _)| *name).collect();
        let text = format!(
            "this machine has none of the devices {}: its cores and programs were not looked at",
            names.join(", ")
        );
        review.warn("port.device", missing[0].1.clone(), text);
        return false;
    }
    let is_here = missing.len() < count || count == 0;
    for (name, place) in missing {
        let text = format!("this machine has no device {name}: ip link lists those that it has");
        review.warn("port.device", place, text);
    }
    is_here
}

/// Warns of packets that are larger than a port's device sends.
fn mtus(review: &mut Review<'_>, port: &Port, device: &str, most: usize) {
    let (raw, config) = (review.raw, review.config);
    let is_there = |own: &IpAddr| port.addresses.iter().any(|(address, _)| address == own);
    let ports = raw.port.iter().zip(&config.ports).filter(|(_, other)| other.name == port.name);
    let ports = ports.map(|(raw, port)| ("port.mtu", &raw.get_ref().mtu, port.mtu));
    let tunnels = raw.tunnel.iter().zip(&config.tunnels).filter(|(_, tunnel)| is_there(&tunnel.local));
    let tunnels = tunnels.map(|(raw, tunnel)| ("tunnel.mtu", &raw.get_ref().mtu, tunnel.mtu));
    let connections = raw.connection.iter().zip(&config.ike.connections);
    let connections = connections.filter(|(_, connection)| connection.protocol.local.iter().any(is_there));
    let connections =
        connections.map(|(raw, connection)| ("connection.mtu", &raw.get_ref().mtu, connection.mtu));
    for (key, raw, mtu) in ports.chain(tunnels).chain(connections) {
        if let Some(raw) = raw.as_ref().filter(|_| mtu.is_some_and(|mtu| mtu > most)) {
            let text = format!(
                "{device} sends at most {most} bytes: lower mtu, or raise the device's by ip link set {device} mtu"
            );
            review.warn(key, raw.span(), text);
        }
    }
}

/// Warns of frames, which hold packets of so many bytes without tags, if they are too short for those
/// that a port's device, in this place of the file, brings. Its MTU leaves `most` bytes for the port.
fn frames(review: &mut Review<'_>, port: &Port, most: usize, holds: usize, device: Range<usize>) {
    let tags = port.tagging.map_or(0, |tagging| tagging.vlan.tags());
    let holds = holds.saturating_sub(tags);
    if most > holds {
        let remedy = remedy(review.config, most + tags);
        let text = format!(
            "the device sends and receives packets of up to {most} bytes, but a frame holds {holds}: the port takes \
             no more, and longer ones that come in are lost: {remedy}, or lower the device's MTU and those of its \
             neighbours"
        );
        review.warn("port.device", device, text);
    }
}

/// Warns of cores for workers that this process may not use.
fn cores(review: &mut Review<'_>) {
    let (Some(cores), Some(all)) = (&review.config.gateway.workers, core_affinity::get_core_ids()) else {
        return;
    };
    let missing: Vec<_> = cores.iter().filter(|core| !all.iter().any(|one| one.id == **core)).collect();
    let Some(first) = missing.first() else { return };
    let workers = review.raw.gateway.workers.as_ref().map(|list| ("gateway.workers", list.span()));
    let dpdk = review.raw.dpdk.as_ref().map(|dpdk| ("dpdk.cores", dpdk.span()));
    if let Some((key, place)) = workers.or(dpdk) {
        let names: Vec<String> = all.iter().map(|core| core.id.to_string()).collect();
        let text = format!("this machine has no core {first} for workers, only {}", names.join(", "));
        review.warn(key, place, text);
    }
}

/// Warns of another program with a UDP port that the gateway takes.
fn udp_ports(review: &mut Review<'_>) {
    let Some(first) = review.raw.connection.first() else { return };
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(|file| fs::read_to_string(file).unwrap_or_default());
    let held = [IKE, NAT_T].into_iter().filter(|port| tables.iter().any(|table| has_port(table, *port)));
    let held: Vec<String> = held.map(|port| port.to_string()).collect();
    if !held.is_empty() {
        let text = format!(
            "another program, perhaps an IKE daemon, has UDP port {} open on this machine, and gets none of what comes \
             there while the gateway runs: stop it (ss -lunp shows it)",
            held.join(" and ")
        );
        review.warn("connection", first.span(), text);
    }
}

/// Warns of ports of a NAT that the host takes for connections of its own, if it has the NAT's address.
fn own_connections(review: &mut Review<'_>) {
    let (raw, config) = (review.raw, review.config);
    let Some((first, last)) = fs::read_to_string(EPHEMERAL).ok().as_deref().and_then(two_numbers) else {
        return;
    };
    for (raw, nat) in raw.nat.iter().zip(&config.nats) {
        let overlaps = *nat.ports.start() <= last && first <= *nat.ports.end();
        if overlaps && is_of_host(nat.address) {
            let place = raw.get_ref().ports.as_ref().map_or(raw.span(), Spanned::span);
            let text = format!(
                "this machine takes ports {first} to {last} for connections of its own, and gets no answers at \
                 those that a [[nat]] of its address has: choose others, or move the machine's by \
                 sysctl net.ipv4.ip_local_port_range"
            );
            review.warn("nat.ports", place, text);
        }
    }
}

/// Returns whether the host's own stack has an address.
fn is_of_host(address: Ipv4Addr) -> bool {
    nix::ifaddrs::getifaddrs().is_ok_and(|mut all| {
        all.any(|one| one.address.is_some_and(|a| a.as_sockaddr_in().is_some_and(|a| a.ip() == address)))
    })
}

/// Returns the only two numbers in a text.
fn two_numbers(text: &str) -> Option<(u16, u16)> {
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last)), None) => Some((first, last)),
        _ => None,
    }
}

/// Returns whether a table of sockets of the kernel (proc_net(5)) has this local port.
fn has_port(table: &str, port: u16) -> bool {
    let end = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .any(|line| line.split_whitespace().nth(1).is_some_and(|local| local.ends_with(&end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_of_ports_is_read() {
        assert_eq!(two_numbers("32768\t60999\n"), Some((32768, 60999)));
        assert_eq!([two_numbers("1"), two_numbers("1 2 3"), two_numbers("1 x")], [None; 3]);
    }

    #[test]
    fn ports_are_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue\n  12: 00000000:1194 00000000:0000 07 00000000:00000000\n";
        assert!(has_port(table, 4500) && !has_port(table, 500) && !has_port("", 500));
    }
}
