//! Random changes of tables and ports, which are made to several gateways alike.

use super::{
    gateway::{
        GATEWAY6, SERVERS, SERVERS6, Spec, TestGateway, inner_host, inner_host6, path, prefix, server,
        server6,
    },
    ports::{HOST, MACS, STATIONS},
    traffic::Traffic,
    varied::{TERMINALS, is_counted, varied},
};
use std::collections::BTreeSet;
use wayfarer::{
    gateway::{
        policy::{Action, Rule},
        tables::{Awaited, Hop},
    },
    sim::{fixtures::*, lone_worker::LoneWorker, random::Random},
};
use wayfarer_dataplane::{
    port::Mac,
    sa::{Encap, Mode, Path, TunnelId},
    table::Prefix,
    wire::Address,
};

/// Networks whose routes go and come back, with their port.
const NETWORKS: [(&str, usize); 5] = [
    (SERVERS, INSIDE),
    (SERVERS6, INSIDE),
    ("192.0.2.0/24", OUTSIDE),
    ("198.51.100.0/24", OUTSIDE),
    ("2001:db8:2::/48", OUTSIDE),
];
/// Lengths of IPv6 prefixes that policies are for.
const V6_LENGTHS: [u8; 8] = [40, 48, 64, 80, 96, 112, 120, 128];
/// MTUs of ports and paths in bytes.
const MTUS: [u16; 4] = [1500, 1300, 700, 576];

/// One change.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Route(Prefix, Option<Hop>),
    /// The gateway sends everything to terminal `n` by this path, in outer packets of up to `mtu` bytes.
    Move {
        n: u32,
        path: Path,
        mtu: u16,
    },
    Policy(Prefix, Option<Action>),
    /// The tunnel is taken out of the tables.
    End(Spec),
    /// The tunnel is put there again.
    Resume(Spec),
    /// The rules of the tunnel stay, but its SA has expired.
    Expire(Spec),
    /// The terminal gets a tunnel with new SAs.
    Install(Spec),
    /// The tunnel also carries packets to a server, or no longer.
    Backward(Spec, Option<u32>),
    PortMtu(usize, u16),
    PortMac(usize, Mac),
    HostMac(Mac),
    PortDown(usize, bool),
    /// The inbound SA is about to be made, or is not any more.
    Await(Spec, bool),
}

impl Change {
    /// Makes the change.
    pub(super) fn apply(&self, gateway: &mut TestGateway) {
        match self {
            Self::Route(to, hop) => gateway.route(*to, *hop),
            Self::Move { n, path, mtu } => gateway.move_to(*n, *path, *mtu),
            Self::Policy(to, action) => gateway.set_policy(*to, action.clone()),
            Self::End(spec) => gateway.end(spec.n),
            Self::Resume(spec) => gateway.resume(spec),
            Self::Expire(spec) => {
                gateway.set_tunnel_rules(spec.n, spec.rules(&Action::Ended(TunnelId(spec.n))));
            }
            Self::Install(spec) => gateway.install(spec),
            Self::Backward(spec, to) => {
                let action = gateway.protect(spec.n);
                let mut rules = spec.rules(&action);
                rules.extend(to.map(|to| {
                    let selector = selector("10.98.0.0/16", &server(to).to_string());
                    Rule { selector, action: action.clone() }
                }));
                gateway.set_tunnel_rules(spec.n, rules);
            }
            Self::PortMtu(port, mtu) => {
                gateway.worker.tables.settings.ports[*port].set_mtu(usize::from(*mtu));
            }
            Self::PortMac(port, mac) => gateway.worker.tables.settings.ports[*port].mac.set(*mac),
            Self::HostMac(mac) => {
                if let Some(host) = &gateway.worker.tables.settings.host {
                    host.mac.set(*mac);
                }
            }
            Self::PortDown(port, is_down) => gateway.worker.rings.set_down(*port, *is_down),
            Self::Await(spec, is_awaited) => {
                let LoneWorker { tables, writer, .. } = &mut gateway.worker;
                let spi = spec.spi(true);
                match is_awaited {
                    true => tables.awaited.insert(writer, spi, Awaited::default()),
                    false => _ = tables.awaited.remove(writer, &spi),
                }
            }
        }
    }
}

/// The effects of changes, until they are undone.
pub(super) struct Disorder {
    discards: bool,
    routes: BTreeSet<Prefix>,
    policies: BTreeSet<Prefix>,
    /// Terminals without a tunnel in use.
    ended: BTreeSet<u32>,
    /// Terminals that servers are behind.
    backward: BTreeSet<u32>,
    /// Terminals with another MTU than the usual one.
    narrow: BTreeSet<u32>,
}

