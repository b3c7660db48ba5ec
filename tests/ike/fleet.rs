//! A gateway, some terminals at addresses of their own, and the messages between them.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use wayfarer::sim::ike::side::{Message, Side};
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
    /// The terminals, each with its address.
    pub(super) terminals: Vec<(IpAddr, Side)>,
    /// The gateway's messages to addresses where no terminal is.
    pub(super) lost: Vec<Message>,
}

impl Fleet {
    /// Makes a gateway with these connections.
    pub(super) fn new(connections: Vec<Connection>) -> Self {
        let gateway = Side::new(connections, Settings::default());
        Self { now: Duration::from_secs(1000), gateway, terminals: vec![], lost: vec![] }
    }

    /// Connects a new terminal at `address`; returns its index.
    pub(super) fn connect(&mut self, address: [u8; 4], connection: Connection) -> usize {
        let mut side = Side::new(vec![connection], Settings::default());
        side.endpoint.dial(self.now, 0, address.into());
        self.terminals.push((address.into(), side));
        self.settle();
        self.terminals.len() - 1
    }

    /// Connects a terminal at `address` that sends its IKE_AUTH request from `forged`.
    pub(super) fn connect_forged(&mut self, address: [u8; 4], forged: [u8; 4], connection: Connection) {
        let mut side = Side::new(vec![connection], Settings::default());
        side.endpoint.dial(self.now, 0, address.into());
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
        for round in 0.. {
            assert!(round < 1000, "the exchange of messages does not end");
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

    /// Lets time pass, timer by timer. No ESP packets flow.
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
