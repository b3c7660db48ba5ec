//! A configuration as the gateway uses it: parsed, checked, with every default filled in.

mod ike;

pub use ike::{Connection, Ike, PoolRange};
pub use wayfarer_mobility::roaming::Policy as Roam;

use std::{net::IpAddr, path::PathBuf, time::Duration};
use wayfarer_dataplane::{
    crypto::Suite,
    port::{Mac, dpdk},
    sa::{Df, Limits, Mode, Selector, Spi},
    table::Prefix,
};
use zeroize::Zeroizing;

/// Cores that DPDK can name, from 0 on (`RTE_MAX_LCORE`).
pub const DPDK_CORES: usize = 128;

/// One gateway.
#[derive(Debug)]
pub struct Config {
    /// What holds for the whole gateway.
    pub gateway: Gateway,
    /// Its ports, at least one.
    pub ports: Vec<Port>,
    /// How DPDK starts, where a port is its; the cores are those of the workers where they are told, else none.
    pub dpdk: Option<dpdk::Options>,
    /// Next hops by hand.
    pub routes: Vec<Route>,
    /// Tunnels with keys by hand.
    pub tunnels: Vec<Tunnel>,
    /// What happens to traffic outside tunnels; nothing listed here is discarded.
    pub policies: Vec<Policy>,
    /// Tunnels with keys by IKE.
    pub ike: Ike,
}

/// `[gateway]`
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Cores to run workers on; `None`: all but the first, as far as the ports have queues.
    pub workers: Option<Vec<usize>>,
    /// The control socket; `None`: none.
    pub control: Option<PathBuf>,
    /// How long an idle worker may sleep between polls; `None`: it never sleeps.
    pub idle_sleep: Option<Duration>,
    /// UDP ports on which ESP is taken (RFC 3948).
    pub encap_ports: Vec<u16>,
    /// Whether kernel routes are followed beside those of the configuration.
    pub kernel_routes: bool,
    /// Whether the MSS of TCP connections is lowered to fit their tunnel.
    pub mss_clamp: bool,
    /// Frames of a worker's pool.
    pub frames: usize,
    /// Bytes of a frame.
    pub frame_size: usize,
    /// Tunnels that the tables are laid out for.
    pub tunnels: usize,
}

/// `[[port]]`
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name in this configuration.
    pub name: String,
    /// What it is.
    pub kind: PortKind,
    /// The gateway's own addresses on it, each with its subnet.
    pub addresses: Vec<(IpAddr, Prefix)>,
    /// Largest IP packet in bytes; `None`: the device's.
    pub mtu: Option<usize>,
    /// MAC address; `None`: the device's, or one made from the name.
    pub mac: Option<Mac>,
    /// Whether files stand for the host's own stack.
    pub is_host: bool,
}

/// What a port is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// The best of `AfXdp` and `AfPacket` that the device allows; `AfPacket` beside `Dpdk`.
    Auto {
        /// Name of the network device.
        device: String,
    },
    /// AF_XDP.
    AfXdp {
        /// Name of the network device.
        device: String,
    },
    /// AF_PACKET.
    AfPacket {
        /// Name of the network device.
        device: String,
    },
    /// A NIC by DPDK.
    Dpdk {
        /// Its name for DPDK: a PCI address with its domain, or the driver and number of a virtual device.
        device: String,
        /// Whether frames to other stations' MAC addresses are received as well.
        promiscuous: bool,
        /// Where what is not the gateway's goes to the kernel; `None`: nowhere.
        exception: Option<Exception>,
    },
    /// A TAP device: the host's own stack is at its other end.
    Tap {
        /// Name of the device to create.
        device: String,
    },
    /// Files.
    Pcap {
        /// Where packets come from.
        input: Option<PathBuf>,
        /// Where packets go.
        output: Option<PathBuf>,
    },
    /// Replays a file as fast as it is asked, and counts and frees what it is sent.
    Generator {
        /// The packets to replay.
        input: PathBuf,
        /// How many to send in all; `None`: without end.
        count: Option<u64>,
    },
    /// Sends nothing; counts and frees what it is sent.
    Sink,
}

impl PortKind {
    /// Returns the device that the port shares with the kernel, by the name that it is configured by.
    pub(crate) fn shared_device(&self) -> Option<&str> {
        match self {
            Self::Auto { device } | Self::AfXdp { device } | Self::AfPacket { device } => Some(device),
            _ => None,
        }
    }
}

/// The way between a DPDK port and the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Name of the TAP device to create.
    pub device: String,
    /// Frames a second to the kernel, all workers together: as many of the segment's own (ARP and the like), and as many for the host. Each worker
    /// has an equal share, at least one a second, and bursts of 32 beside it.
    pub rate: u32,
}

/// `[[route]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destinations.
    pub to: Prefix,
    /// The next router; `None`: the destination itself is on the segment.
    pub via: Option<IpAddr>,
    /// Index of the port in [`Config::ports`].
    pub port: usize,
}

/// Where a peer is to begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remote {
    /// Wherever it shows up.
    Any,
    /// At an address; with UDP, at this port of it.
    At(IpAddr, u16),
}

/// What ESP travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// IP itself.
    None,
    /// UDP, from this port of ours.
    Udp(u16),
}

/// `[[tunnel]]`: a pair of SAs with keys by hand.
#[derive(Debug)]
pub struct Tunnel {
    /// Its name.
    pub name: String,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// The gateway's outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub remote: Remote,
    /// What ESP travels in as long as the peer has not shown otherwise.
    pub encap: Encapsulation,
    /// What the tunnel carries.
    pub selectors: Vec<Selector>,
    /// What happens when the peer moves.
    pub roam: Roam,
    /// Whether packets from other addresses than `remote` are refused.
    pub pin_source: bool,
    /// Sequence numbers in the anti-replay window.
    pub window: u32,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Outer DSCP; `None`: the inner one.
    pub dscp: Option<u8>,
    /// Outer DF bit.
    pub df: Df,
    /// Inner packets are padded to this length; 0: not at all.
    pub tfc: usize,
    /// Largest outer packet; `None`: the port's MTU.
    pub mtu: Option<usize>,
    /// Whether UDP over IPv6 carries a checksum.
    pub udp6_checksum: bool,
    /// How often a NAT keepalive is sent; `None`: never.
    pub keepalive: Option<Duration>,
    /// Limits in packets and bytes, for each direction.
    pub limits: Limits,
    /// After how long the slow path reports the SAs' age.
    pub soft_time: Option<Duration>,
    /// After how long the SAs carry nothing any more.
    pub hard_time: Option<Duration>,
    /// The SA of packets from the peer.
    pub inbound: Sa,
    /// The SA of packets to the peer.
    pub outbound: Sa,
}

/// One SA of a tunnel.
pub struct Sa {
    /// Its SPI.
    pub spi: Spi,
    /// Its algorithms.
    pub cipher: Suite,
    /// Keying material, [`Suite::key_len`] bytes.
    pub key: Zeroizing<Vec<u8>>,
    /// The last sequence number already used with this key; 0 for a new one. A gateway that starts again with a key
    /// given by hand goes on behind it, and takes nothing up to it.
    pub sequence: u64,
}

impl std::fmt::Debug for Sa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sa {{ spi: {}, cipher: {}, key: … }}", self.spi, self.cipher)
    }
}

/// What a policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyAction {
    /// Forwards in clear.
    Bypass,
    /// Drops.
    Discard,
}

/// One direction of a `[[policy]]`.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What it covers: packets from `local` to `remote`.
    pub selector: Selector,
    /// What it does.
    pub action: PolicyAction,
}
