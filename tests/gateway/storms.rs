//! A fleet of manually keyed terminals that move between networks, behind NATs of every kind and
//! without one, under random disturbances.

use std::{
    collections::HashSet,
    net::{Ipv4Addr, SocketAddr},
    panic,
    time::Duration,
};
use wayfarer::sim::{
    disturbance::{Attachment, Disturbance, Link, Model},
    fixtures::{GATEWAY, INSIDE, OUTSIDE, suite, tunnel},
    frames::{datagram, endpoints},
    nat::{Endpoints, Nat},
    networks::Networks,
    random::Random,
    terminal::Terminal,
    world::World,
};
use wayfarer_dataplane::wire::esp::NAT_T_PORT;

const TERMINALS: usize = 60;
const SUITE: &str = "aes128gcm16";
/// The host inside.
const HOST: &str = "10.99.0.7";

/// The gateway, its terminals, and the networks between them.
struct Fleet {
    world: World,
    random: Random,
    terminals: Vec<Terminal>,
    networks: Networks,
    model: Model,
    /// Where the gateway sent its last packet to each terminal.
    remotes: Vec<Option<SocketAddr>>,
    /// Every endpoint that a packet of a terminal came from.
    seen: HashSet<SocketAddr>,
}

impl Fleet {
    fn new(seed: u64) -> Self {
        let world = World::new((1..=TERMINALS as u32).map(|n| tunnel(n, suite(SUITE))).collect());
        let mut this = Self {
            world,
            random: Random(seed),
            terminals: vec![],
            networks: Networks::new(Nat::all(Ipv4Addr::UNSPECIFIED.into())),
            model: Model::default(),
            remotes: vec![None; TERMINALS],
            seen: HashSet::new(),
        };
        for n in 1..=TERMINALS as u32 {
            let at = this.draw_attachment();
            this.networks.attach(at);
            this.model.add(at);
            this.terminals.push(Terminal::new(n, suite(SUITE), "0.0.0.0"));
        }
        this
    }

    fn draw_attachment(&mut self) -> Attachment {
        let nat = self.random.percent(75).then(|| self.random.index(self.networks.nats.len()));
        self.networks.vacancy(nat)
    }

    /// Draws a disturbance of those that manually keyed tunnels know.
    fn draw(&mut self) -> Disturbance {
        let terminal = self.random.index(TERMINALS);
        match self.random.below(8) {
            0 | 1 => Disturbance::NatRestart { nat: self.random.index(self.networks.nats.len()) },
            2 => Disturbance::BlackHole { terminal },
            3 => Disturbance::Repair { terminal },
            _ => Disturbance::Move { terminal, to: self.draw_attachment() },
        }
    }

    /// Applies a disturbance to the networks and to the model.
    fn disturb(&mut self, disturbance: &Disturbance) {
        let remotes = |terminal: usize| self.remotes[terminal].into_iter().collect();
        self.model.apply(disturbance, |terminal, _| Link { remotes: remotes(terminal), ..Link::default() });
        self.networks.apply(disturbance);
    }

    /// Sends a packet from a terminal; returns whether it came out inside.
    fn up(&mut self, terminal: usize) -> bool {
        let at = self.networks.attachment(terminal);
        // Plain ESP has no ports, and does not pass a NAT.
        let port = if at.nat.is_some() { NAT_T_PORT } else { 0 };
        let [from, to] = [at.address, GATEWAY].map(|address| SocketAddr::new(address, port));
        let ends = self.networks.outward(self.world.now, terminal, Endpoints { from, to });
        let Some(Endpoints { from, .. }) = ends else { return false };
        self.seen.insert(from);
        self.terminals[terminal].send_from(from);
        let inner = datagram(&inner(terminal), HOST, (1, 2), b"up");
        let packet = self.terminals[terminal].seal(&inner);
        self.world.send(OUTSIDE, &packet);
        self.world.take(INSIDE).len() == 1
    }

    /// Sends a packet to a terminal; returns the endpoint that the gateway sends it to, and whether
    /// the terminal gets and opens it.
    fn down(&mut self, terminal: usize) -> Option<(SocketAddr, bool)> {
        self.world.send(INSIDE, &datagram(HOST, &inner(terminal), (2, 1), b"down"));
        let out = self.world.take(OUTSIDE);
        let [packet] = &out[..] else { return None };
        let (ends, _) = endpoints(packet).unwrap();
        assert!(self.seen.contains(&ends.to), "{} was never a terminal's", ends.to);
        self.remotes[terminal] = Some(ends.to);
        let reached = self.networks.inward(self.world.now, ends);
        let is_opened = |(reached, _): (usize, _)| self.terminals[reached].try_open(packet).is_some();
        let is_reached = reached.is_some_and(|reached| reached.0 == terminal && is_opened(reached));
        Some((ends.to, is_reached))
    }

    /// Sends a packet from each reachable terminal, and asserts that the gateway then reaches each
    /// one where the model says.
    fn assert_followed(&mut self) {
        let expected: Vec<_> =
            self.model.reachable().map(|(terminal, expected)| (terminal, expected.clone())).collect();
        for (terminal, _) in &expected {
            assert!(self.up(*terminal), "terminal {terminal}: {:?}", self.world.all_drops());
        }
        for (terminal, expected) in expected {
            let at = expected.at;
            let (remote, is_reached) = self.down(terminal).expect("the gateway knows the terminal's address");
            assert!(is_reached, "terminal {terminal} at {at:?}, not at {remote}");
            assert_eq!(remote.ip(), self.networks.external_address(at), "terminal {terminal} at {at:?}");
            let is_reused = at.nat.is_none_or(|nat| self.networks.nats[nat].preserves_ports);
            assert!(
                is_reused || !expected.over.remotes.contains(&remote),
                "terminal {terminal}: an old port"
            );
        }
    }
}

/// Returns the inner address of a terminal.
fn inner(terminal: usize) -> String {
    format!("10.98.0.{}", terminal + 1)
}

/// Disturbs a fleet while packets flow, and checks that the gateway follows every terminal.
fn storm(seed: u64) {
    let mut fleet = Fleet::new(seed);
    fleet.assert_followed();
    for _ in 0..40 {
        for _ in 0..12 {
            let disturbance = fleet.draw();
            fleet.disturb(&disturbance);
            // The sender's packet may be lost, and the recipient may no longer be where the gateway
            // sends to.
            let (sender, recipient) = (fleet.random.index(TERMINALS), fleet.random.index(TERMINALS));
            fleet.up(sender);
            fleet.down(recipient);
            let pause = Duration::from_millis(fleet.random.below(500));
            fleet.world.pass(pause);
        }
        fleet.assert_followed();
    }
    (0..TERMINALS).for_each(|terminal| fleet.disturb(&Disturbance::Repair { terminal }));
    // Every mapping of a NAT expires.
    fleet.world.pass(Duration::from_secs(150));
    fleet.assert_followed();
    assert_eq!(fleet.world.all_drops(), []);
}

#[test]
fn gateway_follows_every_terminal_through_a_storm() {
    for seed in 1..=8 {
        panic::catch_unwind(|| storm(seed)).unwrap_or_else(|why| {
            eprintln!("seed {seed}");
            panic::resume_unwind(why)
        });
    }
}
