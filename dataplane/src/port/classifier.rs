//! Whose frame is it, the gateway's or the kernel's? A BPF program decides, so that the host stays
//! reachable on a NIC that the gateway uses.
//!
//! | frame to the NIC's own MAC address | goes to |
//! |---|---|
//! | IP to an address that is not the host's: to be forwarded | gateway |
//! | ESP (protocol 50) to an address of the host | gateway |
//! | UDP to an address of the host and a port of the list, not a fragment | gateway |
//! | anything else to the host, IPv6 with extension headers included | kernel |
//! | multicast, broadcast, to another MAC address, in a VLAN, IPv6 link-local, not IP, malformed | kernel |
//!
//! A tag of VLAN 0, of 802.1Q or 802.1ad, says a priority only: the frame is in no VLAN (IEEE
//! 802.1Q, priority-tagged frames), and the kernel takes any number of them off. So what is behind
//! them decides. A tag that is not in the frame is invisible to XDP: [`open`](super::open) has NICs
//! leave it there ([`Device::keep_tags`]), but the far end of a veth pair may not put it there:
//! `ethtool -K PEER txvlan off` if there are VLANs.
//!
//! ARP and neighbour discovery stay with the kernel; the gateway has its copy by a
//! [`NeighbourSocket`](super::neighbour_socket::NeighbourSocket).
//!
//! One body of instructions serves three places. On XDP the gateway's frames are redirected into
//! its AF_XDP sockets and the kernel never sees them; if a queue has no socket they are dropped.
//! Beside AF_PACKET, which gets copies, a socket filter keeps the kernel's frames from the gateway,
//! and TCX drops the gateway's frames before the kernel's stack, or a kernel that forwards would
//! send in clear what is to be encrypted.

use super::{
    PortError,
    bpf::{self, Hook, If, Label, Map, MapKind, Op, Program, ProgramKind, Register, Width},
    device::Device,
    sys,
};
use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
};

/// Local addresses that fit.
pub const MAX_LOCAL: u32 = 4096;
/// UDP ports that fit.
pub const MAX_PORTS: usize = 16;

// linux/bpf.h: helpers and answers of programs.
const MAP_LOOKUP: i32 = 1;
const SKB_LOAD_BYTES: i32 = 26;
const REDIRECT_MAP: i32 = 51;
const XDP_LOAD_BYTES: i32 = 189;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;

// Offsets in the programs' contexts, `struct xdp_md` and `struct __sk_buff`.
const XDP_RX_QUEUE: i16 = 16;
const SKB_VLAN_PRESENT: i16 = 20;
const SKB_VLAN_TCI: i16 = 24;

/// The part of a tag that names the VLAN (IEEE 802.1Q).
const VLAN_ID: [u8; 2] = [0x0f, 0xff];
/// Tags of VLAN 0 in a row that are looked behind. The gateway gets what has more, and sorts it
/// out.
const TAGS: usize = 2;

/// What a classifier goes by at first.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Addresses of the host, at most [`MAX_LOCAL`]; can be changed later.
    pub local: Vec<IpAddr>,
    /// UDP ports at those addresses that are the gateway's, at most [`MAX_PORTS`].
    pub udp_ports: Vec<u16>,
}

/// A program on one device, its tables, and the way to change them. Detached when the last owner
/// goes: ports hold it too.
#[derive(Debug)]
pub struct Classifier {
    device: String,
    local: Map<16>,
    role: Role,
    _link: OwnedFd,
}

