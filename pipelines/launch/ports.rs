//! Opens a configuration's ports, and the TAP devices that give the kernel the packets that are not
//! the gateway's.

use super::{
    assembly::{Exception, OpenPort},
    sub_ports::{self, MTU},
};
use crate::{
    config::{
        self,
        model::{self, Config, PortKind},
    },
    gateway::classify::REGISTRATION_PORT,
    slow_path::neighbours::Stations,
};
use std::{net::IpAddr, sync::Arc};
use tracing::{info, warn};
use wayfarer_dataplane::{
    pool::Pool,
    port::{
        Mac, Port, PortError,
        absent::{AbsentDevice, AbsentPort},
        classifier::{NatRule, Rules},
        device::Device,
        dpdk::{self, Eal},
        generator::Generator,
        link_layer::LinkLayer,
        open::{self, Kind, OpenDevice, Reopener, TapSettings},
        pcap::{self, Captures, PcapPort, Skipped},
        sink::Sink,
    },
    wire::{esp, ethernet, vlan::Vlan},
};

/// Opens every port with one queue for each pool: first the ports in the order of the
/// configuration, then their exception paths. `host` lists the addresses of the host's own network
/// stack.
///
/// # Errors
/// If a port cannot be opened: its name and the reason.
pub(super) fn open_all(
    config: &Config,
    host: &[IpAddr],
    eal: Option<&Eal>,
    pools: &mut [Pool],
) -> Result<Vec<OpenPort>, (String, PortError)> {
    let failed = |port: &model::Port| {
        let port = port.name.clone();
        |why| (port, why)
    };
    let (mut opened, captures) = (Vec::new(), Arc::default());
    for ports in sub_ports::devices(config) {
        let device = sub_ports::device(config, &ports);
        let device = open(config, &device, host, eal, &captures, pools).map_err(failed(&device))?;
        opened.extend(sub_ports::divide(config, &ports, device));
    }
    opened.sort_unstable_by_key(|(index, _)| *index);
    let mut ports: Vec<_> = opened.into_iter().map(|(_, port)| port).collect();
    for (of, port) in config.ports.iter().enumerate() {
        if let PortKind::Dpdk { exception: Some(exception), .. } = &port.kind {
            let path = open_exception(exception, of, &mut ports[of], pools.len());
            ports.push(path.map_err(failed(port))?);
        }
    }
    Ok(ports)
}

fn open(
    config: &Config,
    port: &model::Port,
    host: &[IpAddr],
    eal: Option<&Eal>,
    captures: &Arc<Captures>,
    pools: &mut [Pool],
) -> Result<OpenPort, PortError> {
    match &port.kind {
        // An AF_XDP socket gives its frames to the kernel, and here the frames belong to DPDK.
        PortKind::Auto { device } if eal.is_some() => {
            open_device(config, port, Kind::AfPacket, device, host, pools)
        }
        PortKind::Auto { device } => open_device(config, port, Kind::Auto, device, host, pools),
        PortKind::AfXdp { device } => open_device(config, port, Kind::AfXdp, device, host, pools),
        PortKind::AfPacket { device } => open_device(config, port, Kind::AfPacket, device, host, pools),
        PortKind::Tap { device } => open_device(config, port, Kind::Tap, device, host, pools),
        PortKind::Dpdk { device, promiscuous, .. } => {
            open_dpdk(config, port, device, *promiscuous, eal, pools)
        }
        PortKind::Pcap { input, output } => {
            let file = PcapPort::open(input.as_deref(), output.as_deref(), mac(port), captures)?;
            let capture = Some(file.report());
            Ok(OpenPort { capture, ..open_other(port, "pcap", vec![Box::new(file)]) })
        }
        PortKind::Generator { input, count } => {
            let (frames, skipped) = pcap::read(input, mac(port))?;
            log_skipped(&port.name, &skipped);
            Ok(open_other(port, "generator", vec![Box::new(Generator::new(frames, *count))]))
        }
        PortKind::Sink => {
            let sinks = pools.iter().map(|_| Box::new(Sink::new()) as Box<dyn Port>).collect();
            Ok(open_other(port, "sink", sinks))
        }
    }
}

