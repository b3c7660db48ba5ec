//! Questions of EAP conversations to RADIUS servers, and their answers.

use super::packet::Code;
use crate::{
    aaa::{grant::Grant, origin::Origin},
    crypto::Secret,
};
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
    /// The server's address; its UDP port is usually 1812.
    pub address: SocketAddr,
    /// The secret that it shares with us.
    pub secret: Secret,
    /// Number of times that a request is sent to it.
    pub tries: u32,
    /// Time to wait for an answer after each transmission.
    pub timeout: Duration,
    /// True if the server itself verifies the name that a peer begins with, whatever the EAP
    /// method.
    pub trust_identity: bool,
}

impl Server {
    /// The default number of times that a request is sent.
    pub const TRIES: u32 = 3;
    /// The default time to wait for each answer.
    pub const TIMEOUT: Duration = Duration::from_secs(2);

    /// Creates a server with the default number of tries and timeout, which is not trusted to
    /// verify the name that a peer begins with.
    pub fn new(address: SocketAddr, secret: Secret) -> Self {
        Self { address, secret, tries: Self::TRIES, timeout: Self::TIMEOUT, trust_identity: false }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, tries, timeout, .. } = self;
        write!(f, "Server {address}, {tries} times {timeout:?}")
    }
}

/// Servers that know the same peers, and keep the same books about them.
#[derive(Debug)]
pub struct Realm {
    /// The servers. The one that answered last is asked first.
    pub servers: Vec<Server>,
    /// Our own name, 1 to 253 bytes long.
    pub nas_identifier: String,
    /// Number of the server that answered last.
    preferred: AtomicUsize,
}

impl Realm {
    /// Creates a realm of these servers; the first one is asked first.
    pub fn new(servers: Vec<Server>, nas_identifier: &str) -> Self {
        Self { servers, nas_identifier: nas_identifier.into(), preferred: AtomicUsize::new(0) }
    }

    /// Returns true if both have the same servers, and call us by the same name.
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |(a, b): (&Server, &Server)| {
            (a.address, a.tries, a.timeout) == (b.address, b.tries, b.timeout) && a.secret == b.secret
        };
        self.nas_identifier == other.nas_identifier
            && self.servers.len() == other.servers.len()
            && self.servers.iter().zip(&other.servers).all(same)
    }

    /// Returns true if it has a server at this address.
    pub(super) fn has(&self, server: SocketAddr) -> bool {
        self.servers.iter().any(|own| own.address == server)
    }

    /// Returns true if the two have a server in common.
    pub(super) fn shares_server(&self, other: &Self) -> bool {
        other.servers.iter().any(|server| self.has(server.address))
    }

    /// Returns the numbers of the servers in the order in which they are to be asked.
    pub(super) fn order(&self) -> impl Iterator<Item = usize> {
        let (count, first) = (self.servers.len(), self.preferred.load(Ordering::Relaxed));
        (0..count).map(move |number| (first + number) % count)
    }

    /// Remembers that this server answered last.
    pub(super) fn prefer(&self, number: usize) {
        self.preferred.store(number, Ordering::Relaxed);
    }
}

/// A question for a RADIUS server.
#[derive(Clone, Debug)]
pub struct Question {
    /// The servers that know the peer.
    pub realm: Arc<Realm>,
    /// Where the peer comes from.
    pub origin: Origin,
    /// Number of the server that already knows this conversation, if there is one.
    pub server: Option<usize>,
    /// The peer's EAP identity.
    pub user_name: Vec<u8>,
    /// The state of the server's last challenge.
    pub state: Option<Vec<u8>>,
    /// An EAP packet.
    pub eap: Vec<u8>,
}

/// A server's answer.
#[derive(Debug)]
pub struct Reply {
    /// The server's number in its realm.
    pub server: usize,
    /// The server's decision.
    pub code: Code,
    /// An EAP packet, if there is one.
    pub eap: Option<Vec<u8>>,
    /// The state to repeat in the next request of this conversation.
    pub state: Option<Vec<u8>>,
    /// The user that the server has accepted, if it names one.
    pub user_name: Option<Vec<u8>>,
    /// The MSK, if the method makes one; the outer `None` if its key cannot be decrypted.
    pub msk: Option<Option<Secret>>,
    /// What the server grants to the peer; `None` if an attribute has a wrong length.
    pub grant: Option<Grant>,
}
