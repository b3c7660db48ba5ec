//! What a conversation wants another server to be asked, and what that answers.

use super::packet::Code;
use crate::crypto::Secret;
use alloc::{string::String, sync::Arc, vec::Vec};
use core::{
    fmt,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// A RADIUS server.
#[derive(Clone)]
pub struct Server {
    /// Where it answers; its port mostly is 1812.
    pub address: SocketAddr,
    /// What it shares with us.
    pub secret: Secret,
    /// How often a request is sent to it.
    pub tries: u32,
    /// How long an answer is waited for, each time.
    pub patience: Duration,
    /// Whether it makes sure that the name that a peer begins with is the peer's own, by whatever
    /// method.
    pub trust_identity: bool,
}

impl Server {
    /// Three tries before it is given up.
    pub const TRIES: u32 = 3;
    /// Two seconds for each.
    pub const PATIENCE: Duration = Duration::from_secs(2);

    /// Tried as often and as long as above, and not trusted to check the name that a peer begins
    /// with.
    pub fn new(address: SocketAddr, secret: Secret) -> Self {
        Self { address, secret, tries: Self::TRIES, patience: Self::PATIENCE, trust_identity: false }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, tries, patience, .. } = self;
        write!(f, "Server {address}, {tries} times {patience:?}")
    }
}

/// Servers that know the same peers.
#[derive(Debug)]
pub struct Realm {
    /// The servers. While the one that answered last does, the others are not asked.
    pub servers: Vec<Server>,
    /// What we call ourselves: 1 to 253 bytes.
    pub nas_identifier: String,
    /// Where peers call, if servers want to know.
    pub called_station_id: Option<String>,
    /// Which server answered last.
    preferred: AtomicUsize,
}

impl Realm {
    /// With these servers, the first of which is asked first.
    pub fn new(servers: Vec<Server>, nas_identifier: &str) -> Self {
        Self {
            servers,
            nas_identifier: nas_identifier.into(),
            called_station_id: None,
            preferred: AtomicUsize::new(0),
        }
    }

    /// Returns the numbers of its servers, in the order in which they are to be asked.
    pub(super) fn order(&self) -> impl Iterator<Item = usize> {
        let (count, first) = (self.servers.len(), self.preferred.load(Ordering::Relaxed));
        (0..count).map(move |number| (first + number) % count)
    }

    /// Notes that this server has answered.
    pub(super) fn prefer(&self, number: usize) {
        self.preferred.store(number, Ordering::Relaxed);
    }
}

/// What a server is to be asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The servers that may know.
    pub realm: Arc<Realm>,
    /// The one of them that knows of this conversation already.
    pub server: Option<usize>,
    /// Whose EAP identity.
    pub user_name: Vec<u8>,
    /// What the server's last challenge had of it.
    pub state: Option<Vec<u8>>,
    /// An EAP packet.
    pub eap: Vec<u8>,
}

/// What a server answers.
#[derive(Debug)]
pub struct Reply {
    /// The server's number in its realm.
    pub server: usize,
    /// What it says.
    pub code: Code,
    /// An EAP packet.
    pub eap: Option<Vec<u8>>,
    /// What the next request of this conversation must have as its state.
    pub state: Option<Vec<u8>>,
    /// Whom it has accepted, if it says so.
    pub user_name: Option<Vec<u8>>,
    /// The MSK, if the method makes one; `None` if its key cannot be read.
    pub msk: Option<Option<Secret>>,
}
