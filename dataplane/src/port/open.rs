//! Opens a kernel device for all workers, in the best way that it allows.

use super::{
    Mac, Port, PortError,
    af_packet::AfPacketPort,
    af_xdp::{AfXdpPort, AfXdpQueues},
    bound_device::BoundDevice,
    classifier::{Classifier, Rules},
    device::Device,
    link_layer::{FAR_MAC, LinkLayer},
    monitor::Monitor,
    neighbour_socket::NeighbourSocket,
    tap::TapPort,
    too_big_socket::TooBigSocket,
};
use crate::{
    pool::{HEADROOM, Pool},
    wire::{ethernet, ip::V6_MIN_MTU},
};
use std::{fmt, net::IpAddr, sync::Arc};

/// The least number of frames that wait in the ring of a queue.
const MIN_FRAMES: usize = 32;
/// 1/8 of a pool waits in the rings of one device, so that four devices leave half of it for
/// packets in transit.
const POOL_SHARE: usize = 8;

/// The requested way to open a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// AF_XDP, or AF_PACKET if that is not possible or would lose traffic
    /// ([`Device::may_be_unfinished`]).
    Auto,
    /// AF_XDP in the driver or, if that is not possible, in the kernel's receive path.
    AfXdp,
    /// AF_PACKET.
    AfPacket,
    /// A TAP device, which is made if it does not exist.
    Tap,
}

/// The way in which a device was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// AF_XDP in the driver, into the workers' own frames.
    AfXdpZeroCopy,
    /// AF_XDP in the driver, with one copy in the kernel.
    AfXdpNative,
    /// AF_XDP in the kernel's receive path.
    AfXdpGeneric,
    /// AF_PACKET.
    AfPacket,
    /// AF_PACKET on a device that carries bare IP packets.
    AfPacketIp,
    /// A TAP device.
    Tap,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AfXdpZeroCopy => "af_xdp (zero-copy)",
            Self::AfXdpNative => "af_xdp (native)",
            Self::AfXdpGeneric => "af_xdp (generic)",
            Self::AfPacket => "af_packet",
            Self::AfPacketIp => "af_packet (bare IP)",
            Self::Tap => "tap",
        })
    }
}

/// A device that is to be opened.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Name of the device.
    pub device: &'a str,
    /// The way to open it.
    pub kind: Kind,
    /// The rules that divide its frames between the gateway and the host. A TAP device is the
    /// gateway's
    /// alone.
    pub rules: Rules,
    /// MTU that a TAP device gets, in bytes. Other devices keep theirs.
    pub tap_mtu: usize,
}

/// The slow path's part of a device that the gateway shares with the kernel.
#[derive(Debug)]
pub struct SharedDevice {
    /// Decides which addresses are the host's. Can be changed at any time.
    pub classifier: Arc<Classifier>,
    /// ARP and neighbour discovery, which the ports do not carry. `None` on a device without
    /// Ethernet, which has neither.
    pub neighbours: Option<NeighbourSocket>,
    /// ICMP errors to the host about packets that were too big, which may be the gateway's.
    pub too_big: TooBigSocket,
}

/// An open device.
pub struct OpenDevice {
    /// Its primary name.
    pub name: String,
    /// One port for each worker, in the order of their pools.
    pub ports: Vec<Box<dyn Port>>,
    /// The way in which it was opened.
    pub driver: Driver,
    /// Better ways, each with the reason why it was not possible, or not taken.
    pub passed_over: Vec<(Driver, PortError)>,
    /// The gateway's MAC address on the device.
    pub mac: Mac,
    /// Largest payload of a frame, in bytes.
    pub mtu: usize,
    /// The kernel's interface index.
    pub index: u32,
    /// `true` if it is one end of a veth pair, and opened in a way that loses packets unless their
    /// sender completes checksums and does not join them.
    pub needs_finished: bool,
    /// The MAC address of the only station: the host's own stack at the other end of a TAP device, or
    /// the made-up one of the far side of a device without Ethernet.
    pub station: Option<Mac>,
    /// The part for the slow path. `None` for a TAP device.
    pub shared: Option<SharedDevice>,
    /// The state of the device while it runs.
    pub monitor: Box<dyn Monitor>,
}

