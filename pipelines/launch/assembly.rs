//! Puts a gateway together and starts it: tables, slow path and workers, each in its own thread.

use super::error::StartError;
use crate::{
    clock::Moment,
    config::model::{self, Config, PolicyAction},
    control::protocol::{Answer, Command},
    gateway::{
        binding::HomeAgent,
        counters::WorkerCounters,
        flows::Flows,
        io::Io,
        kernel_side::{KINDS, Limit, Role},
        nat::table::Nat,
        rings::Rings,
        tables::{HostSettings, PortSettings, Settings, SharedMac, Tables},
        worker::Worker,
    },
    slow_path::{
        ControlRequest, NewConfig, PortHandle, SlowPath, Stop, SubPort, WorkerHandle,
        neighbours::{Segment, Stations},
    },
};
use core_affinity::CoreId;
use crossbeam::channel::{Sender, bounded};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tracing::warn;
use wayfarer_dataplane::{
    pool::Pool,
    port::{
        Mac, Port,
        monitor::Monitor,
        open::{Reopener, SharedDevice},
        pcap::CaptureReport,
    },
    table::{Prefix, Writer},
    wire::vlan::Vlan,
};

/// Most requests that may wait for the slow path.
const REQUESTS: usize = 64;

/// An open port, with one queue for every worker.
#[derive(Debug)]
pub struct OpenPort {
    /// Name.
    pub name: String,
    /// Kind and mode, for people.
    pub kind: String,
    /// The name of the device: of one of the kernel's, its primary name, or of one that is not there yet,
    /// the configured one. `None` on ports without a device.
    pub device_name: Option<String>,
    /// The kernel's interface index of the device; `None` if the kernel has no such device.
    pub device: Option<u32>,
    /// The VLAN that the port is in.
    pub vlan: Option<Vlan>,
    /// The ports that share the device, in the order in which it is divided. Only for the first of
    /// them, and empty if the port has its device for itself.
    pub sub_ports: Vec<SubPort>,
    /// The gateway's MAC address on this port.
    pub mac: Mac,
    /// Largest IP packet, in bytes.
    pub mtu: usize,
    /// The largest value that `mtu` may take while the gateway follows the device's, in bytes.
    pub mtu_limit: usize,
    /// Longest IP packet that a frame holds, in bytes; [`usize::MAX`] on ports without a device, and on
    /// TAP devices of exception paths.
    pub frames_hold: usize,
    /// `true` if the port fills in missing UDP checksums when it sends.
    pub fills_checksums: bool,
    /// The gateway's addresses on this port, each with its subnet.
    pub addresses: Vec<(IpAddr, Prefix)>,
    /// The way to find the MAC addresses of its stations.
    pub stations: Stations,
    /// `true` if the host's own network stack is at the other end.
    pub is_host: bool,
    /// The rest of a device that is shared with the kernel, besides its queues.
    pub shared: Option<SharedDevice>,
    /// The exception path, if the port is the TAP device of one.
    pub exception: Option<Exception>,
    /// Reads the device's state and counters; `None` if there is no device.
    pub monitor: Option<Box<dyn Monitor>>,
    /// What the port skips of a capture and how it fails; `None` if it has no capture.
    pub capture: Option<Arc<CaptureReport>>,
    /// Opens the device again when it comes back; `None` if that is not possible.
    pub reopener: Option<Reopener>,
    /// Queues, one for each worker.
    pub queues: Vec<Box<dyn Port>>,
}

/// The setting of a TAP port that stands in the kernel for another port, whose NIC the kernel does
/// not have. The TAP port has no addresses, stations or routes of its own. If the other port has
/// the index of the TAP device, the gateway follows the addresses that the kernel has on that
/// device and the kernel's routes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Index of the other port.
    pub of: usize,
    /// Frames per second to the kernel for each kind of traffic, over all workers.
    pub rate: u32,
}

/// The resources of one worker.
#[derive(Debug)]
pub struct WorkerResources {
    /// Frames.
    pub pool: Pool,
    /// The core that the worker is pinned to, if any.
    pub core: Option<CoreId>,
}

