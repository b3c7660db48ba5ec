//! Runs a gateway on real devices and files: chooses its cores, starts it, and stops it on a
//! signal.

mod assembly;
mod error;
mod ports;
mod reload;
mod sub_ports;

pub use assembly::{Assembly, Exception, Gateway, OpenPort, WorkerResources};
pub use error::{LaunchError, StartError};

use crate::{
    barrier::Barrier,
    config::{
        USUAL_FRAME, frame_size,
        model::{self, Config, DPDK_CORES, PortKind},
    },
    control::{
        protocol::{Command, DropView, Outcome, Reply, View},
        server::Server,
    },
    gateway::{counters::WorkerCounters, rings::Rings},
};
use core_affinity::CoreId;
use reload::Reloader;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::{
    net::IpAddr,
    panic,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};
use tracing::{error, info};
use wayfarer_dataplane::{
    pool::Pool,
    port::{
        device::Device,
        dpdk::{self, Eal},
        pcap::CaptureReport,
    },
};

/// How often the main thread checks whether to stop.
const WATCH: Duration = Duration::from_millis(20);
/// Longest time for which a gateway that stops waits for its peers' answers.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runs the gateway of `config`, which was read from `file`, until SIGINT or SIGTERM, or until all its
/// input files are read. SIGHUP and the control socket have it read the file again.
/// From the start on, the host's kernel does not forward the gateway's traffic, until
/// [`open_host`](crate::barrier::open_host).
///
/// # Errors
/// [`LaunchError`], if the gateway cannot start, a thread fails, or a capture could not be read or
/// written to its end; nothing is left running then.
pub fn run(file: &Path, config: Config) -> Result<(), LaunchError> {
    report_panics();
    let [stop, hung_up] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    for (signal, flag) in [(SIGINT, &stop), (SIGTERM, &stop), (SIGHUP, &hung_up)] {
        signal_hook::flag::register(signal, flag.clone())
            .map_err(|why| LaunchError::System("watch for signals", why))?;
    }
    // First of all: if this gateway fails to start, the host must not forward in its place.
    let barrier = Barrier::raise(&config).map_err(|(port, why)| LaunchError::Port { port, why })?;
    let Resources { cores, pools, ports } = prepare(&config)?;
    let resources =
        pools.into_iter().zip(&cores).map(|(pool, &core)| WorkerResources { pool, core }).collect();
    let captures = captures(&ports);
    let mut assembly = Assembly::new(&config, resources, ports).map_err(LaunchError::Start)?;
    let barrier = Arc::new(Mutex::new(barrier));
    assembly.slow_path.use_barrier(barrier.clone());
    // Before anything forwards: if another gateway already answers on this socket, this one must
    // not start.
    let (control, tunnels) = (config.gateway.control.clone(), config.tunnels.len());
    let reloader = Arc::new(Reloader::new(file, config, barrier, assembly.new_config.clone()));
    let by_command = reloader.clone();
    let reload = Arc::new(move || by_command.reload());
    let control = control.map(|path| Server::start(&path, assembly.requests.clone(), reload)).transpose();
    let control = control.map_err(LaunchError::Control)?;
    let mut gateway = Gateway::start(assembly).map_err(LaunchError::Start)?;
    let reloads = reloader.start_thread().map_err(|why| LaunchError::System("start a thread", why))?;
    info!(name: "gateway_running", workers = cores.len(), tunnels, "the gateway is running");
    while !stop.load(Relaxed) && !gateway.is_finished() && !gateway.is_broken() {
        if hung_up.swap(false, Relaxed) {
            let _ = reloads.try_send(());
        }
        thread::sleep(WATCH);
    }
    gateway.close_peers(FAREWELL);
    let broken = gateway.is_broken();
    let all_ended = gateway.stop_workers();
    drop(control);
    summarise(&gateway, &captures);
    if broken || !all_ended {
        return Err(LaunchError::Thread);
    }
    let failure = captures.into_iter().find_map(|(port, report)| Some((port, report.take_failure()?)));
    failure.map_or(Ok(()), |(port, why)| Err(LaunchError::Port { port, why }))
}

