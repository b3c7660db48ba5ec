//! A worker with tunnels to numbered terminals, whose tables a test changes itself.

use super::ports::{HOST, Hook, MACS, Ports, STATIONS};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
    sync::{Arc, Mutex},
};
use wayfarer::{
    gateway::{
        policy::{Action, Rule, Rules},
        tables::{Hop, HostSettings, PortSettings, Settings, SharedMac},
    },
    sim::{fixtures::*, frames::frame, lone_worker::LoneWorker, terminal::Terminal},
};
use wayfarer_dataplane::{
    crypto::{Backend, Key, Suite},
    drop::DropReason,
    sa::{
        Df, Encap, InboundParts, InboundSa, Limits, Marking, Mode, OutboundParts, OutboundSa, Path, Selector,
        Spi, TunnelId,
    },
    sharing::Sharing,
    table::{Prefix, Writer},
};

/// The gateway's outer IPv6 address.
pub(super) const GATEWAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));
/// The network of the servers.
pub(super) const SERVERS: &str = "10.99.0.0/24";
/// The same for IPv6.
pub(super) const SERVERS6: &str = "fd00:99::/64";

/// Returns the address of server `n`.
pub(super) fn server(n: u32) -> IpAddr {
    Ipv4Addr::new(10, 99, 0, 7 + n as u8).into()
}

/// Returns the IPv6 address of server `n`.
pub(super) fn server6(n: u32) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 7 + n as u16).into()
}

/// Returns an inner address of terminal `n`, below 128: one of the four of a /30.
pub(super) fn inner_host(n: u32, host: u32) -> IpAddr {
    Ipv4Addr::new(10, 98, (n % 4) as u8, (n / 4 * 4 + host % 4) as u8).into()
}

/// Returns the inner address that terminal `n` uses itself.
pub(super) fn inner(n: u32) -> IpAddr {
    inner_host(n, 1)
}

/// Returns an inner IPv6 address of terminal `n`: one of those of a /112.
pub(super) fn inner_host6(n: u32, host: u32) -> IpAddr {
    Ipv6Addr::new(0xfd00, 0x98, 0, 0, 0, 0, n as u16, host as u16).into()
}

/// Returns the inner IPv6 address that terminal `n` uses itself.
pub(super) fn inner6(n: u32) -> IpAddr {
    inner_host6(n, 1)
}

/// Returns the path to terminal `n` at one of its outer addresses: two of IPv4, and two of IPv6.
pub(super) fn path(n: u32, address: u32, encap: Encap) -> Path {
    let last = n as u8 + 1;
    let v6 = |subnet| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 2, subnet, 0, 0, 0, last.into()));
    let (local, remote) = match address % 4 {
        0 => (GATEWAY, Ipv4Addr::new(192, 0, 2, last).into()),
        1 => (GATEWAY, Ipv4Addr::new(198, 51, 100, last).into()),
        2 => (GATEWAY6, v6(0)),
        _ => (GATEWAY6, v6(1)),
    };
    Path { local, remote, encap }
}

/// The parameters of a tunnel, of which both ends are made.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// The number of the terminal.
    pub(super) n: u32,
    /// The number of the pair of SAs among those of the terminal, below 256. It chooses SPIs and keys.
    pub(super) generation: u32,
    pub(super) suite: Suite,
    pub(super) mode: Mode,
    pub(super) esn: bool,
    pub(super) path: Path,
    pub(super) selectors: Vec<Selector>,
    pub(super) limits: Limits,
    /// The last number used in both directions.
    pub(super) sequence: u64,
    pub(super) marking: Marking,
    pub(super) tfc: usize,
    pub(super) outer_fragments: bool,
    /// Largest outer packet in bytes.
    pub(super) mtu: u16,
    pub(super) is_pinned: bool,
    /// The gateway's address that packets must be sent to.
    pub(super) local: IpAddr,
    pub(super) sharing: Sharing,
}

impl Spec {
    /// Returns the usual parameters for terminal `n`.
    pub(super) fn new(n: u32) -> Self {
        let selectors =
            vec![selector(SERVERS, &inner(n).to_string()), selector(SERVERS6, &inner6(n).to_string())];
        Self {
            n,
            generation: 0,
            suite: suite("aes128gcm16"),
            mode: Mode::Tunnel,
            esn: false,
            path: path(n, 0, Encap::None),
            selectors,
            limits: Limits::NONE,
            sequence: 0,
            marking: Marking { dscp: None, df: Df::Copy, udp6_checksum: true },
            tfc: 0,
            outer_fragments: false,
            mtu: 1500,
            is_pinned: false,
            local: IpAddr::from([0u16; 8]),
            sharing: Sharing::One,
        }
    }