/// All parts of a gateway, not running yet. Tests step them by hand; [`Gateway::start`] runs each
/// in a thread.
#[derive(Debug)]
pub struct Assembly {
    /// The slow path.
    pub slow_path: SlowPath,
    /// The workers, each with the core that it will be pinned to.
    pub workers: Vec<(Worker, Option<CoreId>)>,
    /// The state that the slow path shares with each worker.
    pub handles: Vec<WorkerHandle>,
    /// The sending end for requests to the slow path.
    pub requests: Sender<ControlRequest>,
    /// The sending end for new configurations.
    pub new_config: Sender<NewConfig>,
}

/// A running gateway. Dropping it stops it.
#[derive(Debug)]
pub struct Gateway {
    stop_workers: Arc<AtomicBool>,
    stop_slow_path: Arc<Stop>,
    workers: Vec<JoinHandle<()>>,
    slow_path: Option<JoinHandle<()>>,
    handles: Vec<WorkerHandle>,
    requests: Sender<ControlRequest>,
}

impl Assembly {
    /// Puts together one worker for each of `resources`, with all `ports`.
    ///
    /// # Errors
    /// [`StartError`], if a port does not fit, a key cannot be used, or the system refuses.
    pub fn new(
        config: &Config,
        resources: Vec<WorkerResources>,
        mut ports: Vec<OpenPort>,
    ) -> Result<Self, StartError> {
        if let Some(port) = ports.iter().find(|p| p.queues.len() != resources.len()) {
            return Err(StartError::Queues { port: port.name.clone() });
        }
        if let Some(port) = ports.iter().find(|p| !is_sound(p, &ports)) {
            return Err(StartError::Exception { port: port.name.clone() });
        }
        let count = resources.len();
        let writer = Writer::new();
        let tables = Arc::new(Tables::new(&writer, config.gateway.tunnels, settings(config, &ports)));
        let mut queues: Vec<_> =
            ports.iter_mut().map(|port| std::mem::take(&mut port.queues).into_iter()).collect();
        let mut handles = Vec::new();
        let mut workers = Vec::new();
        for WorkerResources { pool, core } in resources {
            let handle = WorkerHandle {
                rings: Arc::new(Rings::new(pool.frame_size(), ports.len())),
                counters: Arc::new(WorkerCounters::new(queues.len())),
                core: core.map(|core| core.id),
            };
            let own = queues.iter_mut().filter_map(Iterator::next).collect();
            let roles = roles(&ports, count);
            let io = Io::new(own, roles, pool, handle.counters.clone(), handle.rings.clone())
                .map_err(StartError::Memory)?;
            let flows = Flows::new(config.gateway.flow_cache);
            let idle_sleep = config.gateway.idle_sleep;
            let worker = Worker::new(io, tables.clone(), writer.reader(), idle_sleep, flows);
            workers.push((worker, core));
            handles.push(handle);
        }
        let (requests, asked) = bounded(REQUESTS);
        let (new_config, given) = bounded(1);
        let has_device = ports.iter().any(|port| port.device.is_some() || port.reopener.is_some());
        let side = |port: &OpenPort| ports.get(port.exception?.of)?.device;
        let sides: Vec<_> = ports.iter().filter_map(side).collect();
        let ports = ports.into_iter().map(port_handle).collect();
        let mut slow_path = SlowPath::new(config, writer, tables, handles.clone(), ports, (asked, given))
            .map_err(StartError::Key)?;
        if config.gateway.kernel_routes || has_device {
            slow_path.follow_kernel(config.gateway.kernel_routes, sides).map_err(StartError::Kernel)?;
        }
        slow_path.start_ike(&config.ike).map_err(StartError::Ike)?;
        slow_path.start_home_agent(config.home_agent.as_ref()).map_err(StartError::HomeAgent)?;
        Ok(Self { slow_path, workers, handles, requests, new_config })
    }
}

