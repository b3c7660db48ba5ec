//! The slow path: one thread for neighbours, routes, links, errors to senders, and control
//! requests. It is the only writer of all tables. It changes tables, never data packets.

pub mod neighbours;
pub mod tunnels;

mod clock;
mod counters;
mod device_changes;
mod devices;
mod early_packets;
mod handles;
mod home_agent;
mod home_agents;
pub(crate) mod ike;
mod kernel;
mod line_limit;
mod link_log;
mod links;
mod mobility;
mod mtu_source;
mod nat;
mod network;
mod parts;
mod policies;
mod problem_limit;
mod punts;
mod routes;
mod table_writer;
mod turn;
mod view;

pub use counters::SlowPathCounters;
pub use handles::{PortHandle, SubPort, WorkerHandle, kind_in_vlan};
pub use turn::Stop;

use crate::{
    barrier::SharedBarrier,
    config::model::{self, Config, PolicyAction},
    control::protocol::{Answer, Command},
    gateway::{
        policy::{Action, Rule},
        rings::{self, Inject},
        tables::Tables,
    },
};
use clock::Clock;
use crossbeam::channel::{Receiver, Sender};
use devices::Devices;
use early_packets::EarlyPacket;
use home_agent::HomeAgent;
use home_agents::HomeAgents;
use ike::Ike;
use kernel::{Change, Kernel};
use links::{Event, Links};
use nat::Nats;
use neighbours::{Neighbours, Segment};
use network::Network;
use problem_limit::ProblemLimit;
use routes::{NextHop, Origin, Routes};
use std::{io, net::IpAddr, sync::Arc, time::Duration};
use table_writer::TableWriter;
use tracing::warn;
use tunnels::{MoveError, Tunnels};
use wayfarer_dataplane::{
    crypto::KeyError,
    drop::DropReason,
    sharing::Sharing,
    table::{Prefix, Writer},
};

/// Most events that are taken from one worker in one turn.
const MAX_EVENTS: usize = 512;

/// A command of the control socket, and the channel for its answer.
pub type ControlRequest = (Command, Sender<Answer>);

/// The parts of a new configuration that can change while the gateway runs.
#[derive(Debug)]
pub struct NewConfig {
    /// Static neighbours.
    pub neighbours: Vec<model::Neighbour>,
    /// IKE's connections and their settings.
    pub ike: Box<model::Ike>,
    /// A channel on which the slow path says that it uses these.
    pub done: Sender<()>,
}

/// The slow path.
#[derive(Debug)]
pub struct SlowPath {
    clock: Clock,
    workers: Vec<WorkerHandle>,
    links: Links,
    network: Network,
    neighbours: Neighbours,
    nats: Nats,
    kernel: Option<Kernel>,
    /// The kernel's indices of the devices that are its sides of ports.
    kernel_sides: Vec<u32>,
    ike: Option<Ike>,
    home_agents: HomeAgents,
    home_agent: Option<HomeAgent>,
    requests: Receiver<ControlRequest>,
    new_config: Receiver<NewConfig>,
    counters: SlowPathCounters,
    problems: ProblemLimit,
    devices: Devices,
    /// Keeps the host from forwarding by devices that appear later; `None` if nobody does.
    barrier: Option<SharedBarrier>,
    next_worker: usize,
}

