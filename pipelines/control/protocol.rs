//! What is said on the control socket: one JSON object a line, requests and answers in turn.
//!
//! ```text
//! → {"version":1,"command":"show","what":"sa"}
//! ← {"version":1,"result":{"sa":[…]}}
//! → {"version":1,"command":"sa_move","tunnel":"alice","remote":"192.0.2.7","port":4500}
//! ← {"version":1,"result":"done"}
//! ← {"version":1,"error":"there is no tunnel of that name"}
//! ```
//!
//! The version counts changes that an old client would misread. New fields and commands are not
//! such changes: a client ignores fields that it does not know.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The version spoken.
pub const VERSION: u32 = 1;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What is wanted.
    #[serde(flatten)]
    pub command: Command,
}

/// What may be wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Command {
    /// A view of the gateway's state.
    Show {
        /// Which one.
        what: View,
    },
    /// Sends a tunnel's traffic to another address from now on.
    SaMove {
        /// Name of the tunnel.
        tunnel: String,
        /// The peer's outer address.
        remote: IpAddr,
        /// The peer's UDP port; none: as it is now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    },
    /// Ends a peer's IKE SA, and with it its child SAs.
    PeerDown {
        /// Its number, its identity or its connection's name.
        peer: String,
    },
    /// Changes a peer's keys.
    PeerRekey {
        /// As of [`Command::PeerDown`].
        peer: String,
        /// Those of the IKE SA; else those of its child SAs.
        #[serde(default)]
        ike: bool,
    },
    /// Reaches a peer from another address of ours from now on (RFC 4555).
    PeerMove {
        /// As of [`Command::PeerDown`].
        peer: String,
        /// Our address.
        local: IpAddr,
    },
}

