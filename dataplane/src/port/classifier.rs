//! Decides whether a frame is the gateway's or the kernel's, so that the host stays reachable on a
//! NIC that the gateway uses. A BPF program does this.
//!
//! | frame to the NIC's own MAC address | goes to |
//! |---|---|
//! | IP to an address that is not the host's: to be forwarded | gateway |
//! | ESP (protocol 50) to an address of the host, also in fragments | gateway |
//! | UDP to an address of the host and a listed port, also in fragments | gateway |
//! | TCP and UDP to a port of a NAT, also in fragments | gateway |
//! | ICMP replies with an identifier of a NAT, also in fragments; ICMP errors about what a NAT sent | gateway |
//! | anything else to the host, including IPv6 with other extension headers | kernel |
//! | multicast, broadcast, in a VLAN, IPv6 link-local, not IP, malformed | kernel |
//!
//! Frames to any other MAC address, also multicast and broadcast, are the kernel's.
//!
//! Only the first fragment of a packet shows its ports. The program remembers those of the gateway, so
//! that the later ones follow. A later fragment that overtakes the first goes to the
//! kernel, which never sees the rest and answers nothing, and the gateway waits for it in vain.
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
//! dropped. With AF_PACKET, which gets copies, a socket filter keeps the kernel's frames from the
//! gateway, and TCX drops the gateway's frames before the kernel's stack. Otherwise a kernel that
//! forwards would send in clear what must be encrypted.

mod frame;
mod nat;

pub use nat::NatRule;

use super::{
    PortError,
    bpf::{self, Hook, If, Label, Map, MapKind, Op, Program, ProgramKind, Register, Width},
    device::Device,
    sys,
};
use frame::{
    CONTEXT, ETHERNET, FIRST, FRAGMENT, Flavour, ID, IP, KEY, LATER, MAP_DELETE, MAP_LOOKUP, POSITION,
    PROTOCOL, SOURCE, STACK, Tables, WHOLE, call_with_fragment, fetch, half, remember,
};
use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd, OwnedFd},
};

/// The largest number of local addresses.
pub const MAX_LOCAL: u32 = 4096;
/// The largest number of UDP ports.
pub const MAX_PORTS: usize = 16;
/// The largest number of NATs.
pub const MAX_NATS: usize = 16;
/// The number of fragmented packets to the gateway that are remembered.
const MAX_FRAGMENTED: u32 = 4096;

// linux/bpf.h: a helper, and return values of programs.
const REDIRECT_MAP: i32 = 51;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;

// Offsets in the contexts of the programs, `struct xdp_md` and `struct __sk_buff`.
const XDP_RX_QUEUE: i16 = 16;
const SKB_VLAN_PRESENT: i16 = 20;
const SKB_VLAN_TCI: i16 = 24;

/// The part of a tag that names the VLAN (IEEE 802.1Q).
const VLAN_ID: [u8; 2] = [0x0f, 0xff];
/// The largest number of VLAN 0 tags that are skipped. Frames with more go to the gateway, which
/// sorts them out.
const TAGS: usize = 2;

/// The initial rules of a classifier.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Addresses of the host, at most [`MAX_LOCAL`]. They can be changed later.
    pub local: Vec<IpAddr>,
    /// UDP ports at those addresses that belong to the gateway, at most [`MAX_PORTS`].
    pub udp_ports: Vec<u16>,
    /// What belongs to NATs of the gateway, at most [`MAX_NATS`].
    pub nats: Vec<NatRule>,
}

/// A program on one device, its tables, and the functions that change them. It is detached when its
/// last owner is dropped; ports are owners too.
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
        let tables = tables(device, rules)?;
        let sockets = Map::new(MapKind::Xsk, queues).map_err(|e| failed("make a BPF map", e))?;
        let program = program(Flavour::Xdp(&sockets), &tables, device, rules)
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
        Ok(Self { device, local: tables.local, role, _link: link })
    }

    /// Filters packet sockets, and keeps the gateway's frames from the kernel's stack.
    ///
    /// # Errors
    /// [`PortError::Permission`], or [`PortError::NotSupported`] if the kernel has no TCX.
    pub fn packet(device: &Device, rules: &Rules) -> Result<Self, PortError> {
        let failed = |action, e| PortError::system(device.name(), action, NEEDS, e);
        let tables = tables(device, rules)?;
        let load = |flavour, kind| program(flavour, &tables, device, rules).load_into_kernel(kind);
        let filter = load(Flavour::SocketFilter, ProgramKind::SocketFilter)
            .map_err(|e| failed("load the socket filter", e))?;
        let attach = |program: OwnedFd| bpf::attach(&program, device.index(), Hook::TcxIngress);
        let link = load(Flavour::Tcx, ProgramKind::Tcx).and_then(attach).map_err(|e| match e.raw_os_error() {
            Some(libc::EINVAL) => device.unsupported(
                "this kernel has no TCX (Linux 6.6 or later), so it would forward in clear what must be encrypted",
            ),
            _ => failed("attach the TCX program", e),
        })?;
        let (device, role) = (device.name().to_owned(), Role::Packet { filter });
        Ok(Self { device, local: tables.local, role, _link: link })
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
    Ok(Tables { local, fragmented })
}

const CHANGE_TABLE: &str = "change the table of local addresses";
const NEEDS: &str = "CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF (or CAP_SYS_ADMIN)";