/// Returns the reports of all ports that read or write captures, with the ports' names.
fn captures(ports: &[OpenPort]) -> Vec<(String, Arc<CaptureReport>)> {
    ports.iter().filter_map(|port| Some((port.name.clone(), port.capture.clone()?))).collect()
}

/// Logs panics, at most one per second: a peer that can make a worker panic must not fill the log
/// as well.
fn report_panics() {
    let start = Instant::now();
    // The second of the last log line, counted from 1; 0 if there was none.
    let last = AtomicU64::new(0);
    panic::set_hook(Box::new(move |info| {
        let now = start.elapsed().as_secs() + 1;
        if last.swap(now, Relaxed) != now {
            let thread = thread::current();
            error!(name: "bug", thread = thread.name().unwrap_or("?"), "bug in this program: {info}");
        }
    }));
}

/// The machine's resources for a gateway.
#[derive(Debug)]
pub(crate) struct Resources {
    /// The core of each worker; `None`: not pinned.
    pub cores: Vec<Option<CoreId>>,
    /// The frames of each worker.
    pub pools: Vec<Pool>,
    /// Ports, with a queue for each worker. They must be dropped before the pools, whose frames
    /// they hold.
    pub ports: Vec<OpenPort>,
}

/// Chooses cores, creates pools and opens ports.
///
/// # Errors
/// [`LaunchError`], if a core is missing, DPDK does not start, memory is short or a port cannot be
/// opened.
pub(crate) fn prepare(config: &Config) -> Result<Resources, LaunchError> {
    let mut cores = cores(config)?;
    let frame_size = frame_size(config);
    if config.gateway.frame_size.is_none() && frame_size > USUAL_FRAME {
        let memory_mib = (config.gateway.frames * frame_size + Rings::memory(frame_size)) >> 20;
        info!(
            name: "frames_enlarged", frame_size, memory_mib,
            "frames are larger than usual, for the MTUs of ports and devices"
        );
    }
    // DPDK reports a device's queues only after it has started, and it starts on every core that a
    // worker may get.
    let eal =
        config.dpdk.as_ref().map(|options| start_dpdk(config, options, &cores, frame_size)).transpose()?;
    if config.gateway.workers.is_none() {
        cores.truncate(queues(config, eal.as_ref()));
    }
    let pool = |core: &Option<CoreId>| pool(config.gateway.frames, frame_size, eal.as_ref(), *core);
    let mut pools = cores.iter().map(pool).collect::<Result<Vec<_>, _>>()?;
    let ports = ports::open_all(config, &host_addresses()?, eal.as_ref(), &mut pools)
        .map_err(|(port, why)| LaunchError::Port { port, why })?;
    Ok(Resources { cores, pools, ports })
}

/// Returns the cores that workers may use: those configured, or else all spare ones.
fn cores(config: &Config) -> Result<Vec<Option<CoreId>>, LaunchError> {
    let all = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(wanted) = &config.gateway.workers {
        let find = |id: &usize| {
            all.iter().find(|core| core.id == *id).map(|core| Some(*core)).ok_or(LaunchError::Core(*id))
        };
        return wanted.iter().map(find).collect();
    }
    Ok(spare(all, if config.dpdk.is_some() { DPDK_CORES } else { usize::MAX }))
}

/// Returns the cores of `all` below `end`, without the first, which stays free for the slow path
/// and other programs. Returns one unpinned worker if no core is left.
fn spare(mut all: Vec<CoreId>, end: usize) -> Vec<Option<CoreId>> {
    if all.len() > 1 {
        all.remove(0);
    }
    let spare: Vec<_> = all.into_iter().filter(|core| core.id < end).map(Some).collect();
    if spare.is_empty() { vec![None] } else { spare }
}

