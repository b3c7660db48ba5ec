//! A gateway and some terminals, each at its address, and the messages between them.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use wayfarer::sim::{
    ike::{
        carrier::{self, Way},
        side::{Message, Side},
    },
    nat::Ends,
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

/// All of them.
#[derive(Debug)]
pub(super) struct Fleet {
    /// The time.
    pub(super) now: Duration,
    /// The gateway.
    pub(super) gateway: Side,
    /// The terminals, each at its address.
    pub(super) terminals: Vec<Side>,
    /// What was sent to where nobody is.
    pub(super) lost: Vec<Message>,
    /// Seeds of terminals that are still to come.
    seeds: Random,
}

impl Fleet {
    /// A gateway with these connections.
    pub(super) fn new(connections: Vec<Connection>) -> Self {
        Self::with(connections, Settings::default())
    }

    /// A gateway with these connections and settings.
    pub(super) fn with(connections: Vec<Connection>, settings: Settings) -> Self {
        let mut seeds = Random(0);
        let gateway = Side::new(connections, settings, seeds.next());
        Self { now: Duration::from_secs(1000), gateway, terminals: vec![], lost: vec![], seeds }
    }

    /// A new terminal, which begins to connect from `address`.
    pub(super) fn dial(&mut self, address: [u8; 4], connection: Connection) -> Side {
        let side = Side::new(vec![connection], Settings::default(), self.seeds.next());
        let mut side = Side { at: Some(address.into()), ..side };
        side.endpoint.dial(self.now, 0, address.into());
        side
    }

    /// A terminal at `address` connects; its number.
    pub(super) fn connect(&mut self, address: [u8; 4], connection: Connection) -> usize {
        let side = self.dial(address, connection);
        self.terminals.push(side);
        self.settle();
        self.terminals.len() - 1
    }

    /// A terminal at `address` connects as far as its IKE_AUTH, and sends that from `forged`.
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

    /// A message comes to the gateway.
    pub(super) fn deliver(&mut self, (Addresses { local, remote }, message): &Message) {
        let addresses = Addresses { local: *remote, remote: *local };
        self.gateway.endpoint.handle_datagram(self.now, addresses, message);
    }

    /// Carries messages until there are none.
    pub(super) fn settle(&mut self) {
        self.settle_by(carrier::straight);
    }

    /// The same, by a way that translates ends of messages, or loses them.
    pub(super) fn settle_by(&mut self, way: impl FnMut(Duration, Way, Ends) -> Option<Ends>) {
        let Self { now, gateway, terminals, .. } = self;
        self.lost.extend(carrier::settle(*now, gateway, terminals, way));
    }

    /// Lets time pass, event by event. The data plane hears nothing from anybody.
    pub(super) fn pass(&mut self, time: Duration) {
        self.pass_by(time, carrier::straight);
    }

    /// The same, by a way that translates ends of messages, or loses them.
    pub(super) fn pass_by(&mut self, time: Duration, way: impl FnMut(Duration, Way, Ends) -> Option<Ends>) {
        let Self { now, gateway, terminals, .. } = self;
        self.lost.extend(carrier::pass(now, time, gateway, terminals, way));
    }

    /// The gateway's peers that are connected.
    pub(super) fn ups(&self) -> Vec<View<'_>> {
        self.gateway.endpoint.peers().filter(|peer| peer.state() == State::Up).collect()
    }

    /// The gateway's peer that is at `address`.
    pub(super) fn peer_at(&self, address: [u8; 4]) -> Option<PeerId> {
        let at = |view: &View<'_>| view.addresses().remote.ip() == IpAddr::from(address);
        self.ups().into_iter().find(at).map(|view| view.id())
    }

    /// Where the gateway has a peer.
    pub(super) fn place(&self, peer: PeerId) -> SocketAddr {
        self.ups().into_iter().find(|view| view.id() == peer).unwrap().addresses().remote
    }
}