    /// Returns the usual parameters for terminal `n` in transport mode, on `path`.
    pub(super) fn transport(n: u32, path: Path) -> Self {
        let [local, remote] = [path.local, path.remote].map(|end| end.to_string());
        let selectors = vec![selector(&local, &remote)];
        Self { mode: Mode::Transport, path, local: path.local, selectors, ..Self::new(n) }
    }

    /// Returns the SPI of packets from the terminal, or of those to it.
    pub(super) fn spi(&self, is_inbound: bool) -> Spi {
        let base = if is_inbound { 0x1_0000 } else { 0x2_0000 };
        Spi(base + (self.n << 8) + self.generation)
    }

    /// Returns the rules of the tunnel with this action.
    pub(super) fn rules(&self, action: &Action) -> Vec<Rule> {
        let rule = |selector: &Selector| Rule { selector: selector.clone(), action: action.clone() };
        self.selectors.iter().map(rule).collect()
    }

    fn seed(&self, is_inbound: bool) -> u32 {
        self.spi(is_inbound).0 * 3
    }

    fn key(&self, is_inbound: bool) -> Key {
        let material = material(self.suite, self.seed(is_inbound));
        Key::new(self.suite, &material, Backend::detect()).expect("a key of its suite's length")
    }

    fn outbound(&self, writer: &Writer) -> OutboundSa {
        OutboundSa::new(
            writer,
            OutboundParts {
                tunnel: TunnelId(self.n),
                spi: self.spi(false),
                key: self.key(false),
                esn: self.esn,
                mode: self.mode,
                outer_fragments: self.outer_fragments,
                selects_ports: self.selectors.iter().any(Selector::has_ports),
                marking: self.marking,
                tfc: self.tfc,
                mtu: self.mtu.into(),
                limits: self.limits,
                path: Some(self.path),
                sequence: self.sequence,
                // The same in every gateway of a test.
                iv_mask: 0x1234_5678_9abc_def0,
                sharing: self.sharing,
            },
        )
    }

    fn inbound(&self) -> InboundSa {
        InboundSa::new(InboundParts {
            tunnel: TunnelId(self.n),
            link: self.n as u16,
            spi: self.spi(true),
            key: self.key(true),
            esn: self.esn,
            mode: self.mode,
            local: self.local,
            pin: self.is_pinned.then_some(self.path.remote),
            watch: true,
            window: 1024,
            sequence: self.sequence,
            selectors: self.selectors.iter().cloned().collect(),
            limits: self.limits,
            inner_mtu: 1400,
            path: Some(self.path),
            sharing: self.sharing,
        })
    }

    /// Makes the terminal's end.
    pub(super) fn terminal(&self) -> Terminal {
        let sas =
            [true, false].map(|is_inbound| sa(self.spi(is_inbound).0, self.suite, self.seed(is_inbound)));
        let mut terminal = Terminal::of([&sas[0], &sas[1]], self.path.remote, Backend::detect());
        terminal.esn = self.esn;
        terminal.seq = self.sequence;
        terminal.gateway = self.path.local;
        if let Encap::Udp { local, remote } = self.path.encap {
            (terminal.port, terminal.gateway_port) = (Some(remote), local);
        }
        terminal
    }
}

/// The gateway's end of a tunnel.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) outbound: Arc<OutboundSa>,
    pub(super) inbound: Arc<InboundSa>,
}

/// The rules of one prefix.
#[derive(Debug, Default)]
struct Layers {
    tunnels: Vec<Rule>,
    policies: Vec<Rule>,
}

/// A worker with tunnels.
pub(super) struct TestGateway {
    pub(super) worker: LoneWorker,
    ports: Ports,
    /// Of all ports.
    hook: Hook,
    /// Frames that have come out of each port, without the tags of VLANs.
    taken: [Vec<Vec<u8>>; 3],
    /// The tunnels that were not forgotten, by the number of their terminal.
    pub(super) pairs: BTreeMap<u32, Pair>,
    rules: BTreeMap<Prefix, Layers>,
}

impl TestGateway {
    /// Makes a gateway with the tunnels of `specs` that remembers `flow_cache` flows. With `discards`,
    /// there may be rules that discard.
    pub(super) fn new(flow_cache: usize, discards: bool, specs: &[Spec]) -> Self {
        Self::on(Ports::Two, flow_cache, discards, specs)
    }

