//! A configuration as the gateway uses it: parsed, checked, and completed with defaults.

mod home_agent;
mod ike;

pub use home_agent::{HomeAgent, HomeTerminal};
pub(crate) use ike::KEY_LOG_WARNING;
pub use ike::{Accounting, Coa, CoaClient, Connection, Ike, PeerMethod, PoolRange};
pub use wayfarer_mobility::{mip::siu::SharedKey, path_mtu::PathProbing, roaming::Policy as Roam};

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};
use wayfarer_dataplane::{
    crypto::Suite,
    port::{Mac, dpdk, vlan::Tagging},
    sa::{Df, Limits, Mode, Selector, Spi},
    table::Prefix,
};
use zeroize::Zeroizing;

/// Number of cores that DPDK can name (`RTE_MAX_LCORE`).
pub const DPDK_CORES: usize = 128;

/// One gateway.
#[derive(Debug)]
pub struct Config {
    /// Settings of the whole gateway.
    pub gateway: Gateway,
    /// Ports, at least one.
    pub ports: Vec<Port>,
    /// Options of DPDK, if it has a port. The cores are the workers' cores if these are configured,
    /// else none.
    pub dpdk: Option<dpdk::Options>,
    /// Static routes.
    pub routes: Vec<Route>,
    /// Static neighbours, at most one for each address of a port.
    pub neighbours: Vec<Neighbour>,
    /// Address translation of what leaves in clear.
    pub nats: Vec<Nat>,
    /// The gateway's own home agent, if it is one.
    pub home_agent: Option<HomeAgent>,
    /// The home agents whose updates move links.
    pub siu: Vec<Siu>,
    /// Tunnels with manual keys.
    pub tunnels: Vec<Tunnel>,
    /// Policies for traffic outside tunnels. Traffic that no policy names is discarded.
    pub policies: Vec<Policy>,
    /// IKE's connections and their settings.
    pub ike: Ike,
}

/// `[gateway]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Cores of the workers; `None`: all but the first, up to the number of queues of the ports.
    pub workers: Option<Vec<usize>>,
    /// Path of the control socket; `None`: no socket.
    pub control: Option<PathBuf>,
    /// Longest sleep of an idle worker between polls; `None`: it never sleeps.
    pub idle_sleep: Option<Duration>,
    /// UDP ports that receive ESP in UDP (RFC 3948).
    pub encap_ports: Vec<u16>,
    /// UDP port that receives security information updates.
    pub siu_port: u16,
    /// `true` if the kernel's routes are used besides those of the configuration.
    pub kernel_routes: bool,
    /// `true` if the MSS of TCP connections is lowered to fit their tunnel.
    pub mss_clamp: bool,
    /// Number of frames in each worker's pool.
    pub frames: usize,
    /// Bytes of a frame; `None`: as many as packets of the ports' and their devices' MTUs need.
    pub frame_size: Option<usize>,
    /// Number of tunnels for which the tables have room.
    pub tunnels: usize,
    /// Number of flows that each worker remembers: a power of two; 0: none.
    pub flow_cache: usize,
}

impl Gateway {
    /// Returns how many flows a worker remembers if it is to remember `entries`.
    pub fn flow_cache_of(entries: usize) -> usize {
        if entries == 0 { 0 } else { entries.next_power_of_two().max(4) }
    }

    /// Returns how many flows a worker remembers unless the configuration says otherwise: two for each of
    /// so many tunnels, within what caches and memory bear.
    pub fn default_flow_cache(tunnels: usize) -> usize {
        (2 * tunnels).next_power_of_two().clamp(1 << 14, 1 << 18)
    }
}

/// `[[port]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Name in this configuration.
    pub name: String,
    /// Kind, with its settings.
    pub kind: PortKind,
    /// The VLAN that the port is in, and its marks; `None`: it is in none.
    pub tagging: Option<Tagging>,
    /// The gateway's addresses on this port, each with its subnet.
    pub addresses: Vec<(IpAddr, Prefix)>,
    /// Largest IP packet, in bytes; `None`: the device's.
    pub mtu: Option<usize>,
    /// MAC address; `None`: the device's, or one derived from the name.
    pub mac: Option<Mac>,
    /// `true` if the port's files stand for the host's own network stack.
    pub is_host: bool,
    /// `true` if the device may be missing, or down, when the gateway starts.
    pub is_optional: bool,
}

