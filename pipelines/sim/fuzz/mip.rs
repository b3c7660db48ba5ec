//! Fuzzes home agent and mobile node of Mobile IPv4: messages as they are, and authenticated.

use crate::sim::ike::seeded::Seeded;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};
use wayfarer_mobility::mip::{
    agent::{HomeAgent, Node, Nodes, ReverseTunnel, Settings, UdpTunnels},
    association::{Algorithm, Association, Replay},
    binding::Binding,
    node::{self, MobileNode, Now},
    wire::{Encapsulation, Flags, Message, Parties},
};

const HOME: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
const FOREIGN_AGENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const START: Duration = Duration::from_secs(1_800_000_000);
const MOST_BINDINGS: usize = 3;

/// Any timestamp is right, so that inputs get further.
const REPLAY: Replay = Replay::Timestamps(Duration::MAX);

fn association() -> Association {
    Association { spi: 256, algorithm: Algorithm::HmacSha256, key: vec![7; 32].into() }
}

fn agent() -> HomeAgent {
    let mut nodes = Nodes::default();
    let name = Some(b"a@b".to_vec());
    nodes.add(Node { home: HOME, name, replay: REPLAY, associations: vec![association()] });
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
        replay: REPLAY,
        lifetime: 300,
        flags: Flags::default(),
        udp_tunnel: Some(true),
        first_wait: Duration::from_secs(1),
        tries: 3,
    };
    MobileNode::new(settings, Box::new(Seeded::new(2)))
}

/// See the module.
///
/// # Panics
/// If what is not authentic is answered, a reply cannot be read, or bindings are more than allowed, lead back or do
/// not end.
pub(super) fn mip(data: &[u8]) {
    let (mut authentic, mut node) = (data.to_vec(), node());
    association().authenticate(&mut authentic, Parties::MobileHome);
    let mut relayed = authentic.clone();
    association().authenticate(&mut relayed, Parties::ForeignHome);
    let now = Now { steady: Duration::ZERO, since_1970: START };
    node.register(now, Ipv4Addr::new(192, 0, 2, 7));
    for (message, source) in
        [(data, STRANGER), (&authentic, HOME), (&authentic, STRANGER), (&relayed, FOREIGN_AGENT)]
    {
        let _ = node.handle_reply(now, message);
        let mut agent = agent();
        let Ok(decision) = agent.decide(START, message, SocketAddrV4::new(source, 434)) else { continue };
        assert!(message != data, "answered without a secret");
        let (reply, _) = decision.carry_out();
        assert!(Message::parse(&reply).is_ok());
        for (home, bindings) in agent.all() {
            assert!(home == HOME && bindings.tunnels.len() <= MOST_BINDINGS);
            let leads_back = |end: Ipv4Addr| [HOME, AGENT].contains(&end);
            let ends = |binding: &Binding| [Some(binding.care_of), binding.udp.map(|udp| *udp.ip())];
            assert!(!bindings.tunnels.iter().flat_map(ends).flatten().any(leads_back));
        }
        agent.handle_timeout(START + Duration::from_secs(3600));
        assert!(agent.all().all(|(_, all)| all.tunnels.is_empty()));
    }
}
