//! The configuration and the ports of the measured gateway.
//!
//! ```text
//! terminals 100.64.0.0/10 ═ OUTSIDE ═ gateway 203.0.113.1 ═ INSIDE ═ server 10.0.0.2
//! ```
//!
//! Every terminal has its own inner address, its own outer addresses, and a pair of SAs. All are
//! reached through one station.

use super::port::{LoadPort, Tap};
use crate::{
    config::model::{Config, Gateway, Remote, Tunnel},
    launch::OpenPort,
    sim::{
        addresses,
        fixtures::{SERVER, bare_tunnel, gateway_settings, sa, two_port_config, two_ports},
    },
};
use std::sync::Arc;
use wayfarer_dataplane::{crypto::Suite, port::Port, sa::Selector, table::Prefix};

/// Different keys in each direction. The gateway still has a
/// [`Key`](wayfarer_dataplane::crypto::Key) per SA; the terminals share theirs, so that the load
/// does not need as much memory as a second gateway.
pub(super) const KEYS: u32 = 64;

const SPI_IN: u32 = 0x0100_0000;
const SPI_OUT: u32 = 0x0200_0000;

/// Returns the SPI of packets from terminal `index`.
pub(super) fn spi_in(index: u32) -> u32 {
    SPI_IN + index
}

/// Returns the terminal to which packets with this SPI go.
pub(super) fn terminal_of(spi: u32) -> Option<u32> {
    spi.checked_sub(SPI_OUT).filter(|index| *index < addresses::MOST)
}

/// Returns the seed of the key of an SA of terminal `index`.
pub(super) fn key_seed(index: u32, inbound: bool) -> u32 {
    (index % KEYS) * 2 + u32::from(inbound)
}

/// Returns the name of the tunnel of terminal `index`.
pub(super) fn name(index: u32) -> String {
    format!("terminal-{index}")
}

/// Configures a gateway with `tunnels` tunnels, for inner packets of up to `largest` bytes.
pub(super) fn config(tunnels: u32, suite: Suite, window: u32, largest: usize) -> Config {
    // Odd numbers of cache lines, as DPDK's mempools have: else the headers of all frames share few sets of the
    // caches.
    let frame_size = Some(if mtu(largest) > 1500 { 9792 } else { 2112 });
    let gateway = Gateway { frames: 1024, frame_size, ..gateway_settings(tunnels as usize) };
    let tunnels = (0..tunnels).map(|index| tunnel(index, suite, window)).collect();
    two_port_config(gateway, addresses::all_outer(), tunnels)
}

/// Returns the MTU of ports that carry inner packets of up to `largest` bytes in ESP.
fn mtu(largest: usize) -> usize {
    if largest <= 1420 { 1500 } else { 9216 }
}

/// Configures the tunnel of terminal `index`.
pub(super) fn tunnel(index: u32, suite: Suite, window: u32) -> Tunnel {
    let sa = |spi, inbound| sa(spi + index, suite, key_seed(index, inbound));
    Tunnel {
        remote: Remote::At(addresses::outer(index, 0), 0),
        selectors: vec![Selector::configured(Prefix::host(SERVER), Prefix::host(addresses::inner(index)))],
        window,
        ..bare_tunnel(name(index), sa(SPI_IN, true), sa(SPI_OUT, false))
    }
}

/// Makes the gateway's two ports, with a queue for each of `workers`, and the taps of those queues.
pub(super) fn ports(workers: usize, largest: usize) -> (Vec<OpenPort>, [Vec<Arc<Tap>>; 2]) {
    let taps: [Vec<Arc<Tap>>; 2] = std::array::from_fn(|_| (0..workers).map(|_| Arc::default()).collect());
    let queue = |tap: &Arc<Tap>| Box::new(LoadPort::new(tap.clone())) as Box<dyn Port>;
    let mut ports = two_ports(taps.each_ref().map(|taps| taps.iter().map(queue).collect()));
    ports.iter_mut().for_each(|port| port.mtu = mtu(largest));
    (ports, taps)
}
