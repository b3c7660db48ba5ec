//! The options of a run.

use std::{net::Ipv4Addr, time::Duration};
use wayfarer_dataplane::port::{Mac, open::Kind};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device that frames go out by.
    pub port: String,
    /// The device that they come back by; `None`: the same.
    pub peer_port: Option<String>,
    /// How devices are opened.
    pub kind: Kind,
    /// Sizes of frames, with their check sequence (RFC 2544 §9), each in [`Options::SIZES`].
    pub sizes: Vec<u16>,
    /// How long one trial sends.
    pub duration: Duration,
    /// Frames a second to begin with; `None`: as many as can be sent.
    pub max_rate: Option<u32>,
    /// How close the search comes, as a part of the rate.
    pub resolution: f64,
    /// The part of the frames that may be lost.
    pub loss: f64,
    /// MAC address that frames go to; `None`: that of the peer port, as for a cable.
    pub dst_mac: Option<Mac>,
    /// Source and destination of the packets; the destination must not be this host's own.
    pub addresses: (Ipv4Addr, Ipv4Addr),
}

impl Options {
    /// Possible sizes of frames.
    pub const SIZES: std::ops::RangeInclusive<u16> = 64..=9018;
}
