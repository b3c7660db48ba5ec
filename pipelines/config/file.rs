//! The keys of a configuration file, as TOML gives them. Types are right, and nothing else is
//! checked. Every value has its place in the text.

mod field;
mod home_agent;
mod ike;

pub(super) use field::{Key, List, Mode, Numbers, PathProbing, Roam, Scalar};
pub(super) use home_agent::{Authenticator, Encapsulation, HomeAgent, HomeTerminal, Replay, ReverseTunnel};
pub(super) use ike::{
    Auth, Coa, CoaClient, Connection, CrlPolicy, Encap as IkeEncap, Ike, Method, Pool, Radius, Revocation,
};

use serde::Deserialize;
use toml::Spanned;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub gateway: Gateway,
    pub dpdk: Key<Dpdk>,
    #[serde(default)]
    pub port: Vec<Spanned<Port>>,
    #[serde(default)]
    pub route: Vec<Spanned<Route>>,
    #[serde(default)]
    pub neighbour: Vec<Spanned<Neighbour>>,
    #[serde(default)]
    pub nat: Vec<Spanned<Nat>>,
    pub home_agent: Key<HomeAgent>,
    #[serde(default)]
    pub siu: Vec<Spanned<Siu>>,
    #[serde(default)]
    pub tunnel: Vec<Spanned<Tunnel>>,
    #[serde(default)]
    pub policy: Vec<Spanned<Policy>>,
    #[serde(default)]
    pub ike: Ike,
    pub coa: Key<Coa>,
    #[serde(default)]
    pub pool: Vec<Spanned<Pool>>,
    #[serde(default)]
    pub connection: Vec<Spanned<Connection>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gateway {
    pub workers: Key<Vec<i64>>,
    pub control: Key<String>,
    pub idle: Key<String>,
    pub encap_ports: Key<Vec<i64>>,
    pub siu_port: Key<i64>,
    pub routes: Key<RouteSource>,
    pub mss_clamp: Option<bool>,
    pub frames: Key<i64>,
    pub frame_size: Key<Scalar>,
    pub tunnels: Key<i64>,
    pub flow_cache: Key<i64>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RouteSource {
    Config,
    Kernel,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Dpdk {
    pub cores: Key<Vec<i64>>,
    pub memory: Key<Scalar>,
    pub hugepages: Option<bool>,
    pub allow: Key<Vec<String>>,
    pub vdev: Key<Vec<String>>,
    pub options: Key<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub name: Spanned<String>,
    pub kind: Key<Kind>,
    pub device: Key<String>,
    pub vlan: Key<Numbers>,
    pub pcp: Key<Scalar>,
    pub dscp: Key<PortDscp>,
    pub input: Key<String>,
    pub output: Key<String>,
    pub host: Key<bool>,
    pub count: Key<i64>,
    pub addresses: Key<List>,
    pub mtu: Key<Scalar>,
    pub mac: Key<String>,
    pub promiscuous: Key<bool>,
    pub exception: Key<String>,
    pub exception_rate: Key<i64>,
    pub optional: Key<bool>,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PortDscp {
    Keep,
    Pcp,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Auto,
    AfXdp,
    AfPacket,
    Dpdk,
    Tap,
    Pcap,
    Generator,
    Sink,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub to: Spanned<String>,
    pub via: Key<String>,
    pub port: Key<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Neighbour {
    pub address: Spanned<String>,
    pub mac: Spanned<String>,
    pub port: Key<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nat {
    pub inside: Spanned<List>,
    pub port: Spanned<String>,
    pub address: Key<String>,
    pub ports: Key<Scalar>,
    pub mappings: Key<i64>,
    pub udp_timeout: Key<String>,
    pub tcp_timeout: Key<String>,
    pub tcp_transitory_timeout: Key<String>,
    pub icmp_timeout: Key<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Siu {
    pub name: Spanned<String>,
    pub address: Spanned<String>,
    pub key: Spanned<i64>,
    pub secret_file: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tunnel {
    pub name: Spanned<String>,
    pub mode: Key<Mode>,
    pub local: Spanned<String>,
    pub remote: Spanned<String>,
    pub encap: Key<Encap>,
    pub local_port: Key<i64>,
    pub inner_local: Key<List>,
    pub inner_remote: Key<List>,
    pub protocol: Key<Scalar>,
    pub local_ports: Key<Scalar>,
    pub remote_ports: Key<Scalar>,
    pub roam: Key<Roam>,
    pub siu: Key<String>,
    pub home: Key<String>,
    pub pin_source: Key<bool>,
    pub window: Key<i64>,
    pub esn: Option<bool>,
    pub dscp: Key<Scalar>,
    pub df: Key<Df>,
    pub tfc: Key<Scalar>,
    pub mtu: Key<Scalar>,
    pub outer_fragments: Option<bool>,
    pub path_mtu_probing: Option<PathProbing>,
    pub udp6_checksum: Option<bool>,
    pub keepalive: Key<String>,
    #[serde(default)]
    pub lifetime: Lifetime,
    pub inbound: Sa,
    pub outbound: Sa,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Encap {
    None,
    Udp,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Df {
    Copy,
    Set,
    Clear,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lifetime {
    pub soft_packets: Key<Scalar>,
    pub hard_packets: Key<Scalar>,
    pub soft_bytes: Key<Scalar>,
    pub hard_bytes: Key<Scalar>,
    pub soft_time: Key<String>,
    pub hard_time: Key<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sa {
    pub spi: Spanned<i64>,
    pub cipher: Spanned<String>,
    pub key_file: Spanned<String>,
    pub sequence: Key<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub action: Action,
    pub local: Key<List>,
    pub remote: Key<List>,
    pub protocol: Key<Scalar>,
    pub ports: Key<Scalar>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Action {
    Bypass,
    Discard,
}