/// Opens a device for as many workers as there are pools. The caller ensures that nobody else uses
/// it.
///
/// # Errors
/// [`PortError::NoDevice`]; [`PortError::NotSupported`] if the device is down, has fewer queues
/// than there are workers (AF_XDP), or frames of the pools are too small: for the MTU that a TAP device
/// gets, or for that of any other, at most 1280 bytes (the smallest MTU of IPv6);
/// [`PortError::Permission`]; or the error of the system for the last way that was tried.
pub fn open(request: &Request<'_>, pools: &mut [Pool]) -> Result<OpenDevice, PortError> {
    if request.kind == Kind::Tap {
        let settings = TapSettings { mtu: request.tap_mtu, mac: None };
        let opened = open_tap(request.device, settings, pools.len().max(1))?;
        check_frames(request.device, opened.mtu + tags(&request.rules), pools)?;
        return Ok(opened);
    }
    let device = Device::find(request.device)?;
    if !device.is_up()? {
        return Err(device.unsupported("the device is down"));
    }
    if device.link() == LinkLayer::Ip && !request.rules.vlans.is_empty() {
        return Err(device.unsupported("it has no Ethernet, and so no VLANs"));
    }
    // Frames may be smaller than its MTU: then only shorter packets pass.
    check_frames(device.name(), device.mtu()?.min(V6_MIN_MTU) + tags(&request.rules), pools)?;
    let bound = BoundDevice::new(device)?;
    let device = bound.device();
    let ways: &[Driver] = match request.kind {
        Kind::Auto => &[Driver::AfXdpNative, Driver::AfXdpGeneric, Driver::AfPacket],
        Kind::AfXdp => &[Driver::AfXdpNative, Driver::AfXdpGeneric],
        _ => &[Driver::AfPacket],
    };
    let mut passed_over: Vec<(Driver, PortError)> = Vec::new();
    for way in ways {
        let native = *way == Driver::AfXdpNative;
        let attempt = match way {
            Driver::AfPacket => {
                let frame = pools.iter().map(Pool::frame_size).max().unwrap_or(0);
                open_af_packet(device, &request.rules, pools.len(), frame)
            }
            _ => match unfit_for_af_xdp(device, native, request.kind) {
                Some(reason) => Err(device.unsupported(reason)),
                None => open_af_xdp(device, native, &request.rules, pools),
            },
        };
        match attempt {
            // One line tells of both modes of AF_XDP.
            Err(reason) if passed_over.iter().any(|(_, other)| other.to_string() == reason.to_string()) => {}
            Err(reason) => passed_over.push((*way, reason)),
            Ok(queues) => return shared(bound, queues, passed_over),
        }
    }
    Err(passed_over.pop().map_or_else(|| device.unsupported("no way to open it"), |(_, reason)| reason))
}

/// Returns the reason why a device must not be opened by AF_XDP, in the driver (`native`) or in the
/// kernel's receive path, if there is one.
fn unfit_for_af_xdp(device: &Device, native: bool, kind: Kind) -> Option<&'static str> {
    if device.link() != LinkLayer::Ethernet {
        return Some("AF_XDP needs Ethernet, but this device carries bare IP packets");
    }
    let is_risky = kind == Kind::Auto && device.may_be_unfinished(native);
    is_risky.then_some(
        "AF_XDP would lose what senders on this machine leave to the device to finish (checksums, segments)",
    )
}

/// The settings of a TAP device that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapSettings {
    /// MTU in bytes.
    pub mtu: usize,
    /// MAC address that both ends have, as one station. If `None`, the kernel's end has one of the kernel's
    /// choice, and the gateway's end differs from it in the last bit.
    pub mac: Option<Mac>,
}

