//! A gateway, many terminals, and networks that lose, repeat, delay and translate what is sent: all
//! of it from one seed.

use crate::{
    datagram::{Cargo, Datagram},
    node::Node,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use wayfarer::sim::ike::connections::{GATEWAY, gateway, terminal};
use wayfarer::{
    primitives::Primitives,
    sim::{
        cable::Cable,
        disturbance::{Attachment, By, Disturbance, Keys, Link, Model},
        ike::seeded::Seeded,
        nat::{Ends, Kind, Nat},
        random::Random,
    },
};
use wayfarer_mobility::{
    identity::Identity,
    ike::{
        endpoint::Endpoint,
        event::{ChildId, PeerId},
        pool::Pool,
        settings::Settings,
        view::State,
    },
    path::Addresses,
    task::{Task, TaskId},
    transmit::Payload,
};

enum Happening {
    ToGateway(Datagram),
    FromGateway(Datagram),
    Done { node: usize, life: u64, id: TaskId, task: Task },
    Traffic { terminal: usize },
}

/// NATs in front of half of the terminals.
pub(super) const NATS: usize = 4;
/// Number of the gateway among the nodes; terminal `n` is `n + 1`.
const GATE: usize = 0;

/// All of it.
pub(super) struct World {
    pub(super) now: Duration,
    pub(super) random: Random,
    pub(super) cable: Cable,
    pub(super) nodes: Vec<Node>,
    /// Datagrams that were sent.
    pub(super) datagrams: u64,
    /// Time between packets of a terminal, each way.
    pub(super) pace: Duration,
    life: Vec<u64>,
    /// Where each terminal is attached, and whether nothing comes through there.
    places: Vec<(Attachment, bool)>,
    /// What the gateway must know in the end.
    model: Model,
    pub(super) nats: Vec<Nat>,
    hosts: BTreeMap<IpAddr, usize>,
    moves: u32,
    queue: BTreeMap<(Duration, u64), Happening>,
    number: u64,
    timers: BTreeSet<(Duration, usize)>,
    timer_of: Vec<Option<Duration>>,
}

/// Of any kind, some preserve ports, and some keep mappings for little longer than the 20 seconds
/// between keepalives.
fn new_nat(nat: usize, kind: Kind) -> Nat {
    let mut new = Nat::new(nat_address(nat), kind);
    new.preserves_ports = nat % 2 == 1;
    new.expiry = Duration::from_secs(if nat < NATS / 2 { 120 } else { 30 });
    new
}

fn nat_address(nat: usize) -> IpAddr {
    [100, 64, nat as u8, 1].into()
}

impl World {
    /// A gateway and terminals that begin to connect, half of them behind NATs of this kind.
    pub(super) fn new(seed: u64, kind: Kind, terminals: usize, cable: Cable) -> Self {
        let mut world = Self {
            now: Duration::from_secs(1000),
            random: Random(seed),
            cable,
            nodes: vec![],
            datagrams: 0,
            pace: Duration::from_secs(1),
            life: vec![0; terminals + 1],
            places: vec![],
            model: Model::default(),
            nats: (0..NATS).map(|nat| new_nat(nat, kind)).collect(),
            hosts: BTreeMap::new(),
            moves: 0,
            queue: BTreeMap::new(),
            number: 0,
            timers: BTreeSet::new(),
            timer_of: vec![None; terminals + 1],
        };
        let gate = world.fresh(GATE);
        world.nodes.push(gate);
        for terminal in 0..terminals {
            let node = world.fresh(terminal + 1);
            world.nodes.push(node);
            let at = world.new_place();
            world.model.add(at);
            world.places.push((at, false));
            world.hosts.insert(at.address, terminal);
            world.dial(terminal);
            let at = world.now + Duration::from_millis(world.random.below(1000));
            world.plan(at, Happening::Traffic { terminal });
        }
        world
    }

    fn fresh(&mut self, node: usize) -> Node {
        let random = Arc::new(Seeded::new(self.random.next()));
        let pools = vec![Pool::new([10, 98, 0, 1].into(), [10, 98, 7, 254].into())];
        let connection = match node {
            GATE => gateway(),
            _ => {
                let local_id = Identity::from_text(&format!("t{node}.test")).unwrap();
                wayfarer_mobility::ike::connection::Connection { local_id, ..terminal() }
            }
        };
        Node::new(Endpoint::new(Arc::new(Primitives), random, vec![connection], pools, Settings::default()))
    }

    fn plan(&mut self, at: Duration, happening: Happening) {
        self.number += 1;
        self.queue.insert((at, self.number), happening);
    }

    /// Draws a place that nobody had.
    pub(super) fn new_place(&mut self) -> Attachment {
        self.moves += 1;
        let [_, a, b, c] = self.moves.to_be_bytes();
        let nat = self.random.percent(50).then(|| self.random.below(NATS as u64) as usize);
        let address = if nat.is_some() { [10, a, b, c] } else { [20 + a, 1, b, c] }.into();
        Attachment { address, nat }
    }

    fn dial(&mut self, terminal: usize) {
        let local = self.places[terminal].0.address;
        self.nodes[terminal + 1].endpoint.dial(self.now, 0, local);
        self.work(terminal + 1);
    }

    pub(super) fn terminals(&self) -> usize {
        self.places.len()
    }

    /// The terminal's peer that is up, and the gateway's peer that it is.
    pub(super) fn peers(&self, terminal: usize) -> (Option<PeerId>, Option<PeerId>) {
        let name = Identity::from_text(&format!("t{}.test", terminal + 1)).unwrap();
        let here = self.nodes[terminal + 1].endpoint.peers().find(|p| p.state() == State::Up);
        let there = self.nodes[GATE].endpoint.peers();
        let there = there.filter(|p| p.state() == State::Up).find(|p| p.identity() == Some(&name));
        (here.map(|p| p.id()), there.map(|p| p.id()))
    }

    /// The node of a side of this terminal's link, and its peer that is up.
    fn side(&self, terminal: usize, by: By) -> (usize, Option<PeerId>) {
        let (here, there) = self.peers(terminal);
        match by {
            By::Terminal => (terminal + 1, here),
            By::Gateway => (GATE, there),
        }
    }

    /// What a side has of this terminal's link.
    fn link(&self, terminal: usize, by: By) -> Link {
        let (node, peer) = self.side(terminal, by);
        let view = self.nodes[node].endpoint.peers().find(|view| Some(view.id()) == peer);
        let Some(view) = view else { return Link::default() };
        let sas = view.children().map(|child| &self.nodes[node].sas[&child]);
        Link {
            ike_sas: view.spis().into_iter().collect(),
            children: sas.map(|sa| if by == By::Terminal { sa.spi_in } else { sa.spi_out }).collect(),
            remotes: vec![view.addresses().remote],
        }
    }

    /// Disturbs the system, and tells the model.
    pub(super) fn disturb(&mut self, disturbance: Disturbance) {
        let mut model = std::mem::take(&mut self.model);
        model.apply(&disturbance, |terminal, by| self.link(terminal, by));
        self.model = model;
        match disturbance {
            Disturbance::Move { terminal, to } => self.roam(terminal, to),
            Disturbance::NatRestart { nat } => self.nats[nat].restart(),
            Disturbance::BlackHole { terminal } => self.places[terminal].1 = true,
            Disturbance::Repair { terminal } => self.places[terminal].1 = false,
            Disturbance::TerminalRestart { terminal } => self.restart(terminal),
            Disturbance::GatewayRestart => self.replace(GATE),
            Disturbance::Rekey { terminal, by_terminal, by_gateway } => {
                self.rekey(terminal, by_terminal, by_gateway);
            }
            Disturbance::Close { terminal, by } => self.close(terminal, by),
        }
    }

    fn roam(&mut self, terminal: usize, to: Attachment) {
        self.hosts.remove(&self.places[terminal].0.address);
        self.hosts.insert(to.address, terminal);
        self.places[terminal] = (to, false);
        match self.peers(terminal).0 {
            Some(peer) => {
                let now = self.now;
                self.nodes[terminal + 1].endpoint.handle_local(now, peer, to.address, None).unwrap();
                self.work(terminal + 1);
            }
            None => self.restart(terminal),
        }
    }

    fn restart(&mut self, terminal: usize) {
        self.replace(terminal + 1);
        self.dial(terminal);
    }

    fn replace(&mut self, node: usize) {
        self.nodes[node] = self.fresh(node);
        self.life[node] += 1;
        self.work(node);
    }

    fn rekey(&mut self, terminal: usize, here: Option<Keys>, there: Option<Keys>) {
        let (ours, theirs) = self.peers(terminal);
        let now = self.now;
        if let (Some(peer), Some(keys)) = (ours, here) {
            self.nodes[terminal + 1].endpoint.rekey(now, peer, keys == Keys::IkeSa);
        }
        if let (Some(peer), Some(keys)) = (theirs, there) {
            self.nodes[GATE].endpoint.rekey(now, peer, keys == Keys::IkeSa);
        }
        self.work(terminal + 1);
        self.work(GATE);
    }

    fn close(&mut self, terminal: usize, by: By) {
        let (node, peer) = self.side(terminal, by);
        if let Some(peer) = peer {
            let now = self.now;
            self.nodes[node].endpoint.close(now, peer);
            self.work(node);
        }
    }

    /// Nobody but the gateway is left.
    pub(super) fn silence(&mut self) {
        for terminal in 0..self.terminals() {
            self.replace(terminal + 1);
            self.disturb(Disturbance::BlackHole { terminal });
        }
    }

    // The course of things.

    /// Lets time pass.
    pub(super) fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            let timer = self.timers.first().copied().filter(|(at, _)| *at <= until);
            let next = self.queue.first_key_value().map(|(key, _)| *key).filter(|(at, _)| *at <= until);
            match (timer, next) {
                (Some((at, node)), next) if next.is_none_or(|(other, _)| at <= other) => {
                    self.now = self.now.max(at);
                    self.nodes[node].endpoint.handle_timeout(self.now);
                    self.work(node);
                    let stuck = self.timer_of[node].is_some_and(|again| again <= self.now);
                    assert!(!stuck, "node {node}: a timer that does not move");
                }
                (_, Some(key)) => {
                    self.now = self.now.max(key.0);
                    let happening = self.queue.remove(&key).unwrap();
                    self.happen(happening);
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::ToGateway(datagram) => self.receive(GATE, datagram),
            Happening::FromGateway(datagram) => {
                let ends = Ends { from: datagram.from, to: datagram.to };
                let Some((terminal, to)) = self.behind(ends) else { return };
                self.receive(terminal + 1, Datagram { to, ..datagram });
            }
            Happening::Done { node, life, id, task } => {
                if self.life[node] == life {
                    let outcome = task.run(&Primitives);
                    self.nodes[node].endpoint.handle_outcome(self.now, id, outcome);
                    self.work(node);
                }
            }
            Happening::Traffic { terminal } => {
                let inner = self.nodes[terminal + 1].inner();
                if let Some(inner) = inner {
                    let up = self.nodes[terminal + 1].seal(None, inner, [10, 99, 0, 7].into());
                    up.into_iter().for_each(|d| self.send(terminal + 1, d));
                    let down = self.nodes[GATE].seal(Some(inner), [10, 99, 0, 7].into(), inner);
                    down.into_iter().for_each(|d| self.send(GATE, d));
                }
                let at = self.now + self.pace;
                self.plan(at, Happening::Traffic { terminal });
            }
        }
    }

    /// Who gets a packet of the gateway's, and at which socket of its own.
    fn behind(&mut self, ends: Ends) -> Option<(usize, SocketAddr)> {
        let inside = match self.nats.iter_mut().find(|nat| nat.address == ends.to.ip()) {
            Some(nat) => nat.inbound(self.now, ends)?.to,
            None => ends.to,
        };
        let terminal = *self.hosts.get(&inside.ip())?;
        (!self.places[terminal].1).then_some((terminal, inside))
    }

    fn receive(&mut self, node: usize, datagram: Datagram) {
        let Datagram { from, to, cargo } = datagram;
        let addresses = Addresses { local: to, remote: from };
        match cargo {
            Cargo::Ike(message) => {
                self.nodes[node].endpoint.handle_datagram(self.now, addresses, &message);
            }
            Cargo::Keepalive => {}
            Cargo::Esp(esp) => self.nodes[node].open(self.now, addresses, esp, node == GATE),
        }
        self.work(node);
    }

    /// Takes what a node has to say.
    fn work(&mut self, node: usize) {
        if node >= self.nodes.len() {
            return;
        }
        loop {
            self.nodes[node].take_events(self.now);
            let mut is_done = true;
            while let Some((id, _, task)) = self.nodes[node].endpoint.poll_task() {
                let at = self.now + Duration::from_micros(self.random.below(4000));
                let life = self.life[node];
                self.plan(at, Happening::Done { node, life, id, task });
                is_done = false;
            }
            while let Some(transmit) = self.nodes[node].endpoint.poll_transmit() {
                let Addresses { local: from, remote: to } = transmit.addresses;
                let cargo = match transmit.payload {
                    Payload::Message(message) => Cargo::Ike(message),
                    Payload::Keepalive => Cargo::Keepalive,
                };
                self.send(node, Datagram { from, to, cargo });
                is_done = false;
            }
            if is_done {
                break;
            }
        }
        let new = self.nodes[node].endpoint.poll_timeout();
        if let Some(old) = std::mem::replace(&mut self.timer_of[node], new) {
            self.timers.remove(&(old, node));
        }
        self.timers.extend(new.map(|at| (at, node)));
    }

    fn send(&mut self, node: usize, mut datagram: Datagram) {
        self.datagrams += 1;
        if let Some(terminal) = node.checked_sub(1) {
            let (place, is_hole) = self.places[terminal];
            if is_hole || datagram.from.ip() != place.address {
                return;
            }
            if let Some(nat) = place.nat {
                let ends = Ends { from: datagram.from, to: datagram.to };
                let Some(outside) = self.nats[nat].outbound(self.now, ends) else { return };
                datagram.from = outside.from;
            }
            if datagram.to.ip() != IpAddr::from(GATEWAY) {
                return;
            }
        }
        for delay in self.cable.carry(&mut self.random) {
            let datagram = datagram.clone();
            let happening = match node {
                GATE => Happening::FromGateway(datagram),
                _ => Happening::ToGateway(datagram),
            };
            self.plan(self.now + delay, happening);
        }
    }

    // What must hold.

    /// Every terminal has one IKE SA and one pair of child SAs, and the gateway has the same, and
    /// the terminal where it is.
    pub(super) fn assert_connected(&self) {
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
                    let stories = nodes.map(|(node, peer)| self.nodes[node].story(peer));
                    panic!("terminal {terminal}, node {node}: {children:?} {stories:#?}")
                };
                (view.spis(), self.nodes[node].sas[&child].clone(), view.addresses())
            });
            assert_eq!(here.0, there.0, "terminal {terminal}: SPIs of IKE");
            assert!(here.1.mirrors(&there.1), "terminal {terminal}: {here:?} {there:?}");
            let seen = at.nat.map_or(at.address, nat_address);
            assert_eq!(here.2.local.ip(), at.address, "terminal {terminal}");
            assert_eq!(there.2.remote.ip(), seen, "terminal {terminal}: {at:?}");
            assert!(here.0.is_none_or(|spis| !over.ike_sas.contains(&spis)), "terminal {terminal}: old keys");
            assert!(!over.children.contains(&here.1.spi_in), "terminal {terminal}: old keys");
            let has_left = at.nat.is_none_or(|nat| self.nats[nat].preserves_ports);
            assert!(has_left || !over.remotes.contains(&there.2.remote), "terminal {terminal}: an old port");
        }
        let name_count = self.nodes[GATE].endpoint.peers().filter(|p| p.state() == State::Up).count();
        assert_eq!(name_count, self.model.reachable().count());
    }

    /// What was sent and what was opened, by which two worlds are compared.
    pub(super) fn traffic(&self) -> [u64; 2] {
        [self.datagrams, self.delivered()]
    }

    /// Where the gateway has each of its peers.
    pub(super) fn remotes(&self) -> Vec<SocketAddr> {
        self.nodes[GATE].endpoint.peers().map(|view| view.addresses().remote).collect()
    }

    /// Packets that came, but to nobody who could open them.
    pub(super) fn strays(&self) -> u64 {
        self.nodes.iter().map(|node| node.strays).sum()
    }

    /// Packets that were opened.
    pub(super) fn delivered(&self) -> u64 {
        self.nodes.iter().map(|node| node.delivered).sum()
    }
}
