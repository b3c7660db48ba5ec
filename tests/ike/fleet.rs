//! A gateway and some terminals, each at its address, and the messages between them.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use wayfarer::sim::{
    ike::side::{Message, Side},
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
    /// The terminals, each with the address where it is.
    pub(super) terminals: Vec<(IpAddr, Side)>,
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
    pub(super) fn dialled(&mut self, address: [u8; 4], connection: Connection) -> Side {
        let mut side = Side::new(vec![connection], Settings::default(), self.seeds.next());
        side.endpoint.dial(self.now, 0, address.into());
        side
    }

    /// A terminal at `address` connects; its number.
    pub(super) fn connect(&mut self, address: [u8; 4], connection: Connection) -> usize {
        let side = self.dialled(address, connection);
        self.terminals.push((address.into(), side));
        self.settle();
        self.terminals.len() - 1
    }

    /// A terminal at `address` connects as far as its IKE_AUTH, and sends that from `forged`.
    pub(super) fn connect_forged(&mut self, address: [u8; 4], forged: [u8; 4], connection: Connection) {
        let mut side = self.dialled(address, connection);
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
        for round in 0.. {
            assert!(round < 1000, "they talk without end");
            let up: Vec<Message> =
                self.terminals.iter_mut().flat_map(|(_, side)| side.work(self.now)).collect();
            up.iter().for_each(|message| self.deliver(message));
            let down = self.gateway.work(self.now);
            if up.is_empty() && down.is_empty() {
                return;
            }
            for (Addresses { local, remote }, message) in down {
                let addresses = Addresses { local: remote, remote: local };
                match self.terminals.iter_mut().find(|(at, _)| *at == remote.ip()) {
                    Some((_, side)) => side.endpoint.handle_datagram(self.now, addresses, &message),
                    None => self.lost.push((Addresses { local, remote }, message)),
                }
            }
        }
    }

    /// Lets time pass, event by event. The data plane hears nothing from anybody.
    pub(super) fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            let sides = self.terminals.iter().map(|(_, side)| side).chain([&self.gateway]);
            let next = sides.filter_map(|side| side.endpoint.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            for side in self.terminals.iter_mut().map(|(_, side)| side).chain([&mut self.gateway]) {
                side.endpoint.handle_timeout(self.now);
            }
            self.settle();
        }
        self.now = until;
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