/// A device that can be opened again after it was gone, or that may appear after the start. It is
/// opened by AF_PACKET, or made again if it is a TAP device: neither needs anything of the workers.
#[derive(Clone, Debug)]
pub struct Reopener {
    /// The device's primary name, or an alternative one. Once the device is gone, only one that has this
    /// name is opened: another one may have got the primary name that the last had. A TAP device gets it.
    pub device: String,
    /// The rules that divide its frames between the gateway and the host, without the addresses that
    /// the host's own network stack has at the moment.
    pub rules: Rules,
    /// The number of workers, each of which gets a port.
    pub workers: usize,
    /// Length of the longest frame that workers hold, in bytes.
    pub frame_size: usize,
    /// The settings that the device gets if it is a TAP device; `None` for any other.
    pub tap: Option<TapSettings>,
}

impl Reopener {
    /// Returns whether the device can be made, or exists and is up. `present` is the primary name of the
    /// one in use; `None` if there is none.
    pub fn is_ready(&self, present: Option<&str>) -> bool {
        self.tap.is_some() || self.find(present).is_ok_and(|device| device.is_up().unwrap_or(false))
    }

    /// Returns the primary name of the device that is to be opened; of a TAP device that does not exist,
    /// the one that it gets. `present` is the primary name of the one in use; `None` if there is none.
    ///
    /// # Errors
    /// [`PortError::NoDevice`], or the error of the system.
    pub fn primary_name(&self, present: Option<&str>) -> Result<String, PortError> {
        match self.find(present) {
            Err(PortError::NoDevice { .. }) if self.tap.is_some() => Ok(self.device.clone()),
            found => Ok(found?.name().to_owned()),
        }
    }

    fn find(&self, present: Option<&str>) -> Result<Device, PortError> {
        Device::find(present.unwrap_or(&self.device))
    }

    /// Opens the device of this primary name for all workers. `host` lists the addresses of the host's
    /// own network stack.
    ///
    /// # Errors
    /// As [`open`], for [`Kind::AfPacket`] or [`Kind::Tap`].
    pub fn open(&self, name: &str, host: impl IntoIterator<Item = IpAddr>) -> Result<OpenDevice, PortError> {
        if let Some(settings) = self.tap {
            return open_tap(name, settings, self.workers);
        }
        let device = Device::find(name)?;
        if device.name() != name {
            return Err(PortError::NoDevice { device: name.to_owned() });
        }
        let bound = BoundDevice::new(device)?;
        let mut rules = self.rules.clone();
        rules.local.extend(host);
        let queues = open_af_packet(bound.device(), &rules, self.workers, self.frame_size)?;
        shared(bound, queues, Vec::new())
    }
}

/// Returns the largest length of the tags that received frames have, in bytes.
fn tags(rules: &Rules) -> usize {
    rules.vlans.iter().map(|vlan| vlan.tags()).max().unwrap_or(0)
}

/// Returns an error unless frames of `pools` are large enough for payloads of `mtu` bytes.
pub(super) fn check_frames(device: &str, mtu: usize, pools: &[Pool]) -> Result<(), PortError> {
    let reason = match pools.iter().map(Pool::frame_size).min() {
        None => "no worker to open it for".to_owned(),
        Some(frame) if frame < HEADROOM + ethernet::HEADER + mtu => {
            format!("frames of {frame} bytes are too small for packets of {mtu} bytes")
        }
        Some(_) => return Ok(()),
    };
    Err(PortError::NotSupported { device: device.to_owned(), reason })
}

/// The ports of a device, one for each worker, and what goes with them.
struct Queues {
    ports: Vec<Box<dyn Port>>,
    driver: Driver,
    classifier: Arc<Classifier>,
    /// The number of the device's receive queues that they serve; `None` if they serve whatever there are.
    served: Option<u32>,
}