/// Returns the key of an address in the table. IPv4 addresses are mapped (RFC 4291 §2.5.5.2).
fn key(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// Writes the IPv4 address in register `from` to the stack, mapped to IPv6.
fn mapped(p: &mut Program, to: i16, from: Register) {
    p.store_constant(Width::Double, STACK, to, 0);
    p.store_constant(Width::Word, STACK, to + 8, i32::from_ne_bytes([0, 0, 0xff, 0xff]));
    p.store(Width::Word, STACK, to + 12, from);
}

/// Jumps to `tag` if the EtherType in register 1 is that of a tag (IEEE 802.1Q or 802.1ad).
fn jump_if_tag(p: &mut Program, tag: Label) {
    p.jump_if(If::Equal, 1, half([0x81, 0x00]), tag);
    p.jump_if(If::Equal, 1, half([0x88, 0xa8]), tag);
}

/// Sets `FRAGMENT` by the field in register 1, whose bits of the offset are `offset`, and jumps to
/// `done` unless the packet is a fragment. Any other bit means that there are later fragments.
fn set_fragment(p: &mut Program, offset: [u8; 2], done: Label) {
    let (later, end) = (p.label(), p.label());
    p.set(FRAGMENT, WHOLE);
    p.jump_if(If::Equal, 1, 0, done);
    p.set(FRAGMENT, FIRST);
    p.apply(Op::And, 1, half(offset));
    p.jump_if(If::NotEqual, 1, 0, later);
    p.jump(end);
    p.place(later);
    p.set(FRAGMENT, LATER);
    p.place(end);
}

/// Jumps to the receiver of a UDP datagram to an address of the host, or of a fragment of one.
fn divide_udp(
    p: &mut Program,
    flavour: Flavour<'_>,
    tables: &Tables,
    udp_ports: &[u16],
    [ours, kernels]: [Label; 2],
) {
    if udp_ports.is_empty() {
        // The verifier refuses instructions that are never reached.
        return p.jump(kernels);
    }
    let [our_port, later] = std::array::from_fn(|_| p.label());
    p.jump_if(If::Equal, FRAGMENT, LATER, later);
    fetch(p, flavour, None, IP, 4, kernels);
    p.load(Width::Half, 1, STACK, IP + 2);
    for port in udp_ports {
        p.jump_if(If::Equal, 1, half(port.to_be_bytes()), our_port);
    }
    p.jump_if(If::Equal, FRAGMENT, WHOLE, kernels);
    // An earlier datagram may have had the same identification.
    call_with_fragment(p, &tables.fragmented, MAP_DELETE);
    p.jump(kernels);

    p.place(our_port);
    p.jump_if(If::Equal, FRAGMENT, WHOLE, ours);
    remember(p, tables, ours);

    p.place(later);
    call_with_fragment(p, &tables.fragmented, MAP_LOOKUP);
    p.jump_if_null(0, kernels);
    p.jump(ours);
}

fn program(flavour: Flavour<'_>, tables: &Tables, device: &Device, rules: &Rules) -> Program {
    let mut p = Program::default();
    let [ours, kernels, is_v6, look_up, foreign, others] = std::array::from_fn(|_| p.label());
    let mac = device.mac();

    p.copy(CONTEXT, 1);
    if !matches!(flavour, Flavour::Xdp(_)) {
        // The kernel has already taken the first tag off.
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
    p.load(Width::Byte, PROTOCOL, STACK, IP + 9);
    p.load(Width::Word, 1, STACK, IP + 16);
    mapped(&mut p, KEY, 1);
    p.load(Width::Half, 1, STACK, IP + 6);
    p.apply(Op::And, 1, half([0x3f, 0xff]));
    set_fragment(&mut p, [0x1f, 0xff], look_up);
    p.load(Width::Half, 1, STACK, IP + 4);
    p.store(Width::Word, STACK, ID, 1);
    p.load(Width::Word, 1, STACK, IP + 12);
    mapped(&mut p, SOURCE, 1);
    p.jump(look_up);

    // IPv6 (RFC 8200 §3).
    p.place(is_v6);
    fetch(&mut p, flavour, None, IP, 40, kernels);
    p.load(Width::Byte, 1, STACK, IP);
    p.apply(Op::ShiftRight, 1, 4);
    p.jump_if(If::NotEqual, 1, 6, kernels);
    p.load(Width::Byte, 1, STACK, KEY);
    p.jump_if(If::Equal, 1, 0xff, kernels);
    p.set(FRAGMENT, WHOLE);
    p.load(Width::Byte, PROTOCOL, STACK, IP + 6);
    p.apply(Op::Add, POSITION, 40);
    p.jump_if(If::NotEqual, PROTOCOL, libc::IPPROTO_FRAGMENT, look_up);
    fetch(&mut p, flavour, None, ETHERNET, 8, look_up);
    p.apply(Op::Add, POSITION, 8);
    p.load(Width::Byte, PROTOCOL, STACK, ETHERNET);
    p.load(Width::Half, 1, STACK, ETHERNET + 2);
    p.apply(Op::And, 1, half([0xff, 0xf9]));
    set_fragment(&mut p, [0xff, 0xf8], look_up);
    p.load(Width::Word, 1, STACK, ETHERNET + 4);
    p.store(Width::Word, STACK, ID, 1);

    p.place(look_up);
    p.set_map(1, &tables.local);
    p.copy(2, STACK);
    p.apply(Op::Add, 2, i32::from(KEY));
    p.call(MAP_LOOKUP);
    p.jump_if_null(0, foreign);
    p.jump_if(If::Equal, PROTOCOL, libc::IPPROTO_ESP, ours);
    p.jump_if(If::NotEqual, PROTOCOL, libc::IPPROTO_UDP, others);
    divide_udp(&mut p, flavour, tables, &rules.udp_ports, [ours, others]);

    p.place(others);
    nat::divide(&mut p, flavour, tables, &rules.nats, [ours, kernels]);

    // A router must not forward link-local addresses (RFC 4291 §2.5.6): they are traffic of the
    // host itself.
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