impl Gateway {
    /// Starts a thread for each part.
    ///
    /// # Errors
    /// [`StartError::Thread`], if a thread cannot be started; nothing runs then.
    pub fn start(assembly: Assembly) -> Result<Self, StartError> {
        let Assembly { mut slow_path, workers, handles, requests, .. } = assembly;
        let mut this = Self {
            stop_workers: Arc::default(),
            stop_slow_path: Arc::default(),
            workers: Vec::new(),
            slow_path: None,
            handles,
            requests,
        };
        let stop = this.stop_slow_path.clone();
        let taken: Vec<_> = workers.iter().filter_map(|(_, core)| Some(core.as_ref()?.id)).collect();
        this.slow_path = Some(spawn("wf-slow-path", move || {
            keep_off(&taken);
            slow_path.run(&stop);
        })?);
        for (index, (mut worker, core)) in workers.into_iter().enumerate() {
            let stop = this.stop_workers.clone();
            this.workers.push(spawn(&format!("wf-worker-{index}"), move || {
                if let Some(core) = core.filter(|core| !core_affinity::set_for_current(*core)) {
                    warn!(worker = index, core = core.id, "the worker could not be pinned to its core");
                }
                worker.run(&stop);
            })?);
        }
        Ok(this)
    }

    /// Sends `command` to the slow path and returns its answer; `None` if the slow path has ended.
    pub fn ask(&self, command: Command) -> Option<Answer> {
        let (answer, answered) = bounded(1);
        self.requests.send((command, answer)).ok()?;
        answered.recv().ok()
    }

    /// Returns each worker's counters. They keep counting while they are read.
    pub fn counters(&self) -> impl Iterator<Item = &Arc<WorkerCounters>> {
        self.handles.iter().map(|handle| &handle.counters)
    }

    /// Returns whether every worker has reached the end of its input.
    pub fn is_finished(&self) -> bool {
        self.workers.iter().all(JoinHandle::is_finished)
    }