/// Gives each worker a share of the receive queues. All queues are served, because otherwise some
/// packets would reach no worker.
fn open_af_xdp(
    device: &Device,
    native: bool,
    rules: &Rules,
    pools: &mut [Pool],
) -> Result<Queues, PortError> {
    let (queues, workers) = (device.queues(), pools.len());
    if (queues as usize) < workers {
        let reason = format!("AF_XDP needs a queue for each of {workers} workers; it has {queues}");
        return Err(device.unsupported(reason));
    }
    // Frames in a VLAN are those of another port or the kernel's, but XDP does not see a tag that the NIC
    // has taken off. Not every driver can leave it there.
    device.keep_tags().or_else(|why| if rules.vlans.is_empty() { Ok(()) } else { Err(why) })?;
    if !native {
        // Joined packets would not fit a frame. Not every driver has GRO to turn off.
        let _ = device.disable_gro();
    }
    let classifier = Arc::new(Classifier::xdp(device, queues, native, rules)?);
    let mut zero_copy = true;
    let mut ports: Vec<Box<dyn Port>> = Vec::new();
    for (worker, pool) in pools.iter_mut().enumerate() {
        let own: Vec<_> = (worker as u32..queues).step_by(workers).collect();
        let fill = (pool.capacity() / POOL_SHARE / own.len()).max(MIN_FRAMES);
        let own = own.into_iter().map(|queue| AfXdpPort::open(pool, device, queue, fill, &classifier));
        let own = own.collect::<Result<Vec<_>, _>>()?;
        zero_copy &= own.iter().all(AfXdpPort::is_zero_copy);
        ports.extend(AfXdpQueues::new(own).map(|port| Box::new(port) as _));
    }
    let driver = match (native, zero_copy) {
        (true, true) => Driver::AfXdpZeroCopy,
        (true, false) => Driver::AfXdpNative,
        (false, _) => Driver::AfXdpGeneric,
    };
    Ok(Queues { ports, driver, classifier, served: Some(queues) })
}

fn open_af_packet(device: &Device, rules: &Rules, workers: usize, frame: usize) -> Result<Queues, PortError> {
    let classifier = Arc::new(Classifier::packet(device, rules)?);
    let ports = AfPacketPort::open(device, workers, frame, &classifier)?;
    let driver = match device.link() {
        LinkLayer::Ethernet => Driver::AfPacket,
        LinkLayer::Ip => Driver::AfPacketIp,
    };
    let ports = ports.into_iter().map(|port| Box::new(port) as _).collect();
    Ok(Queues { ports, driver, classifier, served: None })
}

/// Completes an open device that is shared with the kernel.
fn shared(
    bound: BoundDevice,
    Queues { ports, driver, classifier, served }: Queues,
    passed_over: Vec<(Driver, PortError)>,
) -> Result<OpenDevice, PortError> {
    let device = bound.device();
    let has_ethernet = device.link() == LinkLayer::Ethernet;
    let neighbours = has_ethernet.then(|| NeighbourSocket::open(device)).transpose()?;
    let too_big = TooBigSocket::open(device)?;
    let is_af_packet = matches!(driver, Driver::AfPacket | Driver::AfPacketIp);
    Ok(OpenDevice {
        name: device.name().to_owned(),
        ports,
        driver,
        passed_over,
        mac: device.mac(),
        mtu: device.mtu()?,
        index: device.index(),
        needs_finished: !is_af_packet && device.is_veth(),
        station: (!has_ethernet).then_some(FAR_MAC),
        shared: Some(SharedDevice { classifier, neighbours, too_big }),
        monitor: Box::new(match served {
            Some(queues) => bound.with_served_queues(queues),
            None => bound,
        }),
    })
}

fn open_tap(name: &str, settings: TapSettings, queues: usize) -> Result<OpenDevice, PortError> {
    let TapSettings { mtu, mac } = settings;
    let ports = TapPort::open(name, mtu, queues)?;
    let device = Device::find(name)?;
    let (mac, host_mac) = match mac {
        Some(mac) => {
            device.set_mac(mac)?;
            (mac, mac)
        }
        None => (ports[0].mac(), ports[0].host_mac()),
    };
    Ok(OpenDevice {
        name: device.name().to_owned(),
        ports: ports.into_iter().map(|port| Box::new(port) as _).collect(),
        driver: Driver::Tap,
        passed_over: Vec::new(),
        mac,
        mtu,
        index: device.index(),
        needs_finished: false,
        station: Some(host_mac),
        shared: None,
        monitor: Box::new(device),
    })
}