/// A view of the gateway's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// Tunnels and their SAs.
    Sa,
    /// Ports and what they count.
    Ports,
    /// Workers and what they count.
    Workers,
    /// Dropped packets by reason.
    Drops,
    /// Peers connected by IKE.
    Peers,
    /// What IKE counts.
    Ike,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`].
    pub version: u32,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Result(Reply),
    /// It was not, and why.
    Error(String),
}

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Of [`View::Sa`].
    Sa(Vec<SaView>),
    /// Of [`View::Ports`].
    Ports(Vec<PortView>),
    /// Of [`View::Workers`].
    Workers(Vec<WorkerView>),
    /// Of [`View::Drops`].
    Drops(Vec<DropView>),
    /// Of [`View::Peers`].
    Peers(Vec<PeerView>),
    /// Of [`View::Ike`].
    Ike(Vec<CounterView>),
    /// Of a command that changes something.
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
    /// The peer's outer address and port, as far as known.
    pub remote: Option<String>,
    /// `esp` or `udp`.
    pub encap: Option<String>,
    /// Where the peer was seen and not followed.
    pub seen: Option<String>,
    /// Times that the peer moved.
    pub moves: u64,
    /// Seconds since the last move.
    pub last_move_s: Option<f64>,
    /// Seconds since the tunnel was installed.
    pub age_s: f64,
    /// From the peer.
    pub inbound: SaCounters,
    /// To the peer.
    pub outbound: SaCounters,
    /// Inbound packets refused as replays.
    pub replayed: u64,
    /// Inbound packets refused as forged.
    pub forged: u64,
    /// Inbound packets outside the selectors.
    pub selector: u64,
    /// Soft lifetimes reached so far, of both SAs.
    pub soft_reports: u64,
    /// Ends reached so far, of both SAs: hard lifetimes, the last sequence number.
    pub hard_reports: u64,
}

/// One SA.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SaCounters {
    /// SPI as hexadecimal text.
    pub spi: String,
    /// Algorithms.
    pub cipher: String,
    /// Highest sequence number received or sent.
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
    /// Kind and mode taken.
    pub kind: String,
    /// MAC address.
    pub mac: String,
    /// Largest IP packet.
    pub mtu: usize,
    /// The gateway's addresses.
    pub addresses: Vec<String>,
    /// Neighbours known.
    pub neighbours: usize,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Lost before a worker saw them.
    pub rx_missed: u64,
    /// Received but not usable.
    pub rx_errors: u64,
    /// Received but longer than one frame.
    #[serde(default)]
    pub rx_oversize: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Refused by the device.
    pub tx_errors: u64,
    /// `up`, `down`, or `gone`: the device is no longer there, or another one has its name. None
    /// if there is no device.
    #[serde(default)]
    pub link: Option<String>,
    /// The device's speed in Mbit/s, if it knows it.
    #[serde(default)]
    pub speed_mbps: Option<u32>,
    /// Whether both ends may send at once, if the device knows it.
    #[serde(default)]
    pub full_duplex: Option<bool>,
    /// Whether frames to other stations' MAC addresses are received as well.
    #[serde(default)]
    pub promiscuous: Option<bool>,
    /// What else the device counts (DPDK's "xstats").
    #[serde(default)]
    pub counters: Vec<DeviceCounter>,
}

/// A device's own counter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCounter {
    /// Its name, as the device has it.
    pub name: String,
    /// What it stands at.
    pub value: u64,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Number.
    pub worker: usize,
    /// Core that it is pinned to.
    pub core: Option<usize>,
    /// Packets received from ports.
    pub received: u64,
    /// ESP packets opened.
    pub opened: u64,
    /// Inner bytes of those.
    pub opened_bytes: u64,
    /// Packets sealed.
    pub sealed: u64,
    /// Inner bytes of those.
    pub sealed_bytes: u64,
    /// Packets handed to ports.
    pub sent: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Frames handed to the slow path.
    pub punted: u64,
    /// Frames taken from the slow path.
    pub injected: u64,
    /// Turns of the poll loop.
    pub turns: u64,
    /// Turns in which nothing came.
    pub idle_turns: u64,
    /// Processor time in seconds.
    pub cpu_s: f64,
    /// Frames free in its pool.
    pub free_frames: u64,
    /// How often it failed, lost the packets that it had in hand, and went on: a mistake in this
    /// program, to be reported.
    #[serde(default)]
    pub faults: u64,
}

/// Drops for one reason, of all workers and the slow path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DropView {
    /// Name of the reason.
    pub reason: String,
    /// `info`, `warning` or `error`.
    pub severity: String,
    /// Packets.
    pub packets: u64,
    /// What it means.
    pub meaning: String,
}

/// One peer that is, or is being, connected by IKE.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// Number: the same for as long as it is connected.
    pub peer: u64,
    /// Name of its connection, once that is known.
    pub connection: Option<String>,
    /// Who it is, once it has said so.
    pub identity: Option<String>,
    /// `up`, `connecting` or `ended`.
    pub state: String,
    /// The gateway's outer address and port.
    pub local: String,
    /// The peer's outer address and port.
    pub remote: String,
    /// Who is behind a NAT: `none`, `here`, `there` or `both`.
    pub nat: String,
    /// `esp` or `udp`.
    pub encap: String,
    /// Inner addresses that it has, or that we have from it.
    pub inner: Vec<String>,
    /// Whether its addresses may change (RFC 4555).
    pub mobike: bool,
    /// Times that it moved.
    pub moves: u64,
    /// Seconds since the last move.
    pub last_move_s: Option<f64>,
    /// Times that keys were changed.
    pub rekeys: u64,
    /// Seconds since it began to connect.
    pub age_s: f64,
    /// Algorithms of the IKE SA, once they are agreed on.
    pub suite: Option<String>,
    /// Its child SAs.
    pub children: Vec<ChildView>,
}

/// One tunnel: a pair of child SAs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChildView {
    /// Name of the connection's child.
    pub name: String,
    /// SPI of packets to us, as hexadecimal text.
    pub spi_in: String,
    /// SPI of packets to the peer.
    pub spi_out: String,
    /// Algorithms.
    pub suite: String,
    /// Our side.
    pub local: Vec<String>,
    /// The peer's side.
    pub remote: Vec<String>,
    /// Seconds since it was installed.
    pub age_s: f64,
}

/// Something that is counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CounterView {
    /// Its name.
    pub name: String,
    /// How often it happened.
    pub count: u64,
    /// What it means.
    pub meaning: String,
}
