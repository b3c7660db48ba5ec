//! A gateway, many terminals, and networks that lose, repeat, delay and translate packets, all from
//! one seed.

mod assertions;
mod odd_moments;

use crate::{
    datagram::{Content, Datagram},
    node::{Habits, Node},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};
use wayfarer::sim::ike::connections::{GATEWAY, gateway, offer, terminal};
use wayfarer::{
    primitives::Primitives,
    sim::{
        cable::Cable,
        disturbance::{Attachment, By, Disturbance, Keys, Link, Model},
        ike::seeded::Seeded,
        nat::{Endpoints, Kind, Nat},
        networks::Networks,
        random::Random,
    },
};
use wayfarer_mobility::{
    crypto::{Encr, Prf},
    identity::Identity,
    ike::{
        connection::{Connection, Lifetimes, SharedKey},
        endpoint::Endpoint,
        event::PeerId,
        pool::Pool,
        proposal::Offer,
        settings::Settings,
        view::State,
    },
    path::Addresses,
    path_mtu::PathProbing,
    task::{Task, TaskId},
    transmit::Payload,
};
use zeroize::Zeroizing;

/// Something that is due at some time.
enum Occurrence {
    ToGateway(Datagram),
    FromGateway(Datagram),
    TaskDone { node: usize, generation: u64, id: TaskId, task: Task },
    Traffic { terminal: usize },
}

/// Number of NATs, which are in front of half of the terminals.
pub(super) const NATS: usize = 4;
/// The longest message that the networks carry whole, in bytes: an IP packet of 1400 bytes.
const MOST: usize = 1400 - 32;
/// The gateway's index among the nodes; terminal `n` has index `n + 1`.
const GATE: usize = 0;

/// The gateway, the terminals and the networks between them.
pub(super) struct World {
    pub(super) now: Duration,
    pub(super) random: Random,
    pub(super) cable: Cable,
    pub(super) nodes: Vec<Node>,
    /// Datagrams that were sent.
    pub(super) datagrams: u64,
    /// Time between packets of a terminal, in each direction.
    pub(super) pace: Duration,
    /// The algorithms of all nodes, for IKE and ESP, in the gateway's order.
    offers: Vec<Offer>,
    /// The terminals' habits. Crash tokens are the gateway's too.
    habits: Habits,
    /// How often each node was replaced.
    generations: Vec<u64>,
    pub(super) networks: Networks,
    /// The state that the gateway must reach in the end.
    model: Model,
    queue: BTreeMap<(Duration, u64), Occurrence>,
    /// Number of the last occurrence, to order those of the same time.
    number: u64,
    timers: BTreeSet<(Duration, usize)>,
    timer_of: Vec<Option<Duration>>,
}

/// Makes a NAT. Some preserve ports, some hairpin, and some keep mappings for little longer than the
/// 20 seconds between keepalives.
fn new_nat(nat: usize, kind: Kind) -> Nat {
    let mut new = Nat::new(Ipv4Addr::UNSPECIFIED.into(), kind);
    new.preserves_ports = nat % 2 == 1;
    new.hairpins = [1, 2].contains(&nat);
    new.expiry = Duration::from_secs(if nat < NATS / 2 { 120 } else { 30 });
    new
}

impl World {
    /// Makes a gateway and terminals that start to connect, half of them behind NATs of this kind.
    pub(super) fn new(seed: u64, kind: Kind, terminals: usize, cable: Cable) -> Self {
        Self::with_offer(offer(), seed, kind, terminals, cable)
    }

    /// Does the same with these algorithms.
    pub(super) fn with_offer(offer: Offer, seed: u64, kind: Kind, terminals: usize, cable: Cable) -> Self {
        Self::make(vec![offer], Habits::default(), seed, kind, terminals, cable)
    }

    /// Makes a gateway and terminals with these habits.
    pub(super) fn with_habits(habits: Habits, seed: u64, kind: Kind, terminals: usize, cable: Cable) -> Self {
        let mut offers = vec![offer()];
        if habits.own_order {
            let encr = vec![Encr::AesGcm(256), Encr::AesGcm(128)];
            let prf = vec![Prf::HmacSha384, Prf::HmacSha256];
            let other = Offer { encr: vec![Encr::ChaCha20Poly1305], ..offer() };
            offers = vec![Offer { encr, prf, ..offer() }, other];
        }
        Self::make(offers, habits, seed, kind, terminals, cable)
    }

