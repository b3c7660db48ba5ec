//! Puts a gateway together and sets it going: tables, slow path, workers, each in a thread of its own.

use super::error::StartError;
use crate::{
    config::model::{Config, PolicyAction},
    control::protocol::{Answer, Command},
    gateway::{
        counters::WorkerCounters,
        io::Io,
        kernel_side::{KINDS, Limit, Role},
        rings::Rings,
        tables::{PortSettings, Settings, Tables},
        worker::Worker,
    },
    slow_path::{
        ControlRequest, PortHandle, SlowPath, WorkerHandle,
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
    time::Instant,
};
use tracing::warn;
use wayfarer_dataplane::{
    pool::Pool,
    port::{Mac, Port, monitor::Monitor, open::SharedDevice},
    table::{Prefix, Writer},
};

/// Requests that may wait for the slow path.
const REQUESTS: usize = 64;

/// A port that is open: one queue of it for every worker.
#[derive(Debug)]
pub struct OpenPort {
    /// Its name.
    pub name: String,
    /// Its kind and mode, for people.
    pub kind: String,
    /// The kernel's index of its device, where it is one.
    pub device: Option<u32>,
    /// The gateway's MAC address on it.
    pub mac: Mac,
    /// Largest IP packet.
    pub mtu: usize,
    /// Whether it fills in the UDP checksum of a packet that lacks it.
    pub fills_checksums: bool,
    /// The gateway's addresses on it, each with its subnet.
    pub addresses: Vec<(IpAddr, Prefix)>,
    /// How its stations are found.
    pub stations: Stations,
    /// Whether the host's own stack is at its other end.
    pub is_host: bool,
    /// What a device that is shared with the kernel has besides its queues.
    pub shared: Option<SharedDevice>,
    /// Where it is the TAP device of an exception path.
    pub exception: Option<Exception>,
    /// How its device is, where it is one.
    pub monitor: Option<Box<dyn Monitor>>,
    /// The queues, one for each worker.
    pub queues: Vec<Box<dyn Port>>,
}

/// What makes a port the kernel's side of another, whose NIC the kernel does not have. It has no addresses, stations or
/// routes of its own; the kernel's addresses on its device are followed, and routes by it, where the other port has that
/// device's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Index of the other port.
    pub of: usize,
    /// Frames a second to the kernel of each kind of traffic, all workers together.
    pub rate: u32,
}

/// What one worker gets.
#[derive(Debug)]
pub struct Seat {
    /// Its frames.
    pub pool: Pool,
    /// Where it is pinned.
    pub core: Option<CoreId>,
}

/// All parts of a gateway, put together and not yet running. Tests turn them by hand; [`Gateway::start`] gives each a
/// thread.
#[derive(Debug)]
pub struct Assembly {
    /// The slow path.
    pub slow_path: SlowPath,
    /// The workers, each with the core that it is to be pinned to.
    pub workers: Vec<(Worker, Option<CoreId>)>,
    /// What slow path and workers share.
    pub handles: Vec<WorkerHandle>,
    /// Where requests to the slow path go.
    pub requests: Sender<ControlRequest>,
}

/// A gateway at work. It stops when dropped.
#[derive(Debug)]
pub struct Gateway {
    stop_workers: Arc<AtomicBool>,
    stop_slow_path: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
    slow_path: Option<JoinHandle<()>>,
    handles: Vec<WorkerHandle>,
    requests: Sender<ControlRequest>,
}

impl Assembly {
    /// Puts together one worker for each of `seats` over `ports`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn new(config: &Config, seats: Vec<Seat>, mut ports: Vec<OpenPort>) -> Result<Self, StartError> {
        if let Some(port) = ports.iter().find(|p| p.queues.len() != seats.len()) {
            return Err(StartError::Queues { port: port.name.clone() });
        }
        if let Some(port) = ports.iter().find(|p| !is_sound(p, &ports)) {
            return Err(StartError::Exception { port: port.name.clone() });
        }
        let count = seats.len();
        let writer = Writer::new();
        let tables = Arc::new(Tables::new(&writer, config.gateway.tunnels, settings(config, &ports)));
        let mut queues: Vec<_> =
            ports.iter_mut().map(|port| std::mem::take(&mut port.queues).into_iter()).collect();
        let mut handles = Vec::new();
        let mut workers = Vec::new();
        for Seat { pool, core } in seats {
            let handle = WorkerHandle {
                rings: Arc::new(Rings::new(pool.frame_size())),
                counters: Arc::new(WorkerCounters::new(queues.len())),
                core: core.map(|core| core.id),
            };
            let own = queues.iter_mut().filter_map(Iterator::next).collect();
            let roles = roles(&ports, count);
            let io = Io::new(own, roles, pool, handle.counters.clone(), handle.rings.clone());
            let worker = Worker::new(io, tables.clone(), writer.reader(), config.gateway.idle_sleep);
            workers.push((worker, core));
            handles.push(handle);
        }
        let (requests, asked) = bounded(REQUESTS);
        let is_shared = ports.iter().any(|port| port.shared.is_some());
        let side = |port: &OpenPort| ports.get(port.exception?.of)?.device;
        let sides: Vec<_> = ports.iter().filter_map(side).collect();
        let ports = ports.into_iter().map(port_handle).collect();
        let mut slow_path =
            SlowPath::new(config, writer, tables, handles.clone(), ports, asked).map_err(StartError::Key)?;
        if config.gateway.kernel_routes || is_shared || !sides.is_empty() {
            slow_path.follow_kernel(config.gateway.kernel_routes, sides).map_err(StartError::Kernel)?;
        }
        slow_path.start_ike(&config.ike).map_err(StartError::Ike)?;
        Ok(Self { slow_path, workers, handles, requests })
    }
}

