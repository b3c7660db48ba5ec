//! One thread that drives everything slow: neighbours, routes, moves, lifetimes, errors to senders, control requests.
//! It owns the writing half of every table. It changes tables, never data packets.

pub mod neighbours;
pub mod routes;
pub mod tunnels;

mod devices;
pub(crate) mod ike;
mod kernel;
mod moves;
mod policies;
mod punts;
mod view;

use crate::{
    config::model::{Config, PolicyAction},
    control::protocol::{Answer, Command},
    gateway::{
        counters::{Drops, WorkerCounters},
        policy::{Action, Rule},
        rings::{Inject, Rings},
        tables::Tables,
    },
};
use crossbeam::channel::{Receiver, Sender};
use devices::Devices;
use ike::Ike;
use kernel::{Change, Kernel};
use moves::Timer;
use neighbours::{Neighbours, Segment};
use punts::ProblemLimit;
use routes::{NextHop, Origin, Routes};
use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tracing::warn;
use tunnels::Tunnels;
use wayfarer_dataplane::{
    crypto::KeyError,
    drop::DropReason,
    port::{monitor::Monitor, open::SharedDevice},
    sa::{Path, TunnelId},
    sharing::Sharing,
    table::{Prefix, Reader, Writer},
};
use wayfarer_mobility::roaming::Roaming;

/// Longest sleep between two turns, and so what a report waits at most.
const NAP: Duration = Duration::from_micros(50);

/// A command of the control socket, and where its answer goes.
pub type ControlRequest = (Command, Sender<Answer>);

/// What the slow path shares with one worker.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    /// Its rings.
    pub rings: Arc<Rings>,
    /// Its counters.
    pub counters: Arc<WorkerCounters>,
    /// The core it is pinned to.
    pub core: Option<usize>,
}

/// What the slow path knows of one port.
#[derive(Debug)]
pub struct PortHandle {
    /// Its name.
    pub name: String,
    /// Its kind and mode, for people.
    pub kind: String,
    /// Largest IP packet.
    pub mtu: usize,
    /// The kernel's index of its device, where it is one.
    pub device: Option<u32>,
    /// What neighbour discovery needs.
    pub segment: Segment,
    /// What a device that is shared with the kernel has besides its queues: they do not carry neighbour discovery.
    pub shared: Option<SharedDevice>,
    /// How its device is, where it is one.
    pub monitor: Option<Box<dyn Monitor>>,
}

/// The slow path.
#[derive(Debug)]
pub struct SlowPath {
    start: Instant,
    writer: Writer,
    reader: Reader,
    tables: Arc<Tables>,
    workers: Vec<WorkerHandle>,
    ports: Vec<PortHandle>,
    neighbours: Neighbours,
    routes: Routes,
    kernel: Option<Kernel>,
    /// The kernel's devices that are its sides of ports.
    kernel_sides: Vec<u32>,
    ike: Option<Ike>,
    tunnels: Tunnels,
    roaming: Roaming<TunnelId, Path>,
    timers: BTreeSet<(Duration, TunnelId, Timer)>,
    requests: Receiver<ControlRequest>,
    drops: Drops,
    problems: ProblemLimit,
    devices: Devices,
    next_worker: usize,
}

impl SlowPath {
    /// A slow path that has filled `tables`, which are `writer`'s, as `config` says.
    ///
    /// # Errors
    /// A key that its algorithm does not take.
    pub fn new(
        config: &Config,
        writer: Writer,
        tables: Arc<Tables>,
        workers: Vec<WorkerHandle>,
        ports: Vec<PortHandle>,
        requests: Receiver<ControlRequest>,
    ) -> Result<Self, KeyError> {
        let segments: Vec<Segment> = ports.iter().map(|p| p.segment.clone()).collect();
        let mut this = Self {
            start: Instant::now(),
            reader: writer.reader(),
            routes: Routes::new(segments.iter().map(|s| s.stations).collect()),
            neighbours: Neighbours::new(segments),
            kernel: None,
            kernel_sides: vec![],
            ike: None,
            tunnels: Tunnels::new(Sharing::among(workers.len()))?,
            roaming: Roaming::default(),
            timers: BTreeSet::new(),
            drops: Drops::default(),
            problems: ProblemLimit::default(),
            devices: Devices::default(),
            next_worker: 0,
            writer,
            tables,
            workers,
            ports,
            requests,
        };
        this.install_routes(config);
        for tunnel in &config.tunnels {
            this.install_tunnel(tunnel)?;
        }
        // Behind the tunnels: a wide policy must not uncover what a tunnel of the same prefix protects.
        let rules = config.policies.iter().map(|policy| Rule {
            selector: policy.selector.clone(),
            action: match policy.action {
                PolicyAction::Bypass => Action::Bypass,
                PolicyAction::Discard => Action::Discard,
            },
        });
        policies::add(&this.tables, &mut this.writer, rules);
        Ok(this)
    }

