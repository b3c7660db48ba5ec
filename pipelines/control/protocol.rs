//! The protocol of the control socket: one JSON object per line, requests and answers in turn.
//!
//! ```text
//! → {"version":1,"command":"show","what":"sa"}
//! ← {"version":1,"result":{"sa":[…]}}
//! → {"version":1,"command":"sa_move","tunnel":"alice","remote":"192.0.2.7","port":4500}
//! ← {"version":1,"result":"done"}
//! ← {"version":1,"error":"there is no tunnel of that name"}
//! ```
//!
//! The version increases only with changes that an old client would misread. New fields and
//! commands do not change it: a client ignores fields that it does not know.

mod home_agent;
mod neighbour;
mod worker;

pub use home_agent::{BindingView, FollowerView, HomeAgentView};
pub use neighbour::NeighbourView;
pub use worker::WorkerView;

use serde::{Deserialize, Serialize};
use std::{net::IpAddr, time::Duration};

/// Version of the protocol.
pub const VERSION: u32 = 1;

/// Most connections at a time.
pub const MOST_CLIENTS: usize = 16;
/// Longest time that a [`Command::PeerMove`] waits for the peer.
pub const MOVE_TIME: Duration = Duration::from_secs(30);

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The command.
    #[serde(flatten)]
    pub command: Command,
}

/// A command to the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// Shows part of the gateway's state.
    Show {
        /// The part to show.
        what: View,
    },
    /// Sends a manually keyed tunnel's traffic to another address from then on.
    SaMove {
        /// Name of the tunnel.
        tunnel: String,
        /// The peer's outer address.
        remote: IpAddr,
        /// The peer's UDP port; `None`: the present one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    },
    /// Ends a peer's IKE SA, and with it its child SAs.
    PeerDown {
        /// The peer's number, its identity or its connection's name.
        peer: String,
        /// Milliseconds for which the peer's identity is refused from now on; its other IKE SAs end
        /// too.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bar_ms: Option<u64>,
    },
    /// Lifts the bar of an identity.
    PeerUnbar {
        /// The identity.
        identity: String,
    },
    /// Rekeys a peer's SAs.
    PeerRekey {
        /// As in [`Command::PeerDown`].
        peer: String,
        /// `true` to rekey the IKE SA instead of its child SAs.
        #[serde(default)]
        ike: bool,
    },
    /// Moves our end of a peer's IKE SA to another address of the gateway (RFC 4555). The answer comes
    /// once the peer has answered, or is given up.
    PeerMove {
        /// As in [`Command::PeerDown`].
        peer: String,
        /// The gateway's address.
        local: IpAddr,
    },
    /// Reads the configuration file again. If it is wrong, or a part has changed that cannot change
    /// while the gateway runs, nothing changes.
    Reload,
}

impl Command {
    /// Returns the longest time until the gateway's slow path answers.
    pub fn patience(&self) -> Duration {
        match self {
            Self::PeerMove { .. } => MOVE_TIME + Duration::from_secs(2),
            _ => Duration::from_secs(2),
        }
    }
}