impl Port {
    /// Returns whether both ports are on one device: a network device, or the same files if a port is in
    /// a VLAN.
    pub fn shares_device(&self, other: &Self) -> bool {
        match (self.kind.device(), other.kind.device()) {
            (Some(own), Some(device)) => own == device,
            (None, None) => {
                let has_vlan = self.tagging.is_some() || other.tagging.is_some();
                has_vlan && self.kind == other.kind && self.kind != PortKind::Sink
            }
            _ => false,
        }
    }
}

/// The kind of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// The best of `AfXdp` and `AfPacket` that the device supports; `AfPacket` if there are `Dpdk`
    /// ports.
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
    /// A NIC of DPDK.
    Dpdk {
        /// DPDK's name of the device: a PCI address with its domain, or the driver and number of a
        /// virtual device.
        device: String,
        /// `true` if the device also receives frames to other stations' MAC addresses.
        promiscuous: bool,
        /// The exception path, by which packets that are not the gateway's go to the kernel;
        /// `None`: there is none.
        exception: Option<Exception>,
    },
    /// A TAP device, with the host's own network stack at its other end.
    Tap {
        /// Name of the device to create.
        device: String,
    },
    /// Files.
    Pcap {
        /// Path of the packets to receive.
        input: Option<PathBuf>,
        /// Path for the packets sent.
        output: Option<PathBuf>,
    },
    /// Replays a file at the speed of the receiver. Counts and frees packets sent to it.
    Generator {
        /// Path of the packets to replay.
        input: PathBuf,
        /// Number of packets to send in all; `None`: no end.
        count: Option<u64>,
    },
    /// Sends nothing. Counts and frees packets sent to it.
    Sink,
}

impl PortKind {
    /// Returns the configured name of the port's device, if it has one.
    pub(crate) fn device(&self) -> Option<&str> {
        match self {
            Self::Tap { device } | Self::Dpdk { device, .. } => Some(device),
            _ => self.shared_device(),
        }
    }

    /// Returns the configured name of the device that the port shares with the kernel.
    pub(crate) fn shared_device(&self) -> Option<&str> {
        match self {
            Self::Auto { device } | Self::AfXdp { device } | Self::AfPacket { device } => Some(device),
            _ => None,
        }
    }
}

/// The path between a DPDK port and the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Name of the TAP device to create.
    pub device: String,
    /// Frames per second to the kernel, over all workers: this many of the segment's own protocols
    /// (such as ARP), and this many for the host. Each worker has an equal share of at least one
    /// per second, and may send bursts of 32 beyond it.
    pub rate: u32,
}

/// `[[route]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Destinations of the route.
    pub to: Prefix,
    /// Next hop; `None`: the destinations are on the port's segment.
    pub via: Option<IpAddr>,
    /// Index of the port in [`Config::ports`].
    pub port: usize,
}

/// `[[neighbour]]`: a station that the gateway need not ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Index in [`Config::ports`] of the port that the station is at.
    pub port: usize,
    /// The station's address.
    pub address: IpAddr,
    /// The station's MAC address.
    pub mac: Mac,
}

/// `[[nat]]`: translation of packets from inner hosts that leave in clear by a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nat {
    /// Sources that are translated.
    pub inside: Vec<Prefix>,
    /// Index in [`Config::ports`] of the port that they leave by.
    pub port: usize,
    /// The address outside, one of that port.
    pub address: Ipv4Addr,
    /// The ports outside, and identifiers of ICMP queries.
    pub ports: RangeInclusive<u16>,
    /// The most mappings of one inner address.
    pub mappings: u32,
    /// Time after which an idle mapping of UDP ends.
    pub udp_timeout: Duration,
    /// The same for an established connection of TCP.
    pub tcp_timeout: Duration,
    /// The same for a connection of TCP that is opening or closed.
    pub tcp_transitory_timeout: Duration,
    /// The same for ICMP queries.
    pub icmp_timeout: Duration,
}

