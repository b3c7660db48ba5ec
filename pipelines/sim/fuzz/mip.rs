//! Fuzzes home agent and mobile node of Mobile IPv4: messages as they are, and authenticated.

use crate::sim::ike::seeded::Seeded;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};
use wayfarer_mobility::{
    mip::{
        agent::{HomeAgent, Node, Nodes, ReverseTunnel, Settings, UdpTunnels},
        association::{Algorithm, Association, Replay},
        node::{self, MobileNode},
        wire::{Encapsulation, Flags, Message, Parties},
    },
    retransmission::Retransmission,
};

const HOME: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const FOREIGN_AGENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const START: Duration = Duration::from_secs(1_800_000_000);
const MOST_BINDINGS: usize = 3;

/// Any timestamp is right, so that inputs get further.
fn association() -> Association {
    let replay = Replay::Timestamps(Duration::MAX);
    Association { spi: 256, algorithm: Algorithm::HmacSha256, key: vec![7; 32].into(), replay }
}

fn agent() -> HomeAgent {
    let mut nodes = Nodes::default();
    nodes.add(Node { home: HOME, name: Some(b"a@b".to_vec()), associations: vec![association()] });
    let settings = Settings {
        address: AGENT,
        max_lifetime: 3600,
        max_bindings: MOST_BINDINGS,
        reverse_tunnel: ReverseTunnel::Allowed,
        encapsulations: vec![Encapsulation::Gre, Encapsulation::Minimal],
        udp_tunnels: Some(UdpTunnels { keepalive: 25, may_be_forced: true }),
        foreign_agents: [(FOREIGN_AGENT, association())].into(),
    };
    HomeAgent::new(settings, nodes, BTreeMap::new(), &Seeded::new(1))
}

fn node() -> MobileNode {
    let settings = node::Settings {
        home: HOME,
        name: None,
        agent: AGENT,
        association: association(),
        lifetime: 300,
        flags: Flags::default(),
        udp_tunnel: Some(true),
        retransmission: Retransmission::default(),
    };
    MobileNode::new(settings, Box::new(Seeded::new(2)))
}

/// See the module.
///
/// # Panics
/// If a request that is not authentic changes something, a reply cannot be read, or bindings are more than
/// allowed or do not end.
pub(super) fn mip(data: &[u8]) {
    let (mut agent, mut node) = (agent(), node());
    let mut authentic = data.to_vec();
    association().authenticate(&mut authentic, Parties::MobileHome);
    node.register(START, Ipv4Addr::new(192, 0, 2, 7));
    for (message, source) in [(data, AGENT), (&authentic, HOME), (&authentic, FOREIGN_AGENT)] {
        let _ = node.handle_reply(START, message);
        let Ok(decision) = agent.decide(START, message, SocketAddrV4::new(source, 434)) else { continue };
        let (before, changes) = (agent.bindings(HOME).cloned(), decision.after.is_some());
        let (reply, change) = agent.accept(decision);
        assert!(changes || change.is_none() && agent.bindings(HOME).cloned() == before);
        assert!(Message::parse(&reply).is_ok());
        assert!(agent.all().all(|(home, all)| home == HOME && all.tunnels.len() <= MOST_BINDINGS));
    }
    agent.handle_timeout(START + Duration::from_secs(3600));
    assert!(agent.all().all(|(_, all)| all.tunnels.is_empty()));
}