    /// Does the same on these ports.
    pub(super) fn on(ports: Ports, flow_cache: usize, discards: bool, specs: &[Spec]) -> Self {
        let fills = |index| ports == Ports::Filling && index == OUTSIDE;
        let port = |index: usize| PortSettings::new(MACS[index], 1500, fills(index), false);
        let host = || HostSettings { port: HOST as u16, mac: SharedMac::new(STATIONS[HOST]) };
        let settings = Settings {
            ports: ports.indices().map(port).collect(),
            encap_ports: Box::new([4500, 14500]),
            siu_port: None,
            home_agent: None,
            host: ports.indices().contains(&HOST).then(host),
            mss_clamp: true,
            discards,
            nats: Box::new([]),
        };
        let hook = Hook::default();
        let worker = LoneWorker::on(ports.open(&hook), settings, 64, flow_cache);
        let (pairs, rules, taken) = (BTreeMap::new(), BTreeMap::new(), Default::default());
        let mut this = Self { worker, ports, hook, taken, pairs, rules };
        for own in [GATEWAY, GATEWAY6] {
            this.route(Prefix::host(own), Some(Hop::Local));
        }
        for (port, networks) in [
            (
                OUTSIDE,
                &["192.0.2.0/24", "198.51.100.0/24", "2001:db8:2::/48", "10.98.0.0/16", "fd00:98::/48"][..],
            ),
            (INSIDE, &[SERVERS, SERVERS6]),
        ] {
            let hop = Hop::Port { port: port as u16, mac: STATION_MAC[port] };
            networks.iter().for_each(|network| this.route(prefix(network), Some(hop)));
        }
        specs.iter().for_each(|spec| this.install(spec));
        this
    }

    /// Sets the route to exactly `to`, or removes it.
    pub(super) fn route(&mut self, to: Prefix, hop: Option<Hop>) {
        let LoneWorker { tables, writer, .. } = &mut self.worker;
        match hop {
            Some(hop) => tables.routes.insert(writer, to, hop),
            None => _ = tables.routes.remove(writer, to),
        }
    }

    /// Installs a tunnel, in place of the one that its terminal had.
    pub(super) fn install(&mut self, spec: &Spec) {
        let LoneWorker { tables, writer, .. } = &mut self.worker;
        let pair = Pair { outbound: Arc::new(spec.outbound(writer)), inbound: Arc::new(spec.inbound()) };
        tables.inbound.insert(writer, pair.inbound.spi, pair.inbound.clone());
        self.set_tunnel_rules(spec.n, spec.rules(&Action::Protect(pair.outbound.clone())));
        if let Some(old) = self.pairs.insert(spec.n, pair)
            && old.inbound.spi != spec.spi(true)
        {
            let LoneWorker { tables, writer, .. } = &mut self.worker;
            tables.inbound.remove(writer, &old.inbound.spi);
        }
    }

    /// Returns the action that sends packets through the tunnel of terminal `n`.
    pub(super) fn protect(&self, n: u32) -> Action {
        Action::Protect(self.pairs[&n].outbound.clone())
    }

    /// Takes the tunnel of terminal `n` out of the tables. It stays in `pairs`.
    pub(super) fn end(&mut self, n: u32) {
        self.set_tunnel_rules(n, vec![]);
        if let Some(pair) = self.pairs.get(&n) {
            let LoneWorker { tables, writer, .. } = &mut self.worker;
            tables.inbound.remove(writer, &pair.inbound.spi);
        }
    }

    /// Puts the tunnel of a terminal that was taken out of the tables there again, with the same SAs.
    pub(super) fn resume(&mut self, spec: &Spec) {
        let inbound = self.pairs[&spec.n].inbound.clone();
        let LoneWorker { tables, writer, .. } = &mut self.worker;
        tables.inbound.insert(writer, inbound.spi, inbound);
        self.set_tunnel_rules(spec.n, spec.rules(&self.protect(spec.n)));
    }

    /// Replaces the rules of the tunnel of terminal `n`.
    pub(super) fn set_tunnel_rules(&mut self, n: u32, rules: Vec<Rule>) {
        let mut changed: Vec<Prefix> = rules.iter().map(|rule| rule.selector.remote).collect();
        for (prefix, layers) in &mut self.rules {
            let before = layers.tunnels.len();
            layers.tunnels.retain(|rule| rule.tunnel() != Some(TunnelId(n)));
            if layers.tunnels.len() != before && !changed.contains(prefix) {
                changed.push(*prefix);
            }
        }
        for rule in rules {
            self.rules.entry(rule.selector.remote).or_default().tunnels.push(rule);
        }
        changed.into_iter().for_each(|prefix| self.publish(prefix));
    }