impl SlowPath {
    /// Creates a slow path and fills `tables`, which belong to `writer`, from `config`.
    ///
    /// # Errors
    /// A key that is invalid for its algorithm.
    pub fn new(
        config: &Config,
        writer: Writer,
        tables: Arc<Tables>,
        workers: Vec<WorkerHandle>,
        ports: Vec<PortHandle>,
        (requests, new_config): (Receiver<ControlRequest>, Receiver<NewConfig>),
    ) -> Result<Self, KeyError> {
        let segments: Vec<Segment> = ports.iter().map(|p| p.segment.clone()).collect();
        let routes = Routes::new(segments.iter().map(|s| s.stations).collect());
        let mut this = Self {
            clock: Clock::start(),
            links: Links::new(TableWriter::new(tables, writer), Sharing::among(workers.len()))?,
            network: Network { ports, routes },
            neighbours: Neighbours::new(segments),
            nats: Nats::new(&config.nats),
            kernel: None,
            kernel_sides: vec![],
            ike: None,
            home_agents: HomeAgents::new(&config.siu),
            home_agent: None,
            counters: SlowPathCounters::default(),
            problems: ProblemLimit::default(),
            devices: Devices::default(),
            barrier: None,
            next_worker: 0,
            workers,
            requests,
            new_config,
        };
        for (index, port) in this.network.ports.iter().enumerate() {
            this.nats.share_pings(index, port.shared.as_ref().map(|shared| shared.classifier.clone()));
        }
        this.install_routes(config);
        this.install_tunnels(&config.tunnels)?;
        // After the tunnels, so that a wide policy does not uncover traffic that a tunnel with the
        // same prefix protects.
        let rules = config.policies.iter().map(|policy| Rule {
            selector: policy.selector.clone(),
            action: match policy.action {
                PolicyAction::Bypass => Action::Bypass,
                PolicyAction::Discard => Action::Discard,
            },
        });
        policies::add(rules, &mut this.links.tables);
        // Before the first packet.
        this.reload_neighbours(this.clock.now(), &config.neighbours);
        Ok(this)
    }

    fn install_routes(&mut self, config: &Config) {
        let Network { ports, routes } = &mut self.network;
        let tables = &mut self.links.tables;
        for (index, port) in (0..).zip(ports) {
            for (address, subnet) in &port.segment.addresses {
                routes.insert(tables, Prefix::host(*address), Origin::Local, NextHop::Local);
                let hop = NextHop::Port { port: index, via: None };
                routes.insert(tables, *subnet, Origin::Connected, hop);
            }
        }
        for route in &config.routes {
            let hop = NextHop::Port { port: route.port as u16, via: route.via };
            routes.insert(tables, route.to, Origin::Config, hop);
        }
    }

    /// Starts IKE, and connects to the peers that the configuration has addresses of. Does nothing
    /// if there are no connections.
    ///
    /// # Errors
    /// The system's error for a thread or for the key log's folder.
    pub fn start_ike(&mut self, config: &model::Ike) -> io::Result<()> {
        if !config.connections.is_empty() {
            let cores: Vec<usize> = self.workers.iter().filter_map(|worker| worker.core).collect();
            let now = self.clock.now();
            self.ike = Some(Ike::start(config, &cores, now, &mut self.links, &self.network)?);
        }
        Ok(())
    }

    /// Uses another configuration of IKE from now on. Connected peers stay. IKE is neither started nor
    /// ended.
    pub fn reload_ike(&mut self, now: Duration, config: &model::Ike) {
        if let Some(ike) = &mut self.ike {
            ike.reload(now, config, &mut self.links, &mut self.network);
        }
        self.handle_ike(now);
    }

    /// Has these static neighbours from now on, and no others.
    pub fn reload_neighbours(&mut self, now: Duration, neighbours: &[model::Neighbour]) {
        self.neighbours.configure(neighbours.iter().map(|one| (one.port as u16, one.address, one.mac)));
        self.handle_neighbours(now);
    }

    /// Starts to follow the kernel: its devices; the host's addresses on devices that are shared with
    /// the kernel and on `sides`, which are the kernel's sides of ports; and if `routes`, the
    /// kernel's routes by the gateway's devices.
    ///
    /// # Errors
    /// The system's error.
    pub fn follow_kernel(&mut self, routes: bool, sides: Vec<u32>) -> io::Result<()> {
        // The host's routes by this port lead to us, so they say nothing about where we should
        // send.
        let host = self.links.tables.tables.settings.host.as_ref().map(|host| host.port);
        let others = (0..).zip(&self.network.ports).filter(|(index, _)| Some(*index) != host);
        let devices = others.filter_map(|(index, port)| Some((port.device?, index))).collect();
        self.kernel = Some(Kernel::follow(devices, routes)?);
        self.kernel_sides = sides;
        Ok(())
    }