    fn make(
        offers: Vec<Offer>,
        habits: Habits,
        seed: u64,
        kind: Kind,
        terminals: usize,
        cable: Cable,
    ) -> Self {
        let mut world = Self {
            now: Duration::from_secs(1000),
            random: Random(seed),
            cable,
            nodes: vec![],
            datagrams: 0,
            pace: Duration::from_secs(1),
            offers,
            habits,
            generations: vec![0; terminals + 1],
            networks: Networks::new((0..NATS).map(|nat| new_nat(nat, kind))),
            model: Model::default(),
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
            let at = world.new_attachment();
            world.model.add(at);
            world.networks.attach(at);
            world.dial(terminal);
            let at = world.now + Duration::from_millis(world.random.below(1000));
            world.schedule(at, Occurrence::Traffic { terminal });
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
                Connection { local_id, ..terminal() }
            }
        };
        let (mut ike, mut esp) = (self.offers.clone(), self.offers.clone());
        let Habits { crash_tokens, probes_paths, stays_without_udp, follows_only_updates, .. } = self.habits;
        let of_gateway = Habits { crash_tokens, probes_paths, stays_without_udp, ..Habits::default() };
        // Without MOBIKE, libreswan's would say nothing. Others say where they see the terminal.
        let libreswan_answers = follows_only_updates && !self.habits.without_mobike;
        let of_gateway = Habits { follows_only_updates, libreswan_answers, ..of_gateway };
        let of_terminal = Habits { stays_without_udp: false, ..self.habits };
        let habits = if node == GATE { of_gateway } else { of_terminal };
        let without_pfs = |offer: &Offer| Offer { kex: vec![], more_kex: vec![], ..offer.clone() };
        match node {
            GATE if self.habits.without_pfs => esp.extend(self.offers.iter().map(without_pfs)),
            _ if habits.without_pfs => esp = self.offers.iter().map(without_pfs).collect(),
            _ => {}
        }
        if habits.own_order {
            for offers in [&mut ike, &mut esp] {
                offers.reverse();
                for Offer { encr, prf, kex, .. } in offers {
                    encr.reverse();
                    prf.reverse();
                    kex.reverse();
                }
            }
        }
        let limit = (node == GATE && self.habits.limits_authentication).then_some(Duration::from_secs(3600));
        let connection = Connection {
            ike,
            esp,
            lifetimes: Lifetimes { authentication: limit, ..connection.lifetimes },
            fragment: connection.fragment.filter(|_| !habits.without_fragments),
            mobike: !habits.without_nat_traversal && !habits.without_mobike,
            path_probing: if habits.probes_paths { PathProbing::Always } else { PathProbing::Off },
            ..connection
        };
        let secret = SharedKey(Zeroizing::new(vec![node as u8; 32]));
        let settings = Settings {
            log_keys: habits.libreswan_answers,
            crash_secret: crash_tokens.then_some(secret),
            nat_traversal: !habits.without_nat_traversal,
            vendor_id: !habits.stays_without_udp && !habits.follows_only_updates,
            ..Settings::default()
        };
        Node::new(Endpoint::new(Arc::new(Primitives), random, vec![connection], pools, settings)).with(habits)
    }

    fn schedule(&mut self, at: Duration, occurrence: Occurrence) {
        self.number += 1;
        self.queue.insert((at, self.number), occurrence);
    }

    /// Draws an attachment that no terminal has.
    pub(super) fn new_attachment(&mut self) -> Attachment {
        let nat = self.random.percent(50).then(|| self.random.index(NATS));
        let nat = nat.filter(|_| !self.habits.without_nat_traversal);
        self.networks.vacancy(nat)
    }

    fn dial(&mut self, terminal: usize) {
        let local = self.networks.attachment(terminal).address;
        self.nodes[terminal + 1].endpoint.dial(self.now, 0, local);
        self.work(terminal + 1);
    }

    pub(super) fn terminals(&self) -> usize {
        self.nodes.len() - 1
    }

    /// Returns the terminal's connected peer, and the gateway's connected peer for the terminal.
    pub(super) fn peers(&self, terminal: usize) -> (Option<PeerId>, Option<PeerId>) {
        let name = Identity::from_text(&format!("t{}.test", terminal + 1)).unwrap();
        let here = self.nodes[terminal + 1].endpoint.peers().find(|p| p.state() == State::Up);
        let there = self.nodes[GATE].endpoint.peers();
        let there = there.filter(|p| p.state() == State::Up).find(|p| p.identity() == Some(&name));
        (here.map(|p| p.id()), there.map(|p| p.id()))
    }

    /// Returns the node of one side of the terminal's link, and its connected peer.
    fn side(&self, terminal: usize, by: By) -> (usize, Option<PeerId>) {
        let (here, there) = self.peers(terminal);
        match by {
            By::Terminal => (terminal + 1, here),
            By::Gateway => (GATE, there),
        }
    }

    /// Returns the state of one side of the terminal's link.
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

    /// Applies a disturbance to the system and to the model.
    pub(super) fn disturb(&mut self, disturbance: Disturbance) {
        let mut model = std::mem::take(&mut self.model);
        model.apply(&disturbance, |terminal, by| self.link(terminal, by));
        self.model = model;
        match disturbance {
            Disturbance::Move { terminal, to } => {
                self.networks.apply(&disturbance);
                self.roam(terminal, to);
            }
            Disturbance::NatRestart { .. } | Disturbance::BlackHole { .. } | Disturbance::Repair { .. } => {
                self.networks.apply(&disturbance);
            }
            Disturbance::TerminalRestart { terminal } => self.restart(terminal),
            Disturbance::GatewayRestart => self.replace(GATE),
            Disturbance::Rekey { terminal, by_terminal, by_gateway } => {
                self.rekey(terminal, by_terminal, by_gateway);
            }
            Disturbance::Close { terminal, by } => self.close(terminal, by),
        }
    }

    fn roam(&mut self, terminal: usize, to: Attachment) {
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
        self.generations[node] += 1;
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

    /// Resets and cuts off all terminals.
    pub(super) fn silence(&mut self) {
        for terminal in 0..self.terminals() {
            self.replace(terminal + 1);
            self.disturb(Disturbance::BlackHole { terminal });
        }
    }

    // Time and messages.

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
                    let occurrence = self.queue.remove(&key).unwrap();
                    self.carry_out(occurrence);
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
    }

    fn carry_out(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::ToGateway(datagram) => self.receive(GATE, datagram),
            Occurrence::FromGateway(datagram) => {
                let ends = Endpoints { from: datagram.from, to: datagram.to };
                let Some((terminal, Endpoints { to, .. })) = self.networks.inward(self.now, ends) else {
                    return;
                };
                self.receive(terminal + 1, Datagram { to, ..datagram });
            }
            Occurrence::TaskDone { node, generation, id, task } => {
                if self.generations[node] == generation {
                    let outcome = task.run(&Primitives);
                    self.nodes[node].endpoint.handle_outcome(self.now, id, outcome);
                    self.work(node);
                }
            }
            Occurrence::Traffic { terminal } => {
                let inner = self.nodes[terminal + 1].inner();
                if let Some(inner) = inner {
                    let up = self.nodes[terminal + 1].seal(None, inner, [10, 99, 0, 7].into());
                    up.into_iter().for_each(|d| self.send(terminal + 1, d));
                    let down = self.nodes[GATE].seal(Some(inner), [10, 99, 0, 7].into(), inner);
                    down.into_iter().for_each(|d| self.send(GATE, d));
                }
                let at = self.now + self.pace;
                self.schedule(at, Occurrence::Traffic { terminal });
            }
        }
    }

    fn receive(&mut self, node: usize, datagram: Datagram) {
        let Datagram { from, to, content } = datagram;
        let addresses = Addresses { local: to, remote: from };
        let is_odd_moment = self.is_odd_moment(node, &content);
        if is_odd_moment && self.random.percent(50) {
            self.end_at_odd_moment(node);
        }
        match content {
            Content::Ike(message) => {
                self.nodes[node].endpoint.handle_datagram(self.now, addresses, &message);
            }
            Content::Keepalive => {}
            Content::Esp(esp) => self.nodes[node].open(self.now, addresses, esp, node == GATE),
        }
        self.work(node);
        if is_odd_moment {
            self.end_at_odd_moment(node);
        }
    }

    /// Carries out a node's events, starts its tasks and sends its messages.
    fn work(&mut self, node: usize) {
        if node >= self.nodes.len() {
            return;
        }
        loop {
            self.nodes[node].take_events(self.now);
            let mut is_done = true;
            while let Some((id, _, task)) = self.nodes[node].endpoint.poll_task() {
                let at = self.now + Duration::from_micros(self.random.below(4000));
                let generation = self.generations[node];
                self.schedule(at, Occurrence::TaskDone { node, generation, id, task });
                is_done = false;
            }
            while let Some(transmit) = self.nodes[node].endpoint.poll_transmit() {
                let Addresses { local: from, remote: to } = transmit.addresses;
                let content = match transmit.payload {
                    Payload::Probe(message) if message.len() > MOST => continue,
                    Payload::Message(message) | Payload::Probe(message) => {
                        Content::Ike(self.nodes[node].as_sent(message))
                    }
                    Payload::Keepalive => Content::Keepalive,
                };
                self.send(node, Datagram { from, to, content });
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
            let ends = Endpoints { from: datagram.from, to: datagram.to };
            let Some(outside) = self.networks.outward(self.now, terminal, ends) else { return };
            if outside.to.ip() != IpAddr::from(GATEWAY) {
                return;
            }
            datagram.from = outside.from;
        }
        let is_slow = node != GATE && self.habits.is_slow && matches!(datagram.content, Content::Ike(_));
        let slowness = Duration::from_millis(if is_slow { self.random.below(3000) } else { 0 });
        for delay in self.cable.carry(&mut self.random) {
            let (datagram, delay) = (datagram.clone(), delay + slowness);
            let occurrence = match node {
                GATE => Occurrence::FromGateway(datagram),
                _ => Occurrence::ToGateway(datagram),
            };
            self.schedule(self.now + delay, occurrence);
        }
    }
}
