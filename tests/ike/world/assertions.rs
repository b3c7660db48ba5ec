//! What tests assert of the world, and count in it.

use super::{GATE, World};
use std::net::SocketAddr;
use wayfarer_mobility::ike::{event::ChildId, view::State};

impl World {
    /// Asserts that every reachable terminal has one IKE SA and one pair of child SAs, that the
    /// gateway has the same, and that it has the terminal's address.
    pub(crate) fn assert_connected(&self) {
        for (terminal, expected) in self.model.reachable() {
            let (at, over) = (expected.at, &expected.over);
            let (ours, theirs) = self.peers(terminal);
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                panic!("terminal {terminal} is not connected: {ours:?} {theirs:?}")
            };
            let [here, there] = [(terminal + 1, ours), (GATE, theirs)].map(|(node, peer)| {
                let view = self.nodes[node].endpoint.peers().find(|view| view.id() == peer).unwrap();
                let children: Vec<ChildId> = view.children().collect();
                let [child] = children[..] else {
                    let nodes = [(terminal + 1, ours), (GATE, theirs)];
                    let logs = nodes.map(|(node, peer)| self.nodes[node].log_of(peer));
                    panic!("terminal {terminal}, node {node}: {children:?} {logs:#?}")
                };
                (view.spis(), self.nodes[node].sas[&child].clone(), view.addresses())
            });
            assert_eq!(here.0, there.0, "terminal {terminal}: IKE SPIs");
            assert!(here.1.mirrors(&there.1), "terminal {terminal}: {here:?} {there:?}");
            let seen = self.networks.external_address(at);
            assert_eq!(here.2.local.ip(), at.address, "terminal {terminal}");
            assert_eq!(there.2.remote.ip(), seen, "terminal {terminal}: {at:?}");
            assert!(here.0.is_none_or(|spis| !over.ike_sas.contains(&spis)), "terminal {terminal}: old keys");
            assert!(!over.children.contains(&here.1.spi_in), "terminal {terminal}: old keys");
            let has_left = at.nat.is_none_or(|nat| self.networks.nats[nat].preserves_ports);
            assert!(has_left || !over.remotes.contains(&there.2.remote), "terminal {terminal}: an old port");
        }
        let connected = self.nodes[GATE].endpoint.peers().filter(|p| p.state() == State::Up).count();
        assert_eq!(connected, self.model.reachable().count());
    }

    /// Counts datagrams that were sent and packets that were opened, to compare two worlds.
    pub(crate) fn traffic(&self) -> [u64; 2] {
        [self.datagrams, self.delivered()]
    }

    /// Returns the gateway's current address of each of its peers.
    pub(crate) fn remotes(&self) -> Vec<SocketAddr> {
        self.nodes[GATE].endpoint.peers().map(|view| view.addresses().remote).collect()
    }

    /// Counts packets that reached a node which could not open them.
    pub(crate) fn strays(&self) -> u64 {
        self.nodes.iter().map(|node| node.strays).sum()
    }

    /// Counts updates of terminals' addresses that the gateway has accepted.
    pub(crate) fn updates(&self) -> u64 {
        self.nodes.iter().map(|node| node.updates).sum()
    }

    /// Counts packets that were opened.
    pub(crate) fn delivered(&self) -> u64 {
        self.nodes.iter().map(|node| node.delivered).sum()
    }
}