    /// Has `barrier` know of the tunnels that IKE makes and ends from now on, and close devices that
    /// appear before they are used.
    pub(crate) fn use_barrier(&mut self, barrier: SharedBarrier) {
        self.links.use_barrier(Some(barrier.clone()));
        self.forget_open_names(&barrier);
        self.barrier = Some(barrier);
        // Some may have appeared since it was raised.
        self.devices.look_soon();
    }

    /// Returns the tunnels.
    pub fn tunnels(&self) -> &Tunnels {
        self.links.tunnels()
    }

    /// Installs a tunnel, effective from the next burst on.
    ///
    /// # Errors
    /// A key that is invalid for its algorithm.
    pub fn install_tunnel(&mut self, config: &model::Tunnel) -> Result<(), KeyError> {
        self.install_tunnels(std::slice::from_ref(config))
    }

    fn install_tunnels(&mut self, tunnels: &[model::Tunnel]) -> Result<(), KeyError> {
        let Self { clock, links, network, .. } = self;
        let parts_and_mtu = |tunnel: &model::Tunnel| {
            let parts = parts::TunnelParts::from(tunnel);
            let mtu = network.mtu_towards(parts.local, parts.path.map(|path| path.remote));
            (parts, mtu)
        };
        links.install_all(clock.now(), tunnels.iter().map(parts_and_mtu))
    }

    /// Removes a tunnel; returns true if there was one with this name. From the next burst on, the
    /// other policies apply to its traffic.
    pub fn remove_tunnel(&mut self, name: &str) -> bool {
        let id = self.links.tunnels().named(name);
        if let Some(id) = id {
            self.links.remove(id);
        }
        id.is_some()
    }

    /// Moves the manually keyed tunnel called `name` to another address, and to another UDP port if
    /// one is given.
    ///
    /// # Errors
    /// [`MoveError`]; nothing changes then.
    pub fn move_by_hand(
        &mut self,
        now: Duration,
        name: &str,
        remote: IpAddr,
        udp_port: Option<u16>,
    ) -> Result<(), MoveError> {
        self.links.move_by_hand(now, name, remote, udp_port)
    }

    /// Handles the workers' reports of tunnels.
    fn handle_events(&mut self, now: Duration) -> bool {
        let mut busy = false;
        for worker in &self.workers {
            for _ in 0..MAX_EVENTS {
                let Some(event) = worker.rings.events.pop() else { break };
                busy = true;
                match event {
                    rings::Event::NewPath { tunnel, path } => self.links.handle_report(now, tunnel, path),
                    rings::Event::Due { tunnel, inbound, due } => self.links.handle_due(tunnel, inbound, due),
                }
            }
        }
        self.handle_links(now);
        busy
    }

    fn handle_timers(&mut self, now: Duration) -> bool {
        self.neighbours.handle_timeout(now);
        let mut busy = self.links.handle_timeout(now);
        busy |= self.nats.handle_timeout(now, &mut self.links);
        busy |= self.expire_bindings(now);
        self.handle_links(now);
        busy
    }

    /// Carries out the events of links.
    fn handle_links(&mut self, now: Duration) {
        while let Some(event) = self.links.poll_event() {
            match event {
                Event::Keepalive(packet) => self.inject_made(Inject::Route, &packet),
                Event::Dummy(sa, packet) => self.inject_made(Inject::Dummy(sa), &packet),
                Event::Early(packets) => {
                    // These are ESP packets whose SA is there now.
                    let early = |packet: &EarlyPacket| Inject::Early { esp_at: packet.esp_at };
                    self.inject_all(packets.iter().map(|packet| (early(packet), &packet.packet[..])));
                }
                Event::CareOfLost(home) => {
                    if let Some(agent) = &mut self.home_agent {
                        agent.end(now, home, &mut self.links);
                    }
                }
                Event::TunnelsChanged(prefixes) => self.nats.check(now, &prefixes, &mut self.links),
                Event::EarlyDropped(count) => {
                    (0..count).for_each(|_| self.counters.drops.count(DropReason::UnknownSpi));
                }
                Event::Ike(peer, event) => {
                    if let Some(ike) = &mut self.ike {
                        ike.handle_link_event(now, peer, event);
                    }
                }
            }
        }
    }