    /// Replaces the policies for exactly `prefix`.
    pub(super) fn set_policies(&mut self, prefix: Prefix, policies: Vec<Rule>) {
        self.rules.entry(prefix).or_default().policies = policies;
        self.publish(prefix);
    }

    /// Sets one policy for everything to `to`, or removes those for it.
    pub(super) fn set_policy(&mut self, to: Prefix, action: Option<Action>) {
        let everything = prefix(if to.is_ipv4() { "0.0.0.0/0" } else { "::/0" });
        let rule = |action| Rule { selector: Selector::configured(everything, to), action };
        self.set_policies(to, action.map(rule).into_iter().collect());
    }

    fn publish(&mut self, prefix: Prefix) {
        let LoneWorker { tables, writer, .. } = &mut self.worker;
        let rules = self.rules.get(&prefix).map(|Layers { tunnels, policies }| {
            Rules::default()
                .with_tunnels(|draft| tunnels.iter().for_each(|rule| draft.insert(rule.clone(), |_| true)))
                .with_policies(|draft| policies.iter().for_each(|rule| draft.insert(rule.clone(), |_| true)))
        });
        match rules {
            Some(rules) if !rules.is_empty() => tables.policies.insert(writer, prefix, rules),
            _ => _ = tables.policies.remove(writer, prefix),
        }
    }

    /// Sends everything to terminal `n` to `path` from now on, in outer packets of up to `mtu` bytes.
    pub(super) fn move_to(&mut self, n: u32, path: Path, mtu: u16) {
        if let Some(Pair { outbound, inbound }) = self.pairs.get(&n) {
            outbound.set_path(&mut self.worker.writer, path, mtu);
            inbound.set_path(path, 1400);
        }
    }

    /// Puts an IP packet on the wire of `port`.
    pub(super) fn put(&mut self, port: usize, packet: &[u8]) {
        self.put_frame(port, &frame(MACS[port], STATIONS[port], packet));
    }

    /// Puts a frame on the wire of `port`, with its tag if it is in a VLAN.
    pub(super) fn put_frame(&mut self, port: usize, frame: &[u8]) {
        let frame = self.ports.tagged(port, frame);
        assert!(self.worker.wires[self.ports.wire(port)].send(&frame), "the wire is full");
    }

    /// Takes the frames that have come out of `port`.
    pub(super) fn take(&mut self, port: usize) -> Vec<Vec<u8>> {
        for frame in self.worker.take(self.ports.wire(port)) {
            let (from, frame) = self.ports.untagged(port, frame);
            self.taken[from].push(frame);
        }
        std::mem::take(&mut self.taken[port])
    }

    /// Returns the indices of all ports.
    pub(super) fn all_ports(&self) -> Range<usize> {
        self.ports.indices()
    }

    /// Turns once, and makes `change` in the middle of that turn, before anything has been received.
    pub(super) fn change_in_turn(&mut self, change: impl FnOnce(&mut Writer) + Send + 'static) {
        let writer = Arc::new(Mutex::new(std::mem::take(&mut self.worker.writer)));
        let own = writer.clone();
        self.hook.set(move || change(&mut own.lock().unwrap()));
        self.worker.turn();
        let writer = Arc::into_inner(writer).expect("the change was made");
        self.worker.writer = writer.into_inner().unwrap();
    }

    /// Turns until there is nothing left to do, then frees what nobody can use any more.
    pub(super) fn settle(&mut self) {
        self.worker.settle();
        assert_eq!(self.worker.writer.collect(), 0, "the worker has passed a quiescent point");
    }

    /// Sends IP packets to `port` in one burst. Returns the frames that come out of `exit`.
    pub(super) fn exchange(&mut self, port: usize, packets: &[Vec<u8>], exit: usize) -> Vec<Vec<u8>> {
        packets.iter().for_each(|packet| self.put(port, packet));
        self.settle();
        self.take(exit)
    }

    /// Returns the drops of every reason that has occurred.
    pub(super) fn drops(&self) -> Vec<(DropReason, u64)> {
        let all = DropReason::ALL.iter().map(|&reason| (reason, self.worker.counters.drops.of(reason)));
        all.filter(|(_, packets)| *packets > 0).collect()
    }
}

/// Parses a prefix.
pub(super) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap_or_else(|_| panic!("{text} is not a prefix"))
}