/// Opens a network device of the kernel.
fn open_device(
    config: &Config,
    port: &model::Port,
    kind: Kind,
    device: &str,
    host: &[IpAddr],
    pools: &mut [Pool],
) -> Result<OpenPort, PortError> {
    let own: Vec<IpAddr> =
        config.ports.iter().flat_map(|p| p.addresses.iter().map(|(own, _)| *own)).collect();
    let has_ike = !config.ike.connections.is_empty();
    let ike_ports = has_ike.then_some(esp::IKE_PORT).into_iter();
    let siu_port = config.siu.first().map(|_| config.gateway.siu_port);
    let registrations = config.home_agent.as_ref().map(|_| REGISTRATION_PORT);
    let rules = Rules {
        local: host.iter().chain(&own).copied().collect(),
        udp_ports: ike_ports
            .chain(config.gateway.encap_ports.iter().copied())
            .chain(siu_port)
            .chain(registrations)
            .collect(),
        nats: config
            .nats
            .iter()
            .map(|nat| NatRule { address: nat.address, ports: nat.ports.clone() })
            .collect(),
        vlans: ports_on(config, device).filter_map(|port| Some(port.tagging?.vlan)).collect(),
        only_vlans: ports_on(config, device).all(|port| port.tagging.is_some()),
    };
    let frames_hold = longest_packet(pools);
    let mtu_limit = port.mtu.unwrap_or(usize::MAX).min(frames_hold);
    let tap_mtu = port.mtu.unwrap_or(MTU);
    let reopener = Reopener {
        device: device.to_owned(),
        rules: Rules { local: own.clone(), ..rules.clone() },
        workers: pools.len(),
        frame_size: pools.iter().map(Pool::frame_size).max().unwrap_or(0),
        tap: (kind == Kind::Tap).then_some(TapSettings { mtu: tap_mtu, mac: None }),
    };
    if port.is_optional && !reopener.is_ready(None) {
        let absent = absent(port, mtu_limit, reopener, pools.len());
        return Ok(OpenPort { frames_hold, ..absent });
    }
    let request = open::Request { device, kind, rules, tap_mtu };
    let OpenDevice {
        name,
        ports,
        driver,
        passed_over,
        mac,
        mtu,
        index,
        needs_finished,
        station,
        shared,
        monitor,
    } = open::open(&request, pools)?;
    for (driver, why) in passed_over {
        info!(port = port.name, "not {driver}: {why}");
    }
    info!(port = port.name, device, "opened as {driver}");
    if needs_finished {
        warn!(
            port = port.name,
            "the other end of this veth pair must not offload checksums or segmentation: \
             run ethtool -K PEER tx off tso off gso off"
        );
    }
    Ok(OpenPort {
        name: port.name.clone(),
        kind: driver.to_string(),
        device_name: Some(name),
        device: Some(index),
        vlan: None,
        sub_ports: Vec::new(),
        mac: port.mac.unwrap_or(mac),
        mtu: mtu.min(mtu_limit),
        mtu_limit,
        frames_hold,
        fills_checksums: false,
        addresses: port.addresses.clone(),
        stations: station.map_or(Stations::Ask, Stations::Only),
        is_host: kind == Kind::Tap,
        shared,
        exception: None,
        monitor: Some(monitor),
        capture: None,
        reopener: Some(reopener),
        queues: ports,
    })
}

/// Returns a port whose device is not there yet.
fn absent(port: &model::Port, mtu_limit: usize, reopener: Reopener, workers: usize) -> OpenPort {
    OpenPort {
        mtu: MTU.min(mtu_limit),
        mtu_limit,
        stations: Stations::Ask,
        device_name: Some(reopener.device.clone()),
        monitor: Some(Box::new(AbsentDevice::default())),
        reopener: Some(reopener),
        ..open_other(port, "-", (0..workers).map(|_| Box::new(AbsentPort) as _).collect())
    }
}

