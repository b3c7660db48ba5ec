//! IKE's part of the configuration.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};
use wayfarer_dataplane::sa::Limits;
use wayfarer_mobility::{
    aaa::radius::question::Realm,
    ike::{
        connection::{self, SharedKey},
        settings::Settings,
    },
};

/// Logged with the folder of the key log, both when the configuration is checked and when the log
/// is opened.
pub(crate) const KEY_LOG_WARNING: &str =
    "IKE writes its keys to this folder: whoever reads them can decrypt all traffic";

/// `[ike]`, `[[pool]]` and `[[connection]]`.
#[derive(Clone, Debug)]
pub struct Ike {
    /// Connections: the peers that may connect, or that the gateway connects to.
    pub connections: Vec<Connection>,
    /// Pools of inner addresses. Connections refer to them by index.
    pub pools: Vec<PoolRange>,
    /// Where RADIUS servers send requests; `None`: nowhere.
    pub coa: Option<Coa>,
    /// The folder in which keys are logged; `None`: no log. Whoever reads the log can decrypt all
    /// traffic.
    pub key_log: Option<PathBuf>,
    /// The file with the secret of crash tokens (RFC 6290); `None`: peers get no tokens.
    pub crash_secret_file: Option<PathBuf>,
    /// Number of half-open IKE SAs from which on a new peer must return a cookie first (RFC 7296
    /// §2.6).
    pub cookie_threshold: usize,
    /// Most half-open IKE SAs.
    pub half_open: usize,
    /// Time that a peer may take to connect. It does not run while a RADIUS server is asked.
    pub half_open_time: Duration,
    /// Most connected peers.
    pub peers: usize,
    /// Most connected peers with the same identity in one connection.
    pub devices: usize,
    /// Most child SAs of all peers together.
    pub children: usize,
}

impl Default for Ike {
    fn default() -> Self {
        let settings = Settings::default();
        Self {
            connections: vec![],
            pools: vec![],
            coa: None,
            key_log: None,
            crash_secret_file: None,
            cookie_threshold: settings.cookie_threshold,
            half_open: settings.half_open_limit,
            half_open_time: settings.half_open,
            peers: settings.peer_limit,
            devices: settings.device_limit,
            children: settings.child_limit,
        }
    }
}

/// The way in which a peer authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerMethod {
    /// By a shared key.
    SharedKey,
    /// By a certificate.
    Certificate,
    /// By a name and password: EAP-MSCHAPv2.
    Password,
    /// By a certificate in EAP-TLS.
    EapTls,
    /// By the EAP method that a RADIUS server chooses.
    Radius,
}

/// `[[connection]]`
#[derive(Clone, Debug)]
pub struct Connection {
    /// The connection as IKE uses it.
    pub protocol: connection::Connection,
    /// The way in which the peer authenticates.
    pub peer_method: PeerMethod,
    /// The file with the gateway's certificate, if it uses one.
    pub certificate: Option<PathBuf>,
    /// True if signatures with SHA-1 are allowed for peers that announce no hashes.
    pub legacy_signatures: bool,
    /// Size of the anti-replay windows of the child SAs, in sequence numbers.
    pub window: u32,
    /// Largest outer packet, in bytes; `None`: the port's MTU.
    pub mtu: Option<usize>,
    /// True if outer packets may be sent in fragments.
    pub outer_fragments: bool,
    /// Limits of the child SAs, for each direction. A soft limit starts a rekey.
    pub limits: Limits,
    /// Our own name for RADIUS servers.
    pub nas_identifier: String,
    /// The addresses from which requests about its peers may come.
    pub servers: Vec<IpAddr>,
    /// How its peers are accounted for.
    pub accounting: Option<Accounting>,
}

/// `[coa]`
#[derive(Clone, Debug)]
pub struct Coa {
    /// The address and the UDP port of the host.
    pub listen: SocketAddr,
    /// The servers that may send requests.
    pub clients: Vec<CoaClient>,
    /// True if a request counts only if it says when it was made (RFC 5176 §6.3).
    pub needs_time: bool,
}

impl PartialEq for Coa {
    fn eq(&self, other: &Self) -> bool {
        let key = |client: &CoaClient| (client.address, client.secret.0.clone());
        (self.listen, self.needs_time) == (other.listen, other.needs_time)
            && self.clients.iter().map(key).eq(other.clients.iter().map(key))
    }
}

/// A RADIUS server that may send requests.
#[derive(Clone, Debug)]
pub struct CoaClient {
    /// Its address.
    pub address: IpAddr,
    /// The secret that it shares with us.
    pub secret: SharedKey,
}

/// RADIUS servers that keep account of peers.
#[derive(Clone, Debug)]
pub struct Accounting {
    /// The servers.
    pub realm: Arc<Realm>,
    /// Time from one interim record to the next, if no server says another.
    pub interval: Option<Duration>,
}

/// `[[pool]]`: a range of inner addresses, including both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRange {
    /// Name.
    pub name: String,
    /// First address.
    pub first: IpAddr,
    /// Last address, of the same family.
    pub last: IpAddr,
}