/// A part of the gateway's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// Tunnels and their SAs.
    Sa,
    /// Ports and their counters.
    Ports,
    /// Neighbours and their MAC addresses.
    Neighbours,
    /// Workers and their counters.
    Workers,
    /// The slow path's counters.
    SlowPath,
    /// Dropped packets by reason.
    Drops,
    /// IKE's peers.
    Peers,
    /// The last peers that did not connect, or got no child SA.
    FailedPeers,
    /// Barred identities.
    Bars,
    /// IKE's counters.
    Ike,
    /// NATs and the inner addresses that use them.
    Nat,
    /// Home agents whose updates move links, and these links.
    HomeAgents,
    /// Where the terminals of the gateway's own home agent are.
    Bindings,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`].
    pub version: u32,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The command was done.
    Result(Reply),
    /// The command was not done, for this reason.
    Error(String),
}

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// For [`View::Sa`].
    Sa(Vec<SaView>),
    /// For [`View::Ports`].
    Ports(Vec<PortView>),
    /// For [`View::Neighbours`], by port and address.
    Neighbours(Vec<NeighbourView>),
    /// For [`View::Workers`].
    Workers(Vec<WorkerView>),
    /// For [`View::SlowPath`].
    SlowPath(Vec<CounterView>),
    /// For [`View::Drops`].
    Drops(Vec<DropView>),
    /// For [`View::Peers`].
    Peers(Vec<PeerView>),
    /// For [`View::FailedPeers`], the newest first.
    FailedPeers(Vec<FailedPeerView>),
    /// For [`View::Bars`].
    Bars(Vec<BarView>),
    /// For [`View::Ike`].
    Ike(Vec<CounterView>),
    /// For [`View::Nat`].
    Nat(Vec<NatView>),
    /// For [`View::HomeAgents`].
    HomeAgents(Vec<HomeAgentView>),
    /// For [`View::Bindings`], by home address.
    Bindings(Vec<BindingView>),
    /// For a command that changes something.
    Done,
}

/// One tunnel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SaView {
    /// Name.
    pub tunnel: String,
    /// `tunnel` or `transport`.
    pub mode: String,
    /// `up`, `waiting` (the peer's address is not known yet) or `expired`.
    pub state: String,
    /// The gateway's outer address.
    pub local: String,
    /// The peer's outer address and port, if known.
    pub remote: Option<String>,
    /// `esp` or `udp`.
    pub encap: Option<String>,
    /// The peer's new address and port, if it was seen there and the gateway does not follow it.
    pub seen: Option<String>,
    /// Longest outer packet that the path takes, in bytes, if that is less than the port's.
    #[serde(default)]
    pub path_mtu: Option<u16>,
    /// Who has found that: `router`, which has reported it, or `probe`.
    #[serde(default)]
    pub path_mtu_source: Option<String>,
    /// How often the peer moved.
    pub moves: u64,
    /// Seconds since the last move.
    pub last_move_s: Option<f64>,
    /// Seconds since the tunnel was installed.
    pub age_s: f64,
    /// The SA of packets from the peer.
    pub inbound: SaCounters,
    /// The SA of packets to the peer.
    pub outbound: SaCounters,
    /// Inbound packets dropped as replays.
    pub replayed: u64,
    /// Inbound packets dropped because their authentication failed.
    pub forged: u64,
    /// Inbound packets dropped because they are outside the tunnel's selectors.
    pub selector: u64,
    /// Number of soft limits that both SAs have reached.
    pub soft_reports: u64,
    /// Number of ends that both SAs have reached: hard limits, and the last sequence number.
    pub hard_reports: u64,
}

/// One SA.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SaCounters {
    /// SPI as hexadecimal text.
    pub spi: String,
    /// Algorithms.
    pub cipher: String,
    /// Highest sequence number, received or sent.
    pub sequence: u64,
    /// Packets.
    pub packets: u64,
    /// Inner bytes.
    pub bytes: u64,
}

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortView {
    /// Name.
    pub port: String,
    /// Kind, and the mode in use.
    pub kind: String,
    /// The name that the device has now; of one that is gone, the name by which the port waits for it.
    /// `None` if there is no device.
    #[serde(default)]
    pub device: Option<String>,
    /// MAC address.
    pub mac: String,
    /// Largest IP packet, in bytes.
    pub mtu: usize,
    /// The MTU of the device, as far as it is this port's, in bytes; `None` if it is not known.
    #[serde(default)]
    pub device_mtu: Option<usize>,
    /// The gateway's addresses.
    pub addresses: Vec<String>,
    /// Number of known neighbours.
    pub neighbours: usize,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets lost before a worker saw them.
    pub rx_missed: u64,
    /// Packets received, but not usable.
    pub rx_errors: u64,
    /// Packets received, but longer than one frame.
    #[serde(default)]
    pub rx_oversize: u64,
    /// Packets received in a VLAN, or in none, that no port of the device has.
    #[serde(default)]
    pub rx_foreign: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets that the device refused to send.
    pub tx_errors: u64,
    /// `up`, `down`, or `gone` if the device is no longer or not yet there. `None` if there is none.
    #[serde(default)]
    pub link: Option<String>,
    /// Speed in Mbit/s, if the device knows it.
    #[serde(default)]
    pub speed_mbps: Option<u32>,
    /// `true` if both ends may send at once; `None` if the device does not know.
    #[serde(default)]
    pub full_duplex: Option<bool>,
    /// `true` if the device also receives frames to other stations' MAC addresses.
    #[serde(default)]
    pub promiscuous: Option<bool>,
    /// The device's own counters (DPDK's "xstats").
    #[serde(default)]
    pub counters: Vec<DeviceCounter>,
}

/// A device's own counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCounter {
    /// The device's name for it.
    pub name: String,
    /// The count.
    pub value: u64,
}

/// One NAT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatView {
    /// The address outside.
    pub address: String,
    /// Name of the port that packets leave by.
    pub port: String,
    /// First and last port outside.
    pub ports: String,
    /// Number of mappings.
    pub mappings: u64,
    /// The most mappings that an inner address may have.
    pub mappings_limit: u32,
    /// Number of ports that are free for TCP.
    pub free_tcp: usize,
    /// Number of ports that are free for UDP.
    pub free_udp: usize,
    /// Number of identifiers that are free for ICMP queries.
    pub free_icmp: usize,
    /// Packets dropped because no port was free.
    pub refused: u64,
    /// The inner addresses that have mappings.
    pub users: Vec<NatUserView>,
}

/// An inner address that has mappings of a NAT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatUserView {
    /// The address.
    pub address: String,
    /// Number of its mappings.
    pub mappings: u32,
    /// Packets dropped because it had as many mappings as it may.
    pub refused: u64,
}

/// The drops for one reason, in all workers and the slow path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DropView {
    /// Name of the reason.
    pub reason: String,
    /// `info`, `warning` or `error`.
    pub severity: String,
    /// Packets.
    pub packets: u64,
    /// The reason in words.
    pub meaning: String,
}

/// A peer that did not connect, or got no child SA.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FailedPeerView {
    /// Seconds since it failed.
    pub age_s: f64,
    /// The peer's address and port.
    pub remote: String,
    /// What the peer called itself, if it got that far.
    pub claimed: Option<String>,
    /// The identity that it proved, if it got that far.
    #[serde(default)]
    pub proved: Option<String>,
    /// Name of its connection, if it got that far.
    pub connection: Option<String>,
    /// How it authenticated or tried to, if it got that far: `psk`, `certificate/ecdsa-sha256`,
    /// `eap-mschapv2`, `eap-radius/peap` and so on.
    #[serde(default)]
    pub method: Option<String>,
    /// Why, in plain words.
    pub reason: String,
}

/// A barred identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BarView {
    /// The identity.
    pub identity: String,
    /// Seconds for which it is refused from now on.
    pub left_s: f64,
}

/// A peer that IKE has connected, or is connecting.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// Number, unique and constant while the peer is connected.
    pub peer: u64,
    /// Name of the peer's connection, once known.
    pub connection: Option<String>,
    /// Identity, once the peer has sent it.
    pub identity: Option<String>,
    /// `up`, `connecting` or `ended`.
    pub state: String,
    /// The gateway's outer address and port.
    pub local: String,
    /// The peer's outer address and port.
    pub remote: String,
    /// The host name by which the gateway found the peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_name: Option<String>,
    /// The side behind a NAT: `none`, `here`, `there` or `both`.
    pub nat: String,
    /// `esp` or `udp`.
    pub encap: String,
    /// Longest outer packet that the path takes, in bytes, if that is less than the port's.
    #[serde(default)]
    pub path_mtu: Option<u16>,
    /// Who has found that: `router`, which has reported it, or `probe`.
    #[serde(default)]
    pub path_mtu_source: Option<String>,
    /// Inner addresses: given to the peer, or received from it.
    pub inner: Vec<String>,
    /// `true` if the addresses may change by MOBIKE (RFC 4555).
    pub mobike: bool,
    /// How often the peer moved.
    pub moves: u64,
    /// Seconds since the last move.
    pub last_move_s: Option<f64>,
    /// How often SAs were rekeyed.
    pub rekeys: u64,
    /// Seconds since the peer began to connect.
    pub age_s: f64,
    /// Algorithms of the IKE SA, once negotiated.
    pub suite: Option<String>,
    /// Child SAs.
    pub children: Vec<ChildView>,
}

/// One tunnel: a pair of child SAs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChildView {
    /// Name of the child in the connection.
    pub name: String,
    /// SPI of packets to the gateway, as hexadecimal text.
    pub spi_in: String,
    /// SPI of packets to the peer.
    pub spi_out: String,
    /// Algorithms.
    pub suite: String,
    /// Selectors of the gateway's side.
    pub local: Vec<String>,
    /// Selectors of the peer's side.
    pub remote: Vec<String>,
    /// Seconds since it was installed.
    pub age_s: f64,
}

/// A counter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CounterView {
    /// Name.
    pub name: String,
    /// How often it happened.
    pub count: u64,
    /// The counted event in words.
    pub meaning: String,
}