/// Opens a device of DPDK. The kernel gets packets of it only through the exception path.
fn open_dpdk(
    config: &Config,
    port: &model::Port,
    device: &str,
    promiscuous: bool,
    eal: Option<&Eal>,
    pools: &mut [Pool],
) -> Result<OpenPort, PortError> {
    let unsupported = |reason: String| PortError::NotSupported { device: device.to_owned(), reason };
    let interface = interface(config, device);
    if interface.as_ref().is_some_and(|interface| interface.link() == LinkLayer::Ip) {
        return Err(unsupported("DPDK needs Ethernet, but its interface carries bare IP packets".into()));
    }
    let is_af_packet = device.starts_with("net_af_packet");
    // The kernel takes the outer tag off a frame, and this driver does not read of which kind it was.
    if let Some(vlan) = outer_vlan(config, device).filter(|_| is_af_packet) {
        return Err(unsupported(format!(
            "its driver takes 802.1ad tags for 802.1Q ones, so VLAN {vlan} has no frames"
        )));
    }
    // UDP over IPv4 may go without a checksum (RFC 768); without IPv6, a driver may have a faster
    // way to send.
    let fill_checksums = port.addresses.iter().any(|(own, _)| own.is_ipv6());
    let vlans = || ports_on(config, device).filter_map(|port| Some(port.tagging?.vlan));
    // Devices differ in what they take for an outer tag.
    let offload_tags = vlans().next().is_some() && vlans().all(|vlan| vlan.outer().is_none());
    let request =
        dpdk::Request { device, mtu: port.mtu, mac: port.mac, promiscuous, fill_checksums, offload_tags };
    let dpdk::OpenDevice { ports, kind, mac, mtu, fills_checksums, has_fixed_mtu, mut monitor } =
        eal.ok_or_else(|| unsupported("DPDK has not been started".into()))?.open(&request, pools)?;
    info!(port = port.name, device, "opened as {kind}");
    if let Some(mtu) = port.mtu.filter(|_| has_fixed_mtu) {
        warn!(
            port = port.name,
            mtu, "its driver sets no MTU: the device may not carry packets of this length"
        );
    }
    if is_af_packet && interface.is_some_and(|interface| interface.is_veth()) {
        warn!(
            port = port.name,
            "the other end of this veth pair must not offload checksums or segmentation: \
             run ethtool -K PEER tx off tso off gso off"
        );
    }
    let mtu_limit = port.mtu.map_or(mtu, |wanted| wanted.min(mtu));
    let mut mtu = mtu_limit;
    // A TAP device is made with DPDK's.
    if let Some(interface) = self::interface(config, device) {
        mtu = mtu.min(interface.mtu()?);
        monitor = dpdk::on_interface(monitor, interface)?;
    }
    Ok(OpenPort {
        name: port.name.clone(),
        kind,
        device_name: Some(device.to_owned()),
        device: None,
        vlan: None,
        sub_ports: Vec::new(),
        mac,
        mtu,
        mtu_limit,
        frames_hold: longest_packet(pools),
        fills_checksums,
        addresses: port.addresses.clone(),
        stations: Stations::Ask,
        is_host: false,
        shared: None,
        exception: None,
        monitor: Some(monitor),
        capture: None,
        reopener: None,
        queues: ports,
    })
}

/// Returns the length of the longest IP packet behind an Ethernet header that all frames hold, in bytes.
fn longest_packet(pools: &[Pool]) -> usize {
    config::longest_packet(pools.iter().map(Pool::frame_size).min().unwrap_or(0))
}

/// Returns the ports on a device.
fn ports_on<'a>(config: &'a Config, device: &'a str) -> impl Iterator<Item = &'a model::Port> {
    config.ports.iter().filter(move |port| port.kind.device() == Some(device))
}

/// Returns a VLAN of a device's ports that has an 802.1ad tag, if there is one.
fn outer_vlan(config: &Config, device: &str) -> Option<Vlan> {
    ports_on(config, device).filter_map(|port| Some(port.tagging?.vlan)).find(|vlan| vlan.outer().is_some())
}

/// Returns the kernel's device that a virtual device of DPDK uses, if there is one.
fn interface(config: &Config, device: &str) -> Option<Device> {
    let vdevs = config.dpdk.iter().flat_map(|options| &options.vdev);
    let mut own = vdevs.filter(|vdev| vdev.split(',').next() == Some(device));
    let name = own.find_map(|vdev| vdev.split(',').find_map(|word| word.strip_prefix("iface=")))?;
    Device::find(name).ok()
}

/// Opens the TAP device that stands for `port`, number `of`, in the kernel. It has the port's MAC
/// address. Kernel routes through it become routes through the port.
fn open_exception(
    exception: &model::Exception,
    of: usize,
    port: &mut OpenPort,
    workers: usize,
) -> Result<OpenPort, PortError> {
    let reopener = Reopener {
        device: exception.device.clone(),
        // A TAP device is not shared, and has no ring of frames.
        rules: Rules::default(),
        frame_size: 0,
        workers,
        tap: Some(TapSettings { mtu: port.mtu, mac: Some(port.mac) }),
    };
    let OpenDevice { name, ports, index, monitor, .. } = reopener.open(&reopener.primary_name(None)?, [])?;
    port.device = Some(index);
    info!(
        port = port.name,
        device = exception.device,
        "packets that are not the gateway's go to the kernel through this device"
    );
    Ok(OpenPort {
        name: exception.device.clone(),
        kind: format!("tap (exception of {})", port.name),
        device_name: Some(name),
        device: None,
        vlan: None,
        sub_ports: Vec::new(),
        mac: port.mac,
        mtu: port.mtu,
        mtu_limit: port.mtu,
        frames_hold: usize::MAX,
        fills_checksums: false,
        addresses: Vec::new(),
        stations: Stations::Only(port.mac),
        is_host: false,
        shared: None,
        exception: Some(Exception { of, rate: exception.rate }),
        monitor: Some(monitor),
        capture: None,
        reopener: Some(reopener),
        queues: ports,
    })
}

