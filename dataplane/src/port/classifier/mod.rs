//! Decides whether a frame is the gateway's or the kernel's, so that the host stays reachable on a
//! NIC that the gateway uses. A BPF program does this.
//!
//! | frame to the NIC's own MAC address | goes to |
//! |---|---|
//! | IP to an address that is not the host's: to be forwarded | gateway |
//! | ESP (protocol 50) to an address of the host, also in fragments | gateway |
//! | UDP to an address of the host and a listed port, also in fragments | gateway |
//! | TCP and UDP to a port of a NAT, also in fragments | gateway |
//! | ICMP replies with an identifier that a NAT uses, also in fragments; ICMP errors about what a NAT sent | gateway |
//! | a later fragment of UDP to the host, or of a NAT's protocols to its address, that overtook the first | both |
//! | a DHCP server's answer to the NIC's own MAC address, wherever it is sent, in one piece | kernel |
//! | anything else to the host, including IPv6 with other extension headers | kernel |
//! | multicast, broadcast, in a VLAN, IPv6 link-local, not IP, malformed | kernel |
//!
//! Frames to any other MAC address, also multicast and broadcast, are the kernel's. A device without
//! Ethernet has no MAC addresses: there the IP header decides alone.
//!
//! A port may be in a VLAN ([`vlan`](super::vlan)). The kernel has no device there, so everything in
//! it to the NIC's own address, to groups and to all stations is the gateway's, with ARP and neighbour
//! discovery. If all ports are in VLANs, whatever is in none is the kernel's.
//!
//! Only the first fragment of a packet shows its ports. The program remembers whose the packet is, and
//! the later ones follow. If a later fragment overtakes the first, both get it, and whoever does not
//! get the first one forgets it in time. The kernel answers nothing then, because it never sees the
//! start of the gateway's packets (RFC 792, RFC 4443 §3.3).
//!
//! A tag of VLAN 0, of 802.1Q or 802.1ad, only states a priority: the frame is in no VLAN (IEEE
//! 802.1Q, priority-tagged frames). The kernel takes any number of them off. So the headers behind
//! them decide. XDP cannot see a tag that is not in the frame. [`open`](super::open) makes NICs
//! leave it there ([`Device::keep_tags`]), but the far end of a veth pair may not put it there:
//! with VLANs, use `ethtool -K PEER txvlan off`.
//!
//! ARP and neighbour discovery stay with the kernel. The gateway gets a copy through a
//! [`NeighbourSocket`](super::neighbour_socket::NeighbourSocket).
//!
//! The same instructions are used at three hooks. With XDP, the gateway's frames are redirected
//! into its AF_XDP sockets, and the kernel never sees them; if a queue has no socket they are
//! dropped. XDP cannot copy a frame for both, so it leaves such a fragment to the kernel, and a socket
//! filter takes a copy from there. With AF_PACKET, which gets copies, a socket filter keeps the
//! kernel's frames from the gateway, and TCX drops the gateway's frames before the kernel's stack.
//! Otherwise a kernel that forwards would send in clear what must be encrypted.

mod frame;
mod nat;
mod program;

pub use nat::NatRule;

use super::{
    PortError,
    bpf::{self, Hook, Map, MapKind, ProgramKind},
    device::Device,
    sys,
};
use crate::wire::vlan::Vlan;
use frame::{Flavour, PING_KEY, Tables};
use nat::ping_key;
use program::{Scope, program, vlan_key};
use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, OwnedFd},
};

/// The largest number of local addresses.
pub const MAX_LOCAL: u32 = 4096;
/// The largest number of UDP ports.
pub const MAX_PORTS: usize = 16;
/// The largest number of NATs.
pub const MAX_NATS: usize = 16;
/// The number of fragmented packets that are remembered. The later fragments of others go to both.
const MAX_FRAGMENTED: u32 = 4096;

/// The initial rules of a classifier.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Addresses of the host, at most [`MAX_LOCAL`]. They can be changed later.
    pub local: Vec<IpAddr>,
    /// UDP ports at those addresses that belong to the gateway, at most [`MAX_PORTS`].
    pub udp_ports: Vec<u16>,
    /// What belongs to NATs of the gateway, at most [`MAX_NATS`].
    pub nats: Vec<NatRule>,
    /// The VLANs of the gateway's ports.
    pub vlans: Vec<Vlan>,
    /// `true` if none of the gateway's ports is in no VLAN.
    pub only_vlans: bool,
}

impl Rules {
    /// Returns what is the gateway's of packets to the host.
    fn to_host(&self) -> (&[u16], &[NatRule]) {
        (&self.udp_ports, &self.nats)
    }