fn start_dpdk(
    config: &Config,
    options: &dpdk::Options,
    cores: &[Option<CoreId>],
    frame_size: usize,
) -> Result<Eal, LaunchError> {
    let enough = dpdk::Options::memory_for(cores.len(), config.gateway.frames, frame_size);
    let memory = options.memory.or((!options.hugepages).then_some(enough));
    let cores = cores.iter().map(|core| core.map_or(0, |core| core.id)).collect();
    Eal::start(&dpdk::Options { cores, memory, ..options.clone() }).map_err(LaunchError::Dpdk)
}

/// Returns how many queues every port has, which is the largest number of workers that can share
/// the ports.
fn queues(config: &Config, eal: Option<&Eal>) -> usize {
    let queues = |port: &model::Port| match &port.kind {
        PortKind::Auto { device } | PortKind::AfXdp { device } | PortKind::AfPacket { device } => {
            // A missing device is reported when it is opened. By AF_PACKET, an optional one serves any
            // number of workers.
            let missing = if port.is_optional { usize::MAX } else { 1 };
            Device::find(device).map_or(missing, |device| device.queues() as usize)
        }
        PortKind::Dpdk { device, .. } => eal.and_then(|eal| eal.queues(device)).unwrap_or(1),
        PortKind::Tap { .. } | PortKind::Sink => usize::MAX,
        PortKind::Pcap { .. } | PortKind::Generator { .. } => 1,
    };
    config.ports.iter().map(queues).min().unwrap_or(1).max(1)
}

/// Creates a worker's frames, of `size` bytes each, as mbufs if DPDK runs.
fn pool(frames: usize, size: usize, eal: Option<&Eal>, core: Option<CoreId>) -> Result<Pool, LaunchError> {
    match eal {
        Some(eal) => eal.pool(frames, size, core.map_or(0, |core| core.id)).map_err(LaunchError::Dpdk),
        None => Pool::new(frames, size).map_err(LaunchError::Memory),
    }
}

/// Returns the addresses of the host's own network stack.
pub(crate) fn host_addresses() -> Result<Vec<IpAddr>, LaunchError> {
    let all = nix::ifaddrs::getifaddrs()
        .map_err(|why| LaunchError::System("list the host's addresses", why.into()))?;
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|a| a.ip().into());
        v4.or_else(|| storage.as_sockaddr_in6().map(|a| a.ip().into()))
    };
    Ok(all.filter_map(address).collect())
}

/// Logs what the gateway did.
fn summarise(gateway: &Gateway, captures: &[(String, Arc<CaptureReport>)]) {
    let sum = |f: fn(&WorkerCounters) -> u64| gateway.counters().map(|c| f(c)).sum::<u64>();
    info!(
        name: "gateway_stopped",
        received = sum(|c| c.received.value()),
        opened = sum(|c| c.opened.value()),
        sealed = sum(|c| c.sealed.value()),
        sent = sum(|c| c.sent.value()),
        "the gateway has stopped"
    );
    if let Some(Outcome::Result(Reply::Drops(all))) =
        gateway.ask(Command::Show { what: View::Drops }).map(|answer| answer.outcome)
    {
        for drop in all.iter().filter(|drop| drop.packets > 0) {
            let DropView { reason, packets, meaning, .. } = drop;
            info!(name: "dropped", %reason, packets, "dropped: {reason}: {meaning}");
        }
    }
    for (port, report) in captures {
        ports::log_skipped(port, &report.skipped());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spare_cores_exclude_the_first_and_those_beyond_the_limit() {
        let ids = |cores: &[usize], end| {
            let cores = cores.iter().map(|&id| CoreId { id }).collect();
            spare(cores, end).into_iter().map(|core| core.map(|core| core.id)).collect::<Vec<_>>()
        };
        assert_eq!(ids(&[0, 1, 127, 128], DPDK_CORES), [Some(1), Some(127)]);
        assert_eq!(ids(&[0, 1, 128], usize::MAX), [Some(1), Some(128)]);
        assert_eq!(ids(&[5], usize::MAX), [Some(5)]);
        assert_eq!((ids(&[128, 129], DPDK_CORES), ids(&[], DPDK_CORES)), (vec![None], vec![None]));
    }
}
