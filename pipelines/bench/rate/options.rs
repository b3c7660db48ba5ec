//! The options of a run.

use std::{net::Ipv4Addr, time::Duration};
use wayfarer_dataplane::port::{Mac, open::Kind};

/// The devices and frames to measure with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device that frames are sent by.
    pub port: String,
    /// The device that frames come back by; `None` for the same.
    pub peer_port: Option<String>,
    /// The way to open the devices.
    pub kind: Kind,
    /// Sizes of frames, with their check sequence (RFC 2544 §9), each in [`Options::SIZES`].
    pub sizes: Vec<u16>,
    /// How long one trial sends frames.
    pub duration: Duration,
    /// Frames per second to begin with; `None` for as many as can be sent.
    pub max_rate: Option<u32>,
    /// The search's precision, as a fraction of the rate.
    pub resolution: f64,
    /// The fraction of the frames that may be lost.
    pub loss: f64,
    /// The destination MAC address; `None` for that of the peer port, as for a cable.
    pub dst_mac: Option<Mac>,
    /// Source and destination of the packets; the destination must not be this host's own.
    pub addresses: (Ipv4Addr, Ipv4Addr),
}

impl Options {
    /// Valid sizes of frames.
    pub const SIZES: std::ops::RangeInclusive<u16> = 64..=9018;
}