impl Disorder {
    /// Returns none yet. With `discards`, policies may discard.
    pub(super) fn new(discards: bool) -> Self {
        let (routes, policies, ended) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { discards, routes, policies, ended, backward: BTreeSet::new(), narrow: BTreeSet::new() }
    }

    /// Returns whether packets out of several tunnels may go into one.
    pub(super) fn has_backward(&self) -> bool {
        !self.backward.is_empty()
    }

    /// Draws a change.
    pub(super) fn draw(&mut self, traffic: &mut Traffic) -> Vec<Change> {
        let n = traffic.random.below(TERMINALS.into()) as u32;
        let spec = traffic.peers[n as usize].spec.clone();
        let random = &mut traffic.random;
        let drawn = match random.below(20) {
            0 | 1 => {
                let to = Prefix::host(spec.path.remote);
                self.route(to, traffic, [OUTSIDE, INSIDE])
            }
            2 | 3 => return vec![self.draw_move(n, traffic)],
            4 => {
                let mtu = MTUS[random.index(MTUS.len())];
                self.narrow.insert(n);
                Change::Move { n, path: spec.path, mtu }
            }
            5 | 6 => {
                let to = draw_prefix(&spec, random);
                let action = match random.below(3) {
                    0 if self.discards => Action::Discard,
                    1 => Action::Bypass,
                    _ => Action::Guard,
                };
                self.policies.insert(to);
                Change::Policy(to, Some(action))
            }
            7 => {
                let Some(to) = self.policies.pop_first() else { return vec![] };
                Change::Policy(to, None)
            }
            8 => {
                self.ended.insert(n);
                let is_awaited = random.percent(30);
                return vec![Change::Await(spec.clone(), is_awaited), Change::End(spec)];
            }
            9 => {
                self.ended.insert(n);
                Change::Expire(spec)
            }
            10 => {
                let Some(n) = self.ended.pop_first() else { return vec![] };
                Change::Resume(traffic.peers[n as usize].spec.clone())
            }
            11 | 12 => return vec![self.draw_rekey(&spec, traffic)],
            13 => {
                let n = random.below(4) as u32;
                let to = if random.percent(50) { server(n) } else { server6(n) };
                self.route(Prefix::host(to), traffic, [INSIDE, OUTSIDE])
            }
            14 => Change::PortMtu(random.index(2), MTUS[random.index(MTUS.len())]),
            15 => {
                let port = random.index(MACS.len());
                traffic.macs[port] = [2, 0, 0, 0, 5, traffic.random.next() as u8];
                Change::PortMac(port, traffic.macs[port])
            }
            16 => Change::PortDown(random.index(MACS.len()), random.percent(40)),
            17 => {
                let (network, port) = NETWORKS[random.index(NETWORKS.len())];
                let hop = Hop::Port { port: port as u16, mac: STATION_MAC[port] };
                self.routes.insert(prefix(network));
                Change::Route(prefix(network), random.percent(60).then_some(hop))
            }
            18 => Change::HostMac([2, 0, 0, 0, 6, random.next() as u8]),
            _ => match random.below(3) {
                0 => {
                    // Never one of its own, where single fragments would wait for others.
                    let own = [inner_host(n, 1), inner_host6(n, 1), GATEWAY, GATEWAY6][random.index(4)];
                    self.routes.insert(Prefix::host(own));
                    Change::Route(Prefix::host(own), random.percent(50).then_some(Hop::Host))
                }
                1 if !is_counted(&spec) && spec.mode == Mode::Tunnel => {
                    self.backward.insert(n);
                    Change::Backward(spec, Some(random.below(4) as u32))
                }
                _ => {
                    let Some(n) = self.backward.pop_first() else { return vec![] };
                    Change::Backward(traffic.peers[n as usize].spec.clone(), None)
                }
            },
        };
        vec![drawn]
    }

    /// Draws a route to a host that is usually at the first of two ports.
    fn route(&mut self, to: Prefix, traffic: &mut Traffic, [usual, other]: [usize; 2]) -> Change {
        let random = &mut traffic.random;
        let mac = [2, 0, 0, 0, 1, random.next() as u8];
        let hop = match random.below(10) {
            0..5 => Some(Hop::Port { port: usual as u16, mac }),
            5 => Some(Hop::Port { port: other as u16, mac }),
            6 => Some(Hop::Resolve { port: usual as u16, via: None }),
            7 => Some(Hop::Resolve { port: usual as u16, via: Some(server(99)) }),
            _ => None,
        };
        self.routes.insert(to);
        Change::Route(to, hop)
    }