    /// Returns whether some frames are for both the gateway and the kernel.
    fn has_either(&self) -> bool {
        self.scope() != Scope::Vlans && !(self.udp_ports.is_empty() && self.nats.is_empty())
    }

    fn scope(&self) -> Scope {
        match (&self.vlans[..], self.only_vlans) {
            ([], _) => Scope::Untagged,
            (_, true) => Scope::Vlans,
            (_, false) => Scope::Both,
        }
    }
}

/// A program on one device, its tables, and the functions that change them. It is detached when its
/// last owner is dropped; ports are owners too.
#[derive(Debug)]
pub struct Classifier {
    device: String,
    local: Map<16>,
    pings: Map<PING_KEY>,
    role: Role,
    has_vlans: bool,
    _link: OwnedFd,
    /// Makes the NIC receive all VLANs, if some are the gateway's.
    _all_vlans: Option<OwnedFd>,
}

#[derive(Debug)]
enum Role {
    /// `overtaking` are socket filters, one for each queue.
    Xdp {
        sockets: Map<4>,
        overtaking: Vec<OwnedFd>,
        native: bool,
    },
    Packet {
        filter: OwnedFd,
    },
}

impl Classifier {
    /// Redirects the gateway's frames into AF_XDP sockets of `queues` queues: in the driver
    /// (`native`), or in the kernel's receive path, which every driver has.
    ///
    /// # Errors
    /// [`PortError::Permission`], or [`PortError::NotSupported`] if the driver takes no program in
    /// that mode or another one is attached.
    pub fn xdp(device: &Device, queues: u32, native: bool, rules: &Rules) -> Result<Self, PortError> {
        let failed = |action, e| PortError::system(device.name(), action, NEEDS, e);
        let tables = tables(device, rules)?;
        let sockets = Map::new(MapKind::Xsk, queues).map_err(|e| failed("make a BPF map", e))?;
        let load = |flavour, kind| {
            program(flavour, &tables, device.mac(), rules.to_host(), rules.scope()).load_into_kernel(kind)
        };
        let program =
            load(Flavour::Xdp(&sockets), ProgramKind::Xdp).map_err(|e| failed("load the XDP program", e))?;
        let copied = if rules.has_either() { 0..queues } else { 0..0 };
        let overtaking = copied.map(|queue| load(Flavour::Overtaking(queue), ProgramKind::SocketFilter));
        let overtaking =
            overtaking.collect::<Result<_, _>>().map_err(|e| failed("load a socket filter", e))?;
        let hook = if native { Hook::XdpNative } else { Hook::XdpGeneric };
        let attach = || bpf::attach(&program, device.index(), hook);
        let link = sys::while_busy(attach).map_err(|e| match e.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => device.unsupported("another XDP program is attached already"),
            Some(libc::EINVAL | libc::ERANGE) => {
                device.unsupported(format!("the driver takes no XDP program in this mode: {e}"))
            }
            _ => failed("attach the XDP program", e),
        })?;
        Self::new(device, rules, tables, Role::Xdp { sockets, overtaking, native }, link)
    }

    /// Filters packet sockets, and keeps the gateway's frames from the kernel's stack.
    ///
    /// # Errors
    /// [`PortError::Permission`], or [`PortError::NotSupported`] if the kernel has no TCX.
    pub fn packet(device: &Device, rules: &Rules) -> Result<Self, PortError> {
        let failed = |action, e| PortError::system(device.name(), action, NEEDS, e);
        let tables = tables(device, rules)?;
        let program = |flavour| program(flavour, &tables, device.mac(), rules.to_host(), rules.scope());
        let load = |flavour, kind| program(flavour).load_into_kernel(kind);
        let filter = load(Flavour::SocketFilter(device.link()), ProgramKind::SocketFilter)
            .map_err(|e| failed("load the socket filter", e))?;
        let attach = |program: OwnedFd| bpf::attach(&program, device.index(), Hook::TcxIngress);
        let tcx = load(Flavour::Tcx(device.link()), ProgramKind::Tcx);
        let link = tcx.and_then(attach).map_err(|e| match e.raw_os_error() {
            Some(libc::EINVAL) => device.unsupported(
                "this kernel has no TCX (Linux 6.6 or later), so it would forward in clear what must be encrypted",
            ),
            _ => failed("attach the TCX program", e),
        })?;
        Self::new(device, rules, tables, Role::Packet { filter }, link)
    }

    fn new(
        device: &Device,
        rules: &Rules,
        Tables { local, pings, .. }: Tables,
        role: Role,
        link: OwnedFd,
    ) -> Result<Self, PortError> {
        let has_vlans = !rules.vlans.is_empty();
        let all_vlans = has_vlans.then(|| device.receive_all_vlans()).transpose()?;
        let device = device.name().to_owned();
        Ok(Self { device, local, pings, role, has_vlans, _link: link, _all_vlans: all_vlans })
    }

    /// Adds an address of the host: there only ESP and the UDP ports go to the gateway. Takes
    /// effect at once, and may be called from any thread.
    ///
    /// # Errors
    /// There are more than [`MAX_LOCAL`] addresses.
    pub fn set_local(&self, address: IpAddr) -> Result<(), PortError> {
        self.local.insert(key(address), 1).map_err(|e| self.failed(e))
    }

    /// Removes an address of the host. Does nothing if it is not in the table.
    ///
    /// # Errors
    /// The error of the system.
    pub fn remove_local(&self, address: IpAddr) -> Result<(), PortError> {
        self.local.remove(key(address)).map_err(|e| self.failed(e))
    }

    /// Sets whether a NAT with this address uses an identifier of ICMP. If it does not, replies with
    /// it are the host's, and errors about queries with it. Takes effect at once, and may be called
    /// from any thread.
    ///
    /// # Errors
    /// The error of the system, or more identifiers than the NATs have in all.
    pub fn set_ping(&self, address: Ipv4Addr, id: u16, is_used: bool) -> Result<(), PortError> {
        let key = ping_key(address, id);
        let result = if is_used { self.pings.insert(key, 1) } else { self.pings.remove(key) };
        result.map_err(|e| PortError::system(&self.device, "change the table of identifiers", NEEDS, e))
    }

    /// Returns whether some of the gateway's ports are in VLANs.
    pub(crate) fn has_vlans(&self) -> bool {
        self.has_vlans
    }

    /// Returns whether an XDP program runs in the driver.
    pub(crate) fn is_native(&self) -> bool {
        matches!(self.role, Role::Xdp { native: true, .. })
    }

    /// Sets the AF_XDP socket that serves a queue.
    pub(crate) fn set_socket(&self, queue: u32, socket: &OwnedFd) -> io::Result<()> {
        match &self.role {
            Role::Xdp { sockets, .. } => sockets.insert(queue.to_ne_bytes(), socket.as_raw_fd() as u32),
            Role::Packet { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Returns the filter of a packet socket for what comes by this queue and XDP leaves to the kernel,
    /// although it may be the gateway's.
    pub(crate) fn overtaking(&self, queue: u32) -> Option<&OwnedFd> {
        match &self.role {
            Role::Xdp { overtaking, .. } => overtaking.get(queue as usize),
            Role::Packet { .. } => None,
        }
    }

    /// Lets a packet socket receive only the gateway's frames.
    pub(crate) fn filter(&self, socket: &OwnedFd) -> io::Result<()> {
        match &self.role {
            Role::Packet { filter } => bpf::filter(socket, filter.as_raw_fd()),
            Role::Xdp { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn failed(&self, source: io::Error) -> PortError {
        PortError::system(&self.device, CHANGE_TABLE, NEEDS, source)
    }
}

/// Returns the tables, with the local addresses that the rules list.
fn tables(device: &Device, rules: &Rules) -> Result<Tables, PortError> {
    if rules.udp_ports.len() > MAX_PORTS {
        return Err(device.unsupported(format!("more than {MAX_PORTS} UDP ports")));
    }
    if rules.nats.len() > MAX_NATS {
        return Err(device.unsupported(format!("more than {MAX_NATS} NATs")));
    }
    let failed = |action, e| PortError::system(device.name(), action, NEEDS, e);
    let local = Map::new(MapKind::Hash, MAX_LOCAL).map_err(|e| failed("make a BPF map", e))?;
    rules.local.iter().try_for_each(|a| local.insert(key(*a), 1)).map_err(|e| failed(CHANGE_TABLE, e))?;
    let fragmented = Map::new(MapKind::LruHash, MAX_FRAGMENTED).map_err(|e| failed("make a BPF map", e))?;
    let vlans = Map::new(MapKind::Hash, rules.vlans.len().max(1) as u32);
    let vlans = vlans.map_err(|e| failed("make a BPF map", e))?;
    let mut all = rules.vlans.iter();
    all.try_for_each(|vlan| vlans.insert(vlan_key(*vlan), 1)).map_err(|e| failed("list the VLANs", e))?;
    let ids: usize = rules.nats.iter().map(|nat| nat.ports.len()).sum();
    let pings = Map::new(MapKind::Hash, ids.max(1) as u32).map_err(|e| failed("make a BPF map", e))?;
    Ok(Tables { local, fragmented, vlans, pings })
}

const CHANGE_TABLE: &str = "change the table of local addresses";
pub(super) const NEEDS: &str = "CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF (or CAP_SYS_ADMIN)";

/// Returns the key of an address in the table. IPv4 addresses are mapped (RFC 4291 §2.5.5.2).
fn key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