/// The peer's address at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remote {
    /// Unknown until the peer sends.
    Any,
    /// An address, and the port if ESP is in UDP.
    At(IpAddr, u16),
}

/// The encapsulation of ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// ESP directly in IP.
    None,
    /// ESP in UDP, from this port of the gateway.
    Udp(u16),
}

/// `[[tunnel]]`: a pair of SAs with manual keys.
#[derive(Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Name.
    pub name: String,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// The gateway's outer address.
    pub local: IpAddr,
    /// The peer's outer address.
    pub remote: Remote,
    /// Encapsulation until the peer uses another one.
    pub encap: Encapsulation,
    /// Traffic that the tunnel carries.
    pub selectors: Vec<Selector>,
    /// The reaction to a move of the peer.
    pub roam: Roam,
    /// Which home agent says where the peer is, with [`Roam::HomeAgent`].
    pub home: Option<Home>,
    /// `true` if packets from addresses other than `remote` are dropped.
    pub pin_source: bool,
    /// Sequence numbers in the anti-replay window.
    pub window: u32,
    /// `true` if extended sequence numbers are used.
    pub esn: bool,
    /// Outer DSCP; `None`: copied from the inner packet.
    pub dscp: Option<u8>,
    /// Outer DF bit.
    pub df: Df,
    /// Length to which inner packets are padded, in bytes; 0: no padding.
    pub tfc: usize,
    /// Largest outer packet, in bytes; `None`: the port's MTU.
    pub mtu: Option<usize>,
    /// `true` if outer packets may be sent in fragments.
    pub outer_fragments: bool,
    /// When the MTU of the path is looked for by probes.
    pub path_probing: PathProbing,
    /// `true` if UDP over IPv6 carries a checksum.
    pub udp6_checksum: bool,
    /// Interval of NAT keepalives; `None`: none are sent.
    pub keepalive: Option<Duration>,
    /// Limits in packets and bytes, for each direction.
    pub limits: Limits,
    /// Age at which the slow path reports the SAs.
    pub soft_time: Option<Duration>,
    /// Age at which the SAs end.
    pub hard_time: Option<Duration>,
    /// The SA of packets from the peer.
    pub inbound: Sa,
    /// The SA of packets to the peer.
    pub outbound: Sa,
}

/// A home agent whose updates move links.
#[derive(Clone, Debug)]
pub struct Siu {
    /// Name.
    pub name: String,
    /// The address that its updates come from.
    pub address: IpAddr,
    /// The key that it shares with the gateway.
    pub key: SharedKey,
}

impl PartialEq for Siu {
    fn eq(&self, other: &Self) -> bool {
        let parts = |one: &Self| (one.name.clone(), one.address, one.key.number);
        parts(self) == parts(other) && self.key.secret == other.key.secret
    }
}

/// What a link follows that moves when a home agent says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The home agent's address.
    pub agent: IpAddr,
    /// The peer's home address.
    pub address: IpAddr,
}

/// One SA of a tunnel.
#[derive(PartialEq, Eq)]
pub struct Sa {
    /// SPI.
    pub spi: Spi,
    /// Algorithms.
    pub cipher: Suite,
    /// Keying material, [`Suite::key_len`] bytes.
    pub key: Zeroizing<Vec<u8>>,
    /// The last sequence number already used with this key; 0 for a new key. A gateway that
    /// restarts with a manual key sends higher numbers only, and accepts higher numbers only.
    pub sequence: u64,
}

impl std::fmt::Debug for Sa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sa {{ spi: {}, cipher: {}, key: … }}", self.spi, self.cipher)
    }
}

/// The action of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyAction {
    /// Forwards packets in clear.
    Bypass,
    /// Drops packets.
    Discard,
}

/// One direction of a `[[policy]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The traffic that the policy covers: packets from `local` to `remote`.
    pub selector: Selector,
    /// The action.
    pub action: PolicyAction,
}
