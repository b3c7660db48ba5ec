//! The state of a device, besides the counters of its queues.

use super::Mac;
use std::fmt;

/// The slow path's view of an open device.
pub trait Monitor: Send + fmt::Debug {
    /// Returns the current state. Makes system calls or reads registers: for people, and for once a
    /// second.
    fn state(&self) -> DeviceState;

    /// Returns all other counters of the device, with its own names and in its own order. May take
    /// long: for people.
    fn counters(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}

/// The state of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceState {
    /// `true` if the device no longer exists. The gateway does not use another one that has its name.
    pub is_gone: bool,
    /// The kernel's primary name of the device; `None` if the gateway need not follow it.
    pub name: Option<String>,
    /// Largest payload of a frame, in bytes; `None` if the gateway need not follow it.
    pub mtu: Option<usize>,
    /// MAC address; `None` if the gateway need not follow it.
    pub mac: Option<Mac>,
    /// `true` if it has got receive queues that no port serves. What comes by them is lost.
    pub has_unserved_queues: bool,
    /// `true` if it is up: switched on, and its cable carries a signal.
    pub is_up: bool,
    /// Its speed in Mbit/s, if the device knows it.
    pub speed: Option<u32>,
    /// `true` if the link is full duplex; `None` if the device does not know.
    pub full_duplex: Option<bool>,
    /// `true` if frames to other stations' MAC addresses are received as well.
    pub is_promiscuous: bool,
    /// Packets lost before any queue counted them, because a ring was full or no buffer was free.
    pub rx_missed: u64,
    /// Packets that it received but gave to no queue: broken, or longer than it accepts.
    pub rx_errors: u64,
    /// Packets that it took from queues and could not send.
    pub tx_errors: u64,
}