#[derive(Debug)]
enum Role {
    Xdp { sockets: Map<4>, native: bool },
    Packet { filter: OwnedFd },
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
        let local = table(device, rules)?;
        let sockets = Map::new(MapKind::Xsk, queues).map_err(|e| failed("make a BPF map", e))?;
        let program = program(Flavour::Xdp(&sockets), &local, device, &rules.udp_ports)
            .load_into_kernel(ProgramKind::Xdp)
            .map_err(|e| failed("load the XDP program", e))?;
        let hook = if native { Hook::XdpNative } else { Hook::XdpGeneric };
        let attach = || bpf::attach(&program, device.index(), hook);
        let link = sys::while_busy(attach).map_err(|e| match e.raw_os_error() {
            Some(libc::EBUSY | libc::EEXIST) => device.unsupported("another XDP program is attached already"),
            Some(libc::EINVAL | libc::ERANGE) => {
                device.unsupported(format!("the driver takes no XDP program in this mode: {e}"))
            }
            _ => failed("attach the XDP program", e),
        })?;
        let (device, role) = (device.name().to_owned(), Role::Xdp { sockets, native });
        Ok(Self { device, local, role, _link: link })
    }

    /// Filters packet sockets, and keeps the gateway's frames from the kernel's stack.
    ///
    /// # Errors
    /// [`PortError::Permission`], or [`PortError::NotSupported`] if the kernel has no TCX.
    pub fn packet(device: &Device, rules: &Rules) -> Result<Self, PortError> {
        let failed = |action, e| PortError::system(device.name(), action, NEEDS, e);
        let local = table(device, rules)?;
        let load = |flavour, kind| program(flavour, &local, device, &rules.udp_ports).load_into_kernel(kind);
        let filter = load(Flavour::SocketFilter, ProgramKind::SocketFilter)
            .map_err(|e| failed("load the socket filter", e))?;
        let attach = |program: OwnedFd| bpf::attach(&program, device.index(), Hook::TcxIngress);
        let link = load(Flavour::Tcx, ProgramKind::Tcx).and_then(attach).map_err(|e| match e.raw_os_error() {
            Some(libc::EINVAL) => device.unsupported(
                "no TCX in this kernel (Linux 6.6 has it), which would forward in clear what is to be encrypted",
            ),
            _ => failed("attach the TCX program", e),
        })?;
        Ok(Self { device: device.name().to_owned(), local, role: Role::Packet { filter }, _link: link })
    }

    /// Adds an address of the host: only ESP and the UDP ports go to the gateway there. From any
    /// thread, at once.
    ///
    /// # Errors
    /// More than [`MAX_LOCAL`] addresses.
    pub fn set_local(&self, address: IpAddr) -> Result<(), PortError> {
        self.local.insert(key(address), 1).map_err(|e| self.failed(e))
    }

    /// Removes an address of the host; nothing happens if it was none.
    ///
    /// # Errors
    /// What the system answered.
    pub fn remove_local(&self, address: IpAddr) -> Result<(), PortError> {
        self.local.remove(key(address)).map_err(|e| self.failed(e))
    }

    /// Returns whether an XDP program runs in the driver.
    pub(crate) fn is_native(&self) -> bool {
        matches!(self.role, Role::Xdp { native: true, .. })
    }

    /// Says which AF_XDP socket serves a queue.
    pub(crate) fn set_socket(&self, queue: u32, socket: &OwnedFd) -> io::Result<()> {
        match &self.role {
            Role::Xdp { sockets, .. } => sockets.insert(queue.to_ne_bytes(), socket.as_raw_fd() as u32),
            Role::Packet { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Lets a packet socket receive the gateway's frames only.
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

/// Returns the table of local addresses, as the rules have them.
fn table(device: &Device, rules: &Rules) -> Result<Map<16>, PortError> {
    if rules.udp_ports.len() > MAX_PORTS {
        return Err(device.unsupported(format!("more than {MAX_PORTS} UDP ports")));
    }
    let failed = |action, e| PortError::system(device.name(), action, NEEDS, e);
    let table = Map::new(MapKind::Hash, MAX_LOCAL).map_err(|e| failed("make a BPF map", e))?;
    rules.local.iter().try_for_each(|a| table.insert(key(*a), 1)).map_err(|e| failed(CHANGE_TABLE, e))?;
    Ok(table)
}

const CHANGE_TABLE: &str = "change the table of local addresses";
const NEEDS: &str = "CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF (or CAP_SYS_ADMIN)";

/// IPv4 addresses are in the table as RFC 4291 §2.5.5.2 maps them.
fn key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[derive(Clone, Copy)]
enum Flavour<'a> {
    Xdp(&'a Map<4>),
    Tcx,
    SocketFilter,
}

// Registers that calls leave alone.
const CONTEXT: Register = 6;
const FRAGMENT: Register = 7;
const PROTOCOL: Register = 8;
/// Where in the frame the next header is.
const POSITION: Register = 9;
const STACK: Register = 10;

// The stack: IP header, then Ethernet header. An IPv6 destination, and the IPv4 one made into the
// same form, lie at `KEY`, aligned to 8 as the verifier wants.
const ETHERNET: i16 = -16;
const IP: i16 = -56;
const KEY: i16 = IP + 24;

/// Returns a constant as a load from memory sees it.
fn half(network_order: [u8; 2]) -> i32 {
    i32::from(u16::from_ne_bytes(network_order))
}

/// Copies `len` bytes at `offset` of the frame (or at register `POSITION`) to the stack, or jumps
/// away.
fn fetch(p: &mut Program, flavour: Flavour<'_>, offset: Option<i32>, to: i16, len: i32, short: Label) {
    p.copy(1, CONTEXT);
    match offset {
        Some(offset) => p.set(2, offset),
        None => p.copy(2, POSITION),
    }
    p.copy(3, STACK);
    p.apply(Op::Add, 3, i32::from(to));
    p.set(4, len);
    p.call(if matches!(flavour, Flavour::Xdp(_)) { XDP_LOAD_BYTES } else { SKB_LOAD_BYTES });
    p.jump_if(If::NotEqual, 0, 0, short);
}

/// Jumps if the EtherType in register 1 is that of a tag (IEEE 802.1Q or 802.1ad).
fn jump_if_tag(p: &mut Program, tag: Label) {
    p.jump_if(If::Equal, 1, half([0x81, 0x00]), tag);
    p.jump_if(If::Equal, 1, half([0x88, 0xa8]), tag);
}

fn program(flavour: Flavour<'_>, local: &Map<16>, device: &Device, udp_ports: &[u16]) -> Program {
    let mut p = Program::default();
    let [ours, kernels, is_v6, look_up, foreign] = std::array::from_fn(|_| p.label());
    let mac = device.mac();

    p.copy(CONTEXT, 1);
    if !matches!(flavour, Flavour::Xdp(_)) {
        // The kernel has taken the first tag off already.
        let no_vlan = p.label();
        p.load(Width::Word, 1, CONTEXT, SKB_VLAN_PRESENT);
        p.jump_if(If::Equal, 1, 0, no_vlan);
        p.load(Width::Word, 1, CONTEXT, SKB_VLAN_TCI);
        p.apply(Op::And, 1, i32::from(u16::from_be_bytes(VLAN_ID)));
        p.jump_if(If::NotEqual, 1, 0, kernels);
        p.place(no_vlan);
    }
    fetch(&mut p, flavour, Some(0), ETHERNET, 14, kernels);
    p.load(Width::Word, 1, STACK, ETHERNET);
    p.jump_if(If::NotEqual, 1, i32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]]), kernels);
    p.load(Width::Half, 1, STACK, ETHERNET + 4);
    p.jump_if(If::NotEqual, 1, half([mac[4], mac[5]]), kernels);
    p.load(Width::Half, 1, STACK, ETHERNET + 12);
    p.set(POSITION, 14);
    for _ in 0..TAGS {
        let (tag, no_tag) = (p.label(), p.label());
        jump_if_tag(&mut p, tag);
        p.jump(no_tag);
        p.place(tag);
        fetch(&mut p, flavour, None, ETHERNET, 4, kernels);
        p.load(Width::Half, 1, STACK, ETHERNET);
        p.apply(Op::And, 1, half(VLAN_ID));
        p.jump_if(If::NotEqual, 1, 0, kernels);
        p.apply(Op::Add, POSITION, 4);
        p.load(Width::Half, 1, STACK, ETHERNET + 2);
        p.place(no_tag);
    }
    jump_if_tag(&mut p, ours);
    p.jump_if(If::Equal, 1, half([0x86, 0xdd]), is_v6);
    p.jump_if(If::NotEqual, 1, half([0x08, 0x00]), kernels);

    // IPv4 (RFC 791 §3.1).
    fetch(&mut p, flavour, None, IP, 20, kernels);
    p.load(Width::Byte, 1, STACK, IP);
    p.copy(2, 1);
    p.apply(Op::ShiftRight, 1, 4);
    p.jump_if(If::NotEqual, 1, 4, kernels);
    p.apply(Op::And, 2, 15);
    p.apply(Op::ShiftLeft, 2, 2);
    let long_enough = p.label();
    p.jump_if(If::AtLeast, 2, 20, long_enough);
    p.jump(kernels);
    p.place(long_enough);
    p.add(POSITION, 2);
    p.load(Width::Byte, 1, STACK, IP + 16);
    p.jump_if(If::AtLeast, 1, 224, kernels);
    p.load(Width::Half, FRAGMENT, STACK, IP + 6);
    p.apply(Op::And, FRAGMENT, half([0x3f, 0xff]));
    p.load(Width::Byte, PROTOCOL, STACK, IP + 9);
    p.load(Width::Word, 1, STACK, IP + 16);
    p.store_constant(Width::Double, STACK, KEY, 0);
    p.store_constant(Width::Word, STACK, KEY + 8, i32::from_ne_bytes([0, 0, 0xff, 0xff]));
    p.store(Width::Word, STACK, KEY + 12, 1);
    p.jump(look_up);

    // IPv6 (RFC 8200 §3).
    p.place(is_v6);
    fetch(&mut p, flavour, None, IP, 40, kernels);
    p.load(Width::Byte, 1, STACK, IP);
    p.apply(Op::ShiftRight, 1, 4);
    p.jump_if(If::NotEqual, 1, 6, kernels);
    p.load(Width::Byte, 1, STACK, KEY);
    p.jump_if(If::Equal, 1, 0xff, kernels);
    p.set(FRAGMENT, 0);
    p.load(Width::Byte, PROTOCOL, STACK, IP + 6);
    p.apply(Op::Add, POSITION, 40);

    p.place(look_up);
    p.set_map(1, local);
    p.copy(2, STACK);
    p.apply(Op::Add, 2, i32::from(KEY));
    p.call(MAP_LOOKUP);
    p.jump_if_null(0, foreign);
    p.jump_if(If::Equal, PROTOCOL, libc::IPPROTO_ESP, ours);
    p.jump_if(If::NotEqual, PROTOCOL, libc::IPPROTO_UDP, kernels);
    // Later fragments have no ports, so the kernel gets all of them, to put them together.
    p.jump_if(If::NotEqual, FRAGMENT, 0, kernels);
    fetch(&mut p, flavour, None, IP, 4, kernels);
    p.load(Width::Half, 1, STACK, IP + 2);
    for port in udp_ports {
        p.jump_if(If::Equal, 1, half(port.to_be_bytes()), ours);
    }
    p.jump(kernels);

    // A router must not forward link-local addresses (RFC 4291 §2.5.6): they are the host's own
    // talk.
    p.place(foreign);
    p.load(Width::Half, 1, STACK, KEY);
    p.apply(Op::And, 1, half([0xff, 0xc0]));
    p.jump_if(If::Equal, 1, half([0xfe, 0x80]), kernels);

    p.place(ours);
    match flavour {
        Flavour::Xdp(sockets) => {
            p.load(Width::Word, 2, CONTEXT, XDP_RX_QUEUE);
            p.set_map(1, sockets);
            p.set(3, XDP_DROP);
            p.call(REDIRECT_MAP);
        }
        Flavour::Tcx => p.set(0, TCX_DROP),
        Flavour::SocketFilter => p.set(0, i32::MAX),
    }
    p.exit();
    p.place(kernels);
    p.set(
        0,
        match flavour {
            Flavour::Xdp(_) => XDP_PASS,
            Flavour::Tcx => TCX_NEXT,
            Flavour::SocketFilter => 0,
        },
    );
    p.exit();
    p
}