    fn install_routes(&mut self, config: &Config) {
        for (index, port) in self.ports.iter().enumerate() {
            let port_index = index as u16;
            for (address, subnet) in &port.segment.addresses {
                let (tables, writer) = (&self.tables, &mut self.writer);
                self.routes.insert(tables, writer, Prefix::host(*address), Origin::Local, NextHop::Local);
                let hop = NextHop::Port { port: port_index, via: None };
                self.routes.insert(tables, writer, *subnet, Origin::Connected, hop);
            }
        }
        for route in &config.routes {
            let hop = NextHop::Port { port: route.port as u16, via: route.via };
            self.routes.insert(&self.tables, &mut self.writer, route.to, Origin::Config, hop);
        }
    }

    /// From now on follows the kernel: the host's addresses, for devices that are shared with it and those, `sides`, that
    /// are the kernel's sides of ports; and where `routes`, its routes by the gateway's devices.
    ///
    /// # Errors
    /// What the system answered.
    pub fn follow_kernel(&mut self, routes: bool, sides: Vec<u32>) -> io::Result<()> {
        // What the host sends through us leads to us, and nowhere else.
        let host = self.tables.settings.host.map(|(port, _)| usize::from(port));
        let device = |(index, port): (usize, &PortHandle)| Some((port.device?, index as u16));
        let others = self.ports.iter().enumerate().filter(|(index, _)| Some(*index) != host);
        let devices = others.filter_map(device).collect();
        self.kernel = Some(Kernel::follow(devices, routes)?);
        self.kernel_sides = sides;
        Ok(())
    }

    fn handle_kernel(&mut self, now: Duration) -> bool {
        let Some(kernel) = &mut self.kernel else { return false };
        let mut changes = Vec::new();
        let busy = kernel.poll(&mut changes);
        let has_changed = !changes.is_empty();
        for change in changes {
            let (tables, writer) = (&self.tables, &mut self.writer);
            match change {
                Change::Route { to, hop: Some(hop) } => {
                    self.routes.insert(tables, writer, to, Origin::Kernel, hop);
                }
                Change::Route { to, hop: None } => self.routes.remove(tables, writer, to, Origin::Kernel),
                Change::Address { address, devices } => self.host_address(address, &devices),
            }
        }
        if has_changed {
            self.follow_routes(now);
        }
        busy
    }

    /// The host has an address on these devices, or on none any more: workers must know where a port's kernel side has it,
    /// and shared devices' classifiers.
    fn host_address(&mut self, address: IpAddr, devices: &[u32]) {
        let (tables, writer, to) = (&self.tables, &mut self.writer, Prefix::host(address));
        if devices.iter().any(|device| self.kernel_sides.contains(device)) {
            self.routes.insert(tables, writer, to, Origin::Host, NextHop::Host);
        } else {
            self.routes.remove(tables, writer, to, Origin::Host);
        }
        let present = !devices.is_empty();
        let is_ours = self.tables.is_local(address, &self.reader);
        for port in &self.ports {
            let Some(shared) = &port.shared else { continue };
            let told = match present {
                true => shared.classifier.set_local(address),
                false if is_ours => Ok(()),
                false => shared.classifier.remove_local(address),
            };
            if let Err(why) = told {
                warn!(port = port.name, %address, "the host's address cannot be noted: {why}");
            }
        }
    }

    /// The tunnels.
    pub fn tunnels(&self) -> &Tunnels {
        &self.tunnels
    }

    /// Works until `stop`.
    pub fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Relaxed) {
            if !self.turn(self.start.elapsed()) {
                std::thread::sleep(NAP);
            }
        }
    }

    /// One turn at time `now`, counted from the start; answers whether there was anything to do.
    pub fn turn(&mut self, now: Duration) -> bool {
        let mut busy = self.handle_events(now);
        busy |= self.handle_punts(now);
        busy |= self.handle_ike(now);
        busy |= self.handle_kernel(now);
        busy |= self.handle_timers(now);
        busy |= self.handle_requests(now);
        self.handle_devices(now);
        self.act();
        self.reader.quiescent();
        self.writer.collect();
        busy
    }

    /// Hands a frame to one of the workers, each in its turn. A full ring loses it, counted.
    fn inject(&mut self, what: Inject, frame: &[u8]) {
        self.next_worker = (self.next_worker + 1) % self.workers.len();
        if !self.workers[self.next_worker].rings.inject.push(what, frame) {
            self.drops.count(DropReason::SlowPathLimit);
        }
    }

    fn handle_requests(&mut self, now: Duration) -> bool {
        let mut busy = false;
        while let Ok((command, to)) = self.requests.try_recv() {
            let answer = self.answer(now, command);
            // Whoever asked may be gone by now.
            let _ = to.send(answer);
            busy = true;
        }
        busy
    }
}