    /// Draws another path to terminal `n`. Mostly, that sends by it too. In transport mode, the addresses
    /// stay.
    fn draw_move(&mut self, n: u32, traffic: &mut Traffic) -> Change {
        let Traffic { random, peers, .. } = traffic;
        let local = [4500, 14_500][random.index(2)];
        let encap = match random.percent(50) {
            true => Encap::None,
            false => Encap::Udp { local, remote: 40_000 + random.below(3) as u16 },
        };
        let drawn = path(n, random.below(4) as u32, encap);
        let peer = &mut peers[n as usize];
        let path = match peer.spec.mode {
            Mode::Tunnel => drawn,
            Mode::Transport => Path { encap, ..peer.spec.path },
        };
        peer.spec.path = path;
        if random.percent(70) {
            peer.send_by(path);
        }
        self.narrow.remove(&n);
        Change::Move { n, path, mtu: 1500 }
    }

    /// Draws new SAs for a terminal, sometimes for one server only.
    fn draw_rekey(&mut self, old: &Spec, traffic: &mut Traffic) -> Change {
        let mut spec = Spec { generation: (old.generation + 1) % 250, path: old.path, ..varied(old.n) };
        if Address::from(spec.local) != Address::UNSPECIFIED {
            spec.local = spec.path.local;
        }
        if traffic.random.percent(30) && spec.mode == Mode::Tunnel {
            spec.selectors[0].local = Prefix::host(server(0));
        }
        self.ended.remove(&old.n);
        self.backward.remove(&old.n);
        self.narrow.remove(&old.n);
        traffic.rekey(spec.clone());
        Change::Install(spec)
    }

    /// Returns the changes that undo all others, but for paths and SAs.
    pub(super) fn end(&mut self, traffic: &mut Traffic) -> Vec<Change> {
        let usual = |to: Prefix| {
            let mut networks = NETWORKS.iter().filter(|(network, _)| prefix(network) == to);
            let port = networks.next().map(|(_, port)| *port);
            let by_port = port.map(|port| Hop::Port { port: port as u16, mac: STATION_MAC[port] });
            let is_own = [GATEWAY, GATEWAY6].map(Prefix::host).contains(&to);
            by_port.or(is_own.then_some(Hop::Local))
        };
        let spec = |n: u32| traffic.peers[n as usize].spec.clone();
        let mut changes = vec![];
        let (routes, policies) = (std::mem::take(&mut self.routes), std::mem::take(&mut self.policies));
        changes.extend(routes.into_iter().map(|to| Change::Route(to, usual(to))));
        changes.extend(policies.into_iter().map(|to| Change::Policy(to, None)));
        changes
            .extend(std::mem::take(&mut self.backward).into_iter().map(|n| Change::Backward(spec(n), None)));
        changes.extend((0..TERMINALS).map(|n| Change::Await(spec(n), false)));
        changes.extend(std::mem::take(&mut self.ended).into_iter().map(|n| Change::Resume(spec(n))));
        let wide = |n| Change::Move { n, path: spec(n).path, mtu: 1500 };
        changes.extend(std::mem::take(&mut self.narrow).into_iter().map(wide));
        for port in [OUTSIDE, INSIDE, HOST] {
            changes.extend([
                Change::PortMtu(port, 1500),
                Change::PortMac(port, MACS[port]),
                Change::PortDown(port, false),
            ]);
        }
        changes.push(Change::HostMac(STATIONS[HOST]));
        traffic.macs = MACS;
        changes
    }
}

/// Draws a prefix around an inner address of a tunnel's peer, or now and then around one of the gateway's
/// own.
fn draw_prefix(spec: &Spec, random: &mut Random) -> Prefix {
    let host = random.below(4) as u32;
    let address = match spec.mode {
        _ if random.percent(10) => return Prefix::host([GATEWAY, GATEWAY6][random.index(2)]),
        Mode::Transport => spec.path.remote,
        Mode::Tunnel if random.percent(60) => inner_host(spec.n, host),
        Mode::Tunnel => inner_host6(spec.n, host),
    };
    let length = match address.is_ipv4() {
        true => 17 + random.below(16) as u8,
        false => V6_LENGTHS[random.index(V6_LENGTHS.len())],
    };
    Prefix::new(address, length).expect("a length of its family")
}