    /// Returns whether the slow path, or only some of the workers, have ended: the gateway cannot
    /// go on without them.
    pub fn is_broken(&self) -> bool {
        let some_workers = self.workers.iter().any(JoinHandle::is_finished) && !self.is_finished();
        some_workers || self.slow_path.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Closes the links of all IKE peers, and tells them so. Returns once all have answered, or after
    /// `patience`.
    pub fn close_peers(&self, patience: Duration) {
        let start = Instant::now();
        self.stop_slow_path.close_peers();
        while !self.stop_slow_path.are_peers_closed() && !self.is_broken() && start.elapsed() < patience {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops the workers, after they have sent every packet that they accepted. The slow path still
    /// answers afterwards. Returns whether no worker panicked.
    pub fn stop_workers(&mut self) -> bool {
        self.stop_workers.store(true, Relaxed);
        // `count` joins every thread, also after one has failed. The panic hook has reported each
        // panic.
        self.workers.drain(..).filter_map(|worker| worker.join().err()).count() == 0
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop_workers();
        self.stop_slow_path.stop();
        if let Some(slow_path) = self.slow_path.take() {
            let _ = slow_path.join();
        }
    }
}

/// Keeps the calling thread off the workers' cores if other cores are left, because a polling
/// worker does not yield.
fn keep_off(taken: &[usize]) {
    let this = Pid::from_raw(0);
    let Ok(mut cores) = sched_getaffinity(this) else { return };
    for core in taken {
        // Fails only for a core number beyond the size of the set, which the set cannot contain
        // anyway.
        let _ = cores.unset(*core);
    }
    if (0..CpuSet::count()).any(|core| cores.is_set(core).unwrap_or(false)) {
        // If this fails, the thread stays on the cores that it had.
        let _ = sched_setaffinity(this, &cores);
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(StartError::Thread)
}

fn settings(config: &Config, ports: &[OpenPort]) -> Settings {
    let host = ports.iter().enumerate().find(|(_, p)| p.is_host);
    let mut encap_ports = config.gateway.encap_ports.clone();
    encap_ports.sort_unstable();
    Settings {
        ports: ports.iter().enumerate().map(|(index, p)| port_settings(config, index, p)).collect(),
        encap_ports: encap_ports.into(),
        siu_port: config.siu.first().map(|_| config.gateway.siu_port),
        home_agent: config.home_agent.as_ref().map(|agent| home_agent(agent, config)),
        host: host.and_then(|(index, p)| match p.stations {
            Stations::Only(mac) => Some(HostSettings { port: index as u16, mac: SharedMac::new(mac) }),
            Stations::Ask => None,
        }),
        mss_clamp: config.gateway.mss_clamp,
        discards: config.policies.iter().any(|policy| policy.action == PolicyAction::Discard),
        nats: config.nats.iter().map(nat).collect(),
    }
}

fn home_agent(agent: &model::HomeAgent, config: &Config) -> HomeAgent {
    let subnets = config.ports.iter().flat_map(|port| &port.addresses).map(|(_, subnet)| *subnet);
    let routes = subnets.chain(config.routes.iter().map(|route| route.to));
    let is_home = |to: Prefix| {
        to.length() >= agent.network.length() && agent.network.contains(to.address()) && to.is_ipv4()
    };
    HomeAgent {
        address: agent.address,
        network: agent.network,
        terminals: agent.terminals.len(),
        has_home: config.gateway.kernel_routes || routes.into_iter().any(is_home),
    }
}

fn port_settings(config: &Config, index: usize, port: &OpenPort) -> PortSettings {
    let has_nat = config.nats.iter().any(|nat| nat.port == index);
    PortSettings::new(port.mac, port.mtu, port.fills_checksums, has_nat)
}

fn nat(config: &model::Nat) -> Nat {
    Nat {
        port: config.port as u16,
        address: config.address.to_bits(),
        ports: config.ports.clone(),
        inside: config.inside.clone().into(),
    }
}

/// Returns whether `port`'s exception setting is valid: none, or the only exception of an ordinary
/// port. A TAP port of an exception has no addresses and is not the host's port.
fn is_sound(port: &OpenPort, ports: &[OpenPort]) -> bool {
    let Some(Exception { of, .. }) = port.exception else { return true };
    let sides = ports.iter().filter(|p| p.exception.is_some_and(|other| other.of == of)).count();
    let is_nic = ports.get(of).is_some_and(|nic| nic.exception.is_none());
    is_nic && sides == 1 && port.addresses.is_empty() && !port.is_host
}

/// Returns each port's role in the exception path, as one of `workers` workers needs it.
fn roles(ports: &[OpenPort], workers: usize) -> Vec<Role> {
    let mut roles: Vec<_> = ports.iter().map(|_| Role::Plain).collect();
    for (tap, port) in ports.iter().enumerate() {
        if let Some(Exception { of, rate }) = port.exception {
            let limit = |_| Limit::new(rate, workers, Moment::now());
            roles[of] = Role::Nic { tap: tap as u16, limits: [(); KINDS].map(limit) };
            roles[tap] = Role::Tap(of as u16);
        }
    }
    roles
}

fn port_handle(port: OpenPort) -> PortHandle {
    let segment = Segment { mac: port.mac, addresses: port.addresses, stations: port.stations };
    PortHandle {
        name: port.name,
        kind: port.kind,
        mtu: port.mtu,
        mtu_limit: port.mtu_limit,
        frames_hold: port.frames_hold,
        device_name: port.device_name,
        // Kernel routes through the TAP device of an exception path belong to the port that it
        // stands for.
        device: port.device.filter(|_| port.exception.is_none()),
        vlan: port.vlan,
        sub_ports: port.sub_ports,
        exception_of: port.exception.map(|exception| exception.of),
        segment,
        shared: port.shared,
        monitor: port.monitor,
        reopener: port.reopener,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_thread_off_the_workers_cores_but_not_off_all() {
        let cores = || {
            let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
            (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap()).collect::<Vec<_>>()
        };
        let test = move || {
            let all = cores();
            keep_off(&all);
            assert_eq!(cores(), all, "no other core is left");
            let (first, rest) = all.split_first().unwrap();
            keep_off(&[*first, usize::MAX]);
            assert_eq!(cores(), if rest.is_empty() { &all } else { rest });
        };
        thread::spawn(test).join().unwrap();
    }
}
