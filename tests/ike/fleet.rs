//! A gateway, some terminals at addresses of their own, and the messages between them.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use wayfarer::sim::{
    ike::{
        carrier::{self, Way},
        side::{Message, Side},
    },
    nat::Endpoints,
    random::Random,
};
use wayfarer_mobility::{
    ike::{
        connection::Connection,
        event::PeerId,
        settings::Settings,
        view::{State, View},
    },
    path::Addresses,
};

/// A gateway and its terminals.
#[derive(Debug)]
pub(super) struct Fleet {
    /// Virtual time.
    pub(super) now: Duration,
    /// The gateway.
    pub(super) gateway: Side,
    /// The terminals, each at its address.
    pub(super) terminals: Vec<Side>,
    /// The gateway's messages to addresses where no terminal is.
    pub(super) lost: Vec<Message>,
    /// Source of seeds for new terminals.
    seeds: Random,
}

impl Fleet {
    /// Makes a gateway with these connections.
    pub(super) fn new(connections: Vec<Connection>) -> Self {
        Self::with(connections, Settings::default())
    }

    /// Makes a gateway with these connections and settings.
    pub(super) fn with(connections: Vec<Connection>, settings: Settings) -> Self {
        let mut seeds = Random(0);
        let gateway = Side::new(connections, settings, seeds.next());
        Self { now: Duration::from_secs(1000), gateway, terminals: vec![], lost: vec![], seeds }
    }

    /// Makes a new terminal at `address` that starts to connect.
    pub(super) fn dial(&mut self, address: [u8; 4], connection: Connection) -> Side {
        let side = Side::new(vec![connection], Settings::default(), self.seeds.next());
        let mut side = Side { at: Some(address.into()), ..side };
        side.endpoint.dial(self.now, 0, address.into());
        side
    }

    /// Connects a new terminal at `address`; returns its index.
    pub(super) fn connect(&mut self, address: [u8; 4], connection: Connection) -> usize {
        let side = self.dial(address, connection);
        self.terminals.push(side);
        self.settle();
        self.terminals.len() - 1
    }

    /// Connects a terminal at `address` that sends its IKE_AUTH request from `forged`.
    pub(super) fn connect_forged(&mut self, address: [u8; 4], forged: [u8; 4], connection: Connection) {
        let mut side = self.dial(address, connection);
        let first = side.work(self.now).remove(0);
        self.deliver(&first);
        let (Addresses { local, remote }, answer) = self.gateway.work(self.now).remove(0);
        side.endpoint.handle_datagram(self.now, Addresses { local: remote, remote: local }, &answer);
        let (addresses, message) = side.work(self.now).remove(0);
        let local = SocketAddr::new(forged.into(), addresses.local.port());
        self.deliver(&(Addresses { local, ..addresses }, message));
        self.settle();
    }

    /// Delivers a message to the gateway.
    pub(super) fn deliver(&mut self, (Addresses { local, remote }, message): &Message) {
        let addresses = Addresses { local: *remote, remote: *local };
        self.gateway.endpoint.handle_datagram(self.now, addresses, message);
    }

    /// Carries messages until there are none.
    pub(super) fn settle(&mut self) {
        self.settle_by(carrier::straight);
    }

    /// Carries messages until there are none, by a way that translates their endpoints, or loses
    /// them.
    pub(super) fn settle_by(&mut self, way: impl FnMut(Duration, Way, Endpoints) -> Option<Endpoints>) {
        let Self { now, gateway, terminals, .. } = self;
        self.lost.extend(carrier::settle(*now, gateway, terminals, way));
    }

    /// Lets time pass, timer by timer. No ESP packets flow.
    pub(super) fn pass(&mut self, duration: Duration) {
        self.pass_by(duration, carrier::straight);
    }

    /// Lets time pass, by a way that translates the endpoints of messages, or loses them.
    pub(super) fn pass_by(
        &mut self,
        duration: Duration,
        way: impl FnMut(Duration, Way, Endpoints) -> Option<Endpoints>,
    ) {
        let Self { now, gateway, terminals, .. } = self;
        self.lost.extend(carrier::pass(now, duration, gateway, terminals, way));
    }

    /// Returns the gateway's connected peers.
    pub(super) fn connected_peers(&self) -> Vec<View<'_>> {
        self.gateway.endpoint.peers().filter(|peer| peer.state() == State::Up).collect()
    }

    /// Returns the gateway's peer at `address`.
    pub(super) fn peer_at(&self, address: [u8; 4]) -> Option<PeerId> {
        let at = |view: &View<'_>| view.addresses().remote.ip() == IpAddr::from(address);
        self.connected_peers().into_iter().find(at).map(|view| view.id())
    }

    /// Returns the gateway's current address of a peer.
    pub(super) fn address_of(&self, peer: PeerId) -> SocketAddr {
        self.connected_peers().into_iter().find(|view| view.id() == peer).unwrap().addresses().remote
    }
}