    /// Runs IKE's turn and sends its messages.
    fn handle_ike(&mut self, now: Duration) -> bool {
        let Some(ike) = &mut self.ike else { return false };
        let mut busy = ike.turn(now, &mut self.links, &mut self.network);
        let longest = self.workers.iter().map(|worker| worker.rings.longest_injected()).min().unwrap_or(0);
        while let Some(packets) =
            self.ike.as_mut().and_then(|ike| ike.poll_packets(&self.links, &self.network, longest))
        {
            self.counters.made.add(packets.len() as u64);
            self.inject_all(packets.iter().map(|packet| (Inject::Route, &packet[..])));
            busy = true;
        }
        busy
    }

    fn handle_kernel(&mut self, now: Duration) -> bool {
        let Some(kernel) = &mut self.kernel else { return false };
        let mut changes = Vec::new();
        let busy = kernel.poll(now, &mut changes);
        let has_changed = !changes.is_empty();
        if changes.iter().any(|change| matches!(change, Change::Route { .. })) {
            self.devices.routes_changed();
        }
        for change in changes {
            let (routes, tables) = (&mut self.network.routes, &mut self.links.tables);
            match change {
                Change::Route { to, hop: Some(hop) } => routes.insert(tables, to, Origin::Kernel, hop),
                Change::Route { to, hop: None } => routes.remove(tables, to, Origin::Kernel),
                Change::Address { address, devices } => self.host_address(address, &devices),
                Change::Device => self.devices.look_soon(),
            }
        }
        if let (true, Some(ike)) = (has_changed, &mut self.ike) {
            ike.handle_routes(now, &self.network);
            self.handle_ike(now);
        }
        busy
    }

    /// Handles that the host has an address on these devices, or on none any more. Workers need
    /// this for the kernel sides of ports, and so do the classifiers of shared devices.
    fn host_address(&mut self, address: IpAddr, devices: &[u32]) {
        let Network { ports, routes } = &mut self.network;
        let (tables, to) = (&mut self.links.tables, Prefix::host(address));
        if devices.iter().any(|device| self.kernel_sides.contains(device)) {
            routes.insert(tables, to, Origin::Host, NextHop::Host);
        } else {
            routes.remove(tables, to, Origin::Host);
        }
        let present = !devices.is_empty();
        let is_ours = tables.tables.is_local(address, &tables.reader);
        for port in ports {
            let Some(shared) = &port.shared else { continue };
            let result = match present {
                true => shared.classifier.set_local(address),
                false if is_ours => Ok(()),
                false => shared.classifier.remove_local(address),
            };
            if let Err(why) = result {
                warn!(port = port.name, %address, "cannot pass an address of the host to the device's classifier: {why}");
            }
        }
    }

    /// Passes a frame that the slow path has made to one of the workers in turn.
    fn inject_made(&mut self, what: Inject, frame: &[u8]) {
        self.counters.made.add(1);
        self.inject_all([(what, frame)]);
    }

    /// Passes frames to one of the workers in turn, which keeps their order. If the worker's ring is
    /// full, frames are dropped and counted.
    fn inject_all<'f>(&mut self, frames: impl IntoIterator<Item = (Inject, &'f [u8])>) {
        self.next_worker = (self.next_worker + 1) % self.workers.len();
        for (what, frame) in frames {
            if let Err(reason) = self.inject_to(self.next_worker, what, frame) {
                self.counters.drops.count(reason);
            }
        }
    }

    /// Passes a frame to this worker.
    ///
    /// # Errors
    /// `SlowPathLimit` if the worker's ring is full.
    fn inject_to(&self, worker: usize, what: Inject, frame: &[u8]) -> Result<(), DropReason> {
        if !self.workers[worker].rings.inject.push(what, frame) {
            return Err(DropReason::SlowPathLimit);
        }
        self.counters.injected.add(1);
        Ok(())
    }
}
