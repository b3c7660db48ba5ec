//! A gateway on real devices and files: opens the ports of a configuration, starts it, and ends it on a signal.

use crate::{
    config::model::{self, Config, PortKind},
    control::{
        protocol::{Command, Outcome, Reply, View},
        server::{ControlError, Server},
    },
    gateway::counters::WorkerCounters,
    slow_path::neighbours::Stations,
    start::{Assembly, Gateway, OpenPort, Seat, StartError},
};
use core_affinity::CoreId;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::{
    fmt, io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tracing::{info, warn};
use wayfarer_dataplane::{
    pool::Pool,
    port::{
        Mac, Port, PortError,
        classifier::Rules,
        device::Device,
        generator::Generator,
        open::{self, Kind, Opened, Request},
        pcap::{self, PcapPort},
        sink::Sink,
    },
    wire::ethernet,
};

/// How often the main thread looks whether it is to end.
const WATCH: Duration = Duration::from_millis(20);
/// Largest IP packet of ports that have no device to say so.
const MTU: usize = 1500;

/// Why a gateway did not run.
#[derive(Debug)]
pub enum RunError {
    /// A port could not be opened.
    Port {
        /// Its name.
        port: String,
        /// Why.
        why: PortError,
    },
    /// A core was asked for that is not there.
    Core(usize),
    /// No memory for frames.
    Memory(io::Error),
    /// The gateway could not be started.
    Start(StartError),
    /// The control socket could not be opened.
    Control(ControlError),
    /// A thread of the gateway failed while it ran.
    Thread,
    /// Something that the system refused.
    System(&'static str, io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { port, why } => write!(f, "port {port}: {why}"),
            Self::Core(core) => write!(f, "there is no core {core} for a worker"),
            Self::Memory(why) => write!(f, "no memory for frames: {why}"),
            Self::Start(why) => why.fmt(f),
            Self::Control(why) => why.fmt(f),
            Self::Thread => f.write_str("a thread of the gateway failed"),
            Self::System(what, why) => write!(f, "cannot {what}: {why}"),
        }
    }
}

impl std::error::Error for RunError {}

/// Runs the gateway of `config` until SIGINT or SIGTERM, or until all its files are read.
///
/// # Errors
/// See [`RunError`]; nothing is left half started then.
pub fn gateway(config: &Config) -> Result<(), RunError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|why| RunError::System("watch for signals", why))?;
    }
    let cores = cores(config)?;
    let pool = || Pool::new(config.gateway.frames, config.gateway.frame_size);
    let mut pools = cores.iter().map(|_| pool()).collect::<Result<Vec<_>, _>>().map_err(RunError::Memory)?;
    let host = host_addresses()?;
    let mut ports = Vec::new();
    for port in &config.ports {
        let opened = open(config, port, &host, &mut pools);
        ports.push(opened.map_err(|why| RunError::Port { port: port.name.clone(), why })?);
    }
    let seats = pools.into_iter().zip(&cores).map(|(pool, &core)| Seat { pool, core }).collect();
    let assembly = Assembly::new(config, seats, ports).map_err(RunError::Start)?;
    // Before anything forwards: where another gateway answers already, this one must not begin.
    let control = config.gateway.control.as_ref();
    let control = control.map(|path| Server::start(path, assembly.requests.clone())).transpose();
    let control = control.map_err(RunError::Control)?;
    let mut gateway = Gateway::start(assembly).map_err(RunError::Start)?;
    info!(workers = cores.len(), tunnels = config.tunnels.len(), "the gateway forwards");
    while !stop.load(Relaxed) && !gateway.is_finished() && !gateway.is_broken() {
        std::thread::sleep(WATCH);
    }
    let broken = gateway.is_broken();
    let all_ended = gateway.stop_workers();
    drop(control);
    summarise(&gateway);
    if broken || !all_ended { Err(RunError::Thread) } else { Ok(()) }
}

/// The core of each worker. As many as configured; else one for each queue that every device has, on all cores but
/// the first, which is left to the slow path and the rest of the machine.
fn cores(config: &Config) -> Result<Vec<Option<CoreId>>, RunError> {
    let all = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(wanted) = &config.gateway.workers {
        let find = |id: &usize| {
            all.iter().find(|core| core.id == *id).map(|core| Some(*core)).ok_or(RunError::Core(*id))
        };
        return wanted.iter().map(find).collect();
    }
    let queues = |port: &model::Port| match &port.kind {
        PortKind::Auto { device } | PortKind::AfXdp { device } | PortKind::AfPacket { device } => {
            // A device that is missing is reported when it is opened.
            Device::find(device).map_or(1, |device| device.queues() as usize)
        }
        PortKind::Tap { .. } | PortKind::Sink => usize::MAX,
        PortKind::Pcap { .. } | PortKind::Generator { .. } => 1,
    };
    let most = config.ports.iter().map(queues).min().unwrap_or(1).max(1);
    let spare: Vec<_> = if all.len() > 1 { all[1..].to_vec() } else { all };
    if spare.is_empty() {
        return Ok(vec![None]);
    }
    Ok(spare.into_iter().take(most).map(Some).collect())
}

