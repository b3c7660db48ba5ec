//! The ports of a gateway whose tables a test changes.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};
use wayfarer::sim::{fixtures::*, lone_worker::LoneWorker};
use wayfarer_dataplane::{
    packet::Burst,
    pool::Pool,
    port::{
        Mac, Port, PortStats,
        memory::Wire,
        vlan::{self, Priority, Tagging},
    },
    wire::vlan::Vlan,
};

/// Index of the port to the host's own stack, in gateways that have one.
pub(super) const HOST: usize = 2;
/// The gateway's MAC addresses, by port.
pub(super) const MACS: [Mac; 3] = [GATEWAY_MAC[OUTSIDE], GATEWAY_MAC[INSIDE], [2, 0, 0, 0, 0, 0x12]];
/// The MAC address of the one station at the other end of each port.
pub(super) const STATIONS: [Mac; 3] = [STATION_MAC[OUTSIDE], STATION_MAC[INSIDE], [2, 0, 0, 0, 0, 0x22]];
/// The tags of the ports outside and inside that are in VLANs of one device.
const TAGS: [[u8; 4]; 2] = [[0x81, 0, 0, 100], [0x81, 0, 0, 200]];
/// The offset of tags in a frame.
const TAGS_AT: usize = 12;

type Act = Box<dyn FnOnce() + Send>;

/// What is to happen when a port next receives.
#[derive(Clone, Default)]
pub(super) struct Hook(Arc<Mutex<Option<Act>>>);

impl Hook {
    /// Has `act` happen at the next reception, once.
    pub(super) fn set(&self, act: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(act));
    }
}

/// A port with a [`Hook`].
struct HookedPort {
    port: Box<dyn Port>,
    hook: Hook,
}

impl Port for HookedPort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        if let Some(act) = self.hook.0.lock().unwrap().take() {
            act();
        }
        self.port.rx(pool, burst);
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        self.port.tx(pool, burst);
    }

    fn stats(&self) -> PortStats {
        self.port.stats()
    }
}

/// The ports of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ports {
    /// Those outside and inside.
    Two,
    /// The same. The one outside fills in UDP checksums over IPv6.
    Filling,
    /// One more, to the host's own stack.
    WithHost,
    /// The same. Those outside and inside are in VLANs of one device.
    InVlans,
}

impl Ports {
    /// Returns the indices of all ports.
    pub(super) fn indices(self) -> Range<usize> {
        if matches!(self, Self::Two | Self::Filling) { 0..2 } else { 0..3 }
    }

    /// Makes all ports, and the far ends of their wires.
    pub(super) fn open(self, hook: &Hook) -> (Vec<Box<dyn Port>>, Vec<Wire>) {
        let open = || {
            let (port, wire) = LoneWorker::port();
            let port: Box<dyn Port> = Box::new(HookedPort { port, hook: hook.clone() });
            (port, wire)
        };
        if self != Self::InVlans {
            return self.indices().map(|_| open()).unzip();
        }
        let (device, trunk) = open();
        let (host, wire) = open();
        let tagging = |[.., id]: [u8; 4]| {
            let vlan = Vlan::new(None, id.into()).expect("a VLAN");
            Some(Tagging { vlan, priority: Priority::Fixed(0), sets_dscp: false })
        };
        let parts = vlan::divide(vec![device], None, &TAGS.map(tagging)).into_iter();
        (parts.flat_map(|part| part.queues).chain([host]).collect(), vec![trunk, wire])
    }

    /// Returns the wire of a port.
    pub(super) fn wire(self, port: usize) -> usize {
        match (self, port) {
            (Self::InVlans, HOST) => 1,
            (Self::InVlans, _) => 0,
            _ => port,
        }
    }

    /// Returns a frame for a port, with the tag of its VLAN.
    pub(super) fn tagged(self, port: usize, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        if self == Self::InVlans && port < TAGS.len() {
            let at = frame.len().min(TAGS_AT);
            frame.splice(at..at, TAGS[port]);
        }
        frame
    }

    /// Returns a frame that has come out of the wire of `port`, without the tag of a VLAN, and the port by
    /// which it came.
    pub(super) fn untagged(self, port: usize, mut frame: Vec<u8>) -> (usize, Vec<u8>) {
        if self != Self::InVlans || port >= TAGS.len() {
            return (port, frame);
        }
        let tag: Vec<u8> = frame.drain(TAGS_AT..TAGS_AT + 4).collect();
        let from = TAGS.iter().position(|own| tag == own).expect("the tag of a port");
        (from, frame)
    }
}
