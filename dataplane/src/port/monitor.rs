//! What a device says of itself besides what its queues count.

use std::fmt;

/// The slow path's view of an open device.
pub trait Monitor: Send + fmt::Debug {
    /// Returns how it is at this moment. Takes system calls or reads registers: for people and for
    /// once a second.
    fn state(&self) -> DeviceState;

    /// Returns what else it counts, by its own names, in its own order. May take long: for people.
    fn counters(&self) -> Vec<(String, u64)> {
        Vec::new()
    }
}

/// How a device is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceState {
    /// Whether the device is no longer there, or another one has its name now: the gateway has no
    /// part of that one.
    pub is_gone: bool,
    /// Whether it is up: switched on, and its cable carries a signal.
    pub is_up: bool,
    /// Its speed in Mbit/s, if the device knows it.
    pub speed: Option<u32>,
    /// Whether both ends may send at once, if the device knows it.
    pub full_duplex: Option<bool>,
    /// Whether frames to other stations' MAC addresses are received as well.
    pub is_promiscuous: bool,
    /// Packets lost before any queue counted them: a ring full or no free buffer.
    pub rx_missed: u64,
    /// Packets that it received and that no queue saw: broken, or longer than it takes.
    pub rx_errors: u64,
    /// Packets that it took from queues and could not send.
    pub tx_errors: u64,
}