/// Returns an open port that has no device.
fn open_other(port: &model::Port, kind: &str, queues: Vec<Box<dyn Port>>) -> OpenPort {
    OpenPort {
        name: port.name.clone(),
        kind: kind.to_owned(),
        device_name: None,
        device: None,
        vlan: None,
        sub_ports: Vec::new(),
        mac: mac(port),
        mtu: port.mtu.unwrap_or(MTU),
        mtu_limit: port.mtu.unwrap_or(MTU),
        frames_hold: usize::MAX,
        fills_checksums: false,
        addresses: port.addresses.clone(),
        // A file has no stations to resolve.
        stations: Stations::Only(ethernet::BROADCAST),
        is_host: port.is_host,
        shared: None,
        exception: None,
        monitor: None,
        capture: None,
        reopener: None,
        queues,
    }
}

/// Logs how many records of a port's input were skipped, for each reason.
pub(super) fn log_skipped(port: &str, skipped: &Skipped) {
    for (reason, records) in skipped {
        warn!(name: "records_skipped", port, records, %reason, "records of the input were skipped");
    }
}

/// Returns the MAC address of a port without a device: that of the configuration, or else a locally
/// administered one that depends on the port's name only.
fn mac(port: &model::Port) -> Mac {
    port.mac.unwrap_or_else(|| mac_of(&port.name))
}

fn mac_of(name: &str) -> Mac {
    let hash =
        name.bytes().fold(0xcbf2_9ce4u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let [a, b, c, d] = hash.to_be_bytes();
    [2, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::alone;
    use std::path::Path;
    use wayfarer_dataplane::port::monitor::Monitor;

    #[test]
    fn ports_in_vlans_have_the_mtu_that_tags_leave_and_the_host_is_in_none() {
        let port = |name: &str, vlan: &str| {
            format!("[[port]]\nname = \"{name}\"\nkind = \"tap\"\ndevice = \"wf0\"\n{vlan}\n")
        };
        let ports = [port("single", "vlan = 100"), port("double", "vlan = [7, 100]"), port("plain", "")];
        let config = config::parse(&ports.concat(), Path::new("x.toml")).unwrap();
        for (mtu_limit, frames_hold, expected) in [
            // Frames of the first device hold more than its MTU, which that of the second cannot exceed.
            (1778, 1778, [(1500, 1774), (1492, 1770), (1500, 1778)]),
            (1500, usize::MAX, [(1500, 1500), (1492, 1492), (1500, 1500)]),
        ] {
            let divide = |ports: &[usize]| {
                let monitor: Option<Box<dyn Monitor>> = Some(Box::new(AbsentDevice::default()));
                let whole = open_other(&config.ports[0], "tap", vec![]);
                let device = OpenPort { mtu: 1500, mtu_limit, frames_hold, monitor, ..whole };
                sub_ports::divide(&config, ports, device)
            };
            let parts = divide(&[0, 1, 2]);
            assert_eq!(
                parts.iter().map(|(_, port)| (port.mtu, port.mtu_limit)).collect::<Vec<_>>(),
                expected
            );
            assert_eq!(parts.iter().map(|(_, port)| port.is_host).collect::<Vec<_>>(), [false, false, true]);
            assert!(divide(&[0])[0].1.is_host, "no other port leads to the host");
        }
    }

    #[test]
    fn an_exception_path_stands_for_its_port_in_the_kernel() {
        alone(|| {
            let mac = [2, 0, 0, 7, 7, 7];
            let config = model::Port {
                name: "outside".into(),
                kind: PortKind::Sink,
                tagging: None,
                addresses: vec![],
                mtu: Some(1400),
                mac: Some(mac),
                is_host: false,
                is_optional: false,
            };
            let mut port = open_other(&config, "dpdk", vec![]);
            let exception = model::Exception { device: "wf-outside".into(), rate: 500 };
            let path = open_exception(&exception, 3, &mut port, 2).unwrap();
            let device = Device::find("wf-outside").unwrap();
            assert_eq!((device.mac(), device.mtu().unwrap(), device.is_up().unwrap()), (mac, 1400, true));
            assert_eq!((port.device, path.device), (Some(device.index()), None));
            assert_eq!((&path.name[..], &path.kind[..]), ("wf-outside", "tap (exception of outside)"));
            assert_eq!((path.exception, path.queues.len()), (Some(Exception { of: 3, rate: 500 }), 2));
            assert!(path.monitor.is_some_and(|monitor| monitor.state().is_up));
            drop(path.queues);
            let again = path.reopener.unwrap().open("wf-outside", []).unwrap();
            assert_eq!((again.mac, again.station, again.mtu, again.ports.len()), (mac, Some(mac), 1400, 2));
            assert_eq!(Device::find("wf-outside").unwrap().mac(), mac);
            let taken = open_exception(&model::Exception { device: "lo".into(), rate: 500 }, 3, &mut port, 1);
            assert_eq!(
                taken.unwrap_err().to_string(),
                "lo: not a TAP device of 1 queues, or not a name for one"
            );
        });
    }
}