/// The addresses that the kernel's own stack has.
pub(crate) fn host_addresses() -> Result<Vec<IpAddr>, RunError> {
    let all = nix::ifaddrs::getifaddrs()
        .map_err(|why| RunError::System("list the host's addresses", why.into()))?;
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|a| a.ip().into());
        v4.or_else(|| storage.as_sockaddr_in6().map(|a| a.ip().into()))
    };
    Ok(all.filter_map(address).collect())
}

fn open(
    config: &Config,
    port: &model::Port,
    host: &[IpAddr],
    pools: &mut [Pool],
) -> Result<OpenPort, PortError> {
    let kind = match &port.kind {
        PortKind::Auto { device } => (Kind::Auto, device),
        PortKind::AfXdp { device } => (Kind::AfXdp, device),
        PortKind::AfPacket { device } => (Kind::AfPacket, device),
        PortKind::Tap { device } => (Kind::Tap, device),
        _ => return open_other(port, pools.len()),
    };
    let own = config.ports.iter().flat_map(|p| p.addresses.iter().map(|(own, _)| *own));
    let has_ike = !config.ike.connections.is_empty();
    let ike_ports = has_ike.then_some(wayfarer_dataplane::wire::esp::IKE_PORT).into_iter();
    let rules = Rules {
        local: host.iter().copied().chain(own).collect(),
        udp_ports: ike_ports.chain(config.gateway.encap_ports.iter().copied()).collect(),
    };
    let tap_mtu = port.mtu.unwrap_or(MTU);
    let request = Request { device: kind.1, kind: kind.0, rules, tap_mtu };
    let Opened { ports, driver, passed_over, mac, mtu, is_veth, host_mac, shared } =
        open::open(&request, pools)?;
    for (driver, why) in passed_over {
        info!(port = port.name, "not {driver}: {why}");
    }
    info!(port = port.name, device = kind.1, "opened as {driver}");
    if is_veth {
        warn!(
            port = port.name,
            "a veth's peer must send whole checksums and frames: ethtool -K PEER tx off tso off gso off"
        );
    }
    Ok(OpenPort {
        name: port.name.clone(),
        kind: driver.to_string(),
        device: Some(Device::find(kind.1)?.index()),
        mac: port.mac.unwrap_or(mac),
        mtu: port.mtu.map_or(mtu, |wanted| wanted.min(mtu)),
        fills_checksums: false,
        addresses: port.addresses.clone(),
        stations: host_mac.map_or(Stations::Ask, Stations::Only),
        is_host: host_mac.is_some(),
        shared,
        exception: None,
        queues: ports,
    })
}

/// A port that is no device.
fn open_other(port: &model::Port, workers: usize) -> Result<OpenPort, PortError> {
    let one = |queue: Box<dyn Port>| vec![queue];
    let (kind, queues) = match &port.kind {
        PortKind::Pcap { input, output } => {
            ("pcap", one(Box::new(PcapPort::open(input.as_deref(), output.as_deref())?)))
        }
        PortKind::Generator { input, count } => {
            ("generator", one(Box::new(Generator::new(pcap::read(input)?, *count))))
        }
        _ => ("sink", (0..workers).map(|_| Box::new(Sink::new()) as Box<dyn Port>).collect()),
    };
    Ok(OpenPort {
        name: port.name.clone(),
        kind: kind.to_owned(),
        device: None,
        mac: port.mac.unwrap_or_else(|| mac_of(&port.name)),
        mtu: port.mtu.unwrap_or(MTU),
        fills_checksums: false,
        addresses: port.addresses.clone(),
        // A file has no stations to ask.
        stations: Stations::Only(ethernet::BROADCAST),
        is_host: port.is_host,
        shared: None,
        exception: None,
        queues,
    })
}

/// A locally administered MAC address that is the same for the same name.
fn mac_of(name: &str) -> Mac {
    let hash =
        name.bytes().fold(0xcbf2_9ce4u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let [a, b, c, d] = hash.to_be_bytes();
    [2, 0, a, b, c, d]
}

/// Says at the end what was done.
fn summarise(gateway: &Gateway) {
    let sum = |f: fn(&WorkerCounters) -> u64| gateway.counters().map(|c| f(c)).sum::<u64>();
    info!(
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
            info!(packets = drop.packets, "dropped: {}: {}", drop.reason, drop.meaning);
        }
    }
}