impl Gateway {
    /// Gives each part a thread.
    ///
    /// # Errors
    /// [`StartError::Thread`]; nothing runs then.
    pub fn start(assembly: Assembly) -> Result<Self, StartError> {
        let Assembly { mut slow_path, workers, handles, requests } = assembly;
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

    /// Asks the slow path; `None` where it has ended.
    pub fn ask(&self, command: Command) -> Option<Answer> {
        let (answer, answered) = bounded(1);
        self.requests.send((command, answer)).ok()?;
        answered.recv().ok()
    }

    /// Each worker's counters, as they are at any moment.
    pub fn counters(&self) -> impl Iterator<Item = &Arc<WorkerCounters>> {
        self.handles.iter().map(|handle| &handle.counters)
    }

    /// Whether every worker has come to the end of its ports.
    pub fn is_finished(&self) -> bool {
        self.workers.iter().all(JoinHandle::is_finished)
    }

    /// Whether a thread has ended that should not have: the rest would be half a gateway.
    pub fn is_broken(&self) -> bool {
        let some_workers = self.workers.iter().any(JoinHandle::is_finished) && !self.is_finished();
        some_workers || self.slow_path.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops the workers: what they accepted leaves first. The slow path still answers afterwards. Answers whether all
    /// of them ended as they should.
    pub fn stop_workers(&mut self) -> bool {
        self.stop_workers.store(true, Relaxed);
        // A worker that panicked has said so on standard error.
        // All are joined, whatever became of the first.
        self.workers.drain(..).filter_map(|worker| worker.join().err()).count() == 0
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop_workers();
        self.stop_slow_path.store(true, Relaxed);
        if let Some(slow_path) = self.slow_path.take() {
            let _ = slow_path.join();
        }
    }
}

/// Keeps the calling thread off the cores that workers have, where others are left: a worker that polls gives way to nobody.
fn keep_off(taken: &[usize]) {
    let this = Pid::from_raw(0);
    let Ok(mut cores) = sched_getaffinity(this) else { return };
    for core in taken {
        // A core beyond what a set can name is none that it names.
        let _ = cores.unset(*core);
    }
    if (0..CpuSet::count()).any(|core| cores.is_set(core).unwrap_or(false)) {
        // Where it cannot be kept off, it is where it was.
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
        ports: ports
            .iter()
            .map(|p| PortSettings { mac: p.mac, mtu: p.mtu, fills_checksums: p.fills_checksums })
            .collect(),
        encap_ports: encap_ports.into(),
        host: host.and_then(|(index, p)| match p.stations {
            Stations::Only(mac) => Some((index as u16, mac)),
            Stations::Ask => None,
        }),
        mss_clamp: config.gateway.mss_clamp,
        discards: config.policies.iter().any(|policy| policy.action == PolicyAction::Discard),
    }
}

/// Whether `port` is no kernel side, or one that can be: of a port that is none and has no other.
fn is_sound(port: &OpenPort, ports: &[OpenPort]) -> bool {
    let Some(Exception { of, .. }) = port.exception else { return true };
    let sides = ports.iter().filter(|p| p.exception.is_some_and(|other| other.of == of)).count();
    let is_nic = ports.get(of).is_some_and(|nic| nic.exception.is_none());
    is_nic && sides == 1 && port.addresses.is_empty() && !port.is_host
}

/// Each port's part in the exception path, for one of `workers`.
fn roles(ports: &[OpenPort], workers: usize) -> Vec<Role> {
    let mut roles: Vec<_> = ports.iter().map(|_| Role::Plain).collect();
    for (tap, port) in ports.iter().enumerate() {
        if let Some(Exception { of, rate }) = port.exception {
            let limit = |_| Limit::new(rate, workers, Instant::now());
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
        // The kernel's routes by the TAP of an exception path are those of the port that it belongs to.
        device: port.device.filter(|_| port.exception.is_none()),
        segment,
        shared: port.shared,
        monitor: port.monitor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_kept_off_the_cores_of_workers_but_not_off_all() {
        let cores = || {
            let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
            (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap()).collect::<Vec<_>>()
        };
        let test = move || {
            let all = cores();
            keep_off(&all);
            assert_eq!(cores(), all, "there is no other");
            let (first, rest) = all.split_first().unwrap();
            keep_off(&[*first, usize::MAX]);
            assert_eq!(cores(), if rest.is_empty() { &all } else { rest });
        };
        thread::spawn(test).join().unwrap();
    }
}
