//! What the kernel knows and the gateway must too, followed by rtnetlink(7): the addresses of the
//! host, which decide what on a shared device, or on one with a kernel side, is the host's; and,
//! if it is wanted, the main route table.

use super::routes::NextHop;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use wayfarer_dataplane::table::Prefix;

/// Groups of rtnetlink: IPv4 and IPv6 addresses.
const ADDRESS_GROUPS: [u32; 2] = [5, 9];
/// Link changes, IPv4 and IPv6 routes.
const ROUTE_GROUPS: [u32; 3] = [1, 7, 11];
/// Datagrams read in one call of [`Kernel::poll`].
const DATAGRAMS: usize = 64;

/// Something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A route of the main table.
    Route {
        /// Destinations.
        to: Prefix,
        /// The next hop now; none: the route is gone.
        hop: Option<NextHop>,
    },
    /// An address of the host.
    Address {
        /// The address.
        address: IpAddr,
        /// The devices that the host has it on now.
        devices: Vec<u32>,
    },
}

/// Routes by prefix and metric: the kernel prefers the lowest metric.
type Table = BTreeMap<(Prefix, u32), NextHop>;

/// Addresses of the host, each with its device and prefix length: it may have one more than once.
type Addresses = BTreeSet<(IpAddr, u32, u8)>;

/// What the kernel can be asked to tell in full.
#[derive(Clone, Copy, Debug)]
enum Dump {
    Addresses,
    Routes(AddressFamily),
}

/// Follows the kernel.
pub(super) struct Kernel {
    socket: Socket,
    /// Index of the kernel's device, and of the port that it is: for routes.
    devices: Vec<(u32, u16)>,
    follows_routes: bool,
    table: Table,
    addresses: Addresses,
    /// The routes and addresses that the dump under way has brought so far.
    dump: Option<(Table, Addresses)>,
    /// What that dump has still to ask for, last first.
    pending: Vec<Dump>,
    /// Whether something happened meanwhile that makes another one necessary.
    again: bool,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel {{ routes: {} }}", self.table.len())
    }
}

impl Kernel {
    /// Begins to follow the host's addresses and, if `follows_routes`, the routes by these
    /// devices (index of the kernel's, index of the port).
    ///
    /// # Errors
    /// What the system answered.
    pub(super) fn follow(devices: Vec<(u32, u16)>, follows_routes: bool) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let routes: &[u32] = if follows_routes { &ROUTE_GROUPS } else { &[] };
        for group in ADDRESS_GROUPS.iter().chain(routes) {
            socket.add_membership(*group)?;
        }
        socket.set_non_blocking(true)?;
        let mut this = Self {
            socket,
            devices,
            follows_routes,
            table: Table::new(),
            addresses: Addresses::new(),
            dump: None,
            pending: Vec::new(),
            again: false,
            buffer: Vec::with_capacity(1 << 16),
        };
        this.start_dump()?;
        Ok(this)
    }

    /// Reads what the kernel has to say, and appends what changed to `changes`; whether there was
    /// anything.
    pub(super) fn poll(&mut self, changes: &mut Vec<Change>) -> bool {
        let mut busy = false;
        for _ in 0..DATAGRAMS {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {
                    busy = true;
                    let bytes = std::mem::take(&mut self.buffer);
                    self.handle(&bytes, changes);
                    self.buffer = bytes;
                }
                // Messages were lost: everything is asked for again.
                Err(why) if why.raw_os_error() == Some(nix::libc::ENOBUFS) => self.need_dump(),
                Err(_) => break,
            }
        }
        busy
    }

    /// Asks for everything, now or as soon as the dump under way is done: the kernel makes one at a
    /// time.
    fn need_dump(&mut self) {
        self.again = true;
        if self.dump.is_none() {
            // A request that fails is made again with the next change.
            let _ = self.start_dump();
        }
    }

    /// Gives up the dump under way: what was not told is not a table without routes, so the old one
    /// stays.
    fn abandon_dump(&mut self) {
        self.dump = None;
        self.pending.clear();
        self.again = true;
    }

    fn start_dump(&mut self) -> io::Result<()> {
        self.again = false;
        self.dump = Some(Default::default());
        self.pending = match self.follows_routes {
            true => {
                vec![Dump::Routes(AddressFamily::Inet6), Dump::Routes(AddressFamily::Inet), Dump::Addresses]
            }
            false => vec![Dump::Addresses],
        };
        let asked = self.next_dump();
        if asked.is_err() {
            self.abandon_dump();
        }
        asked
    }

    fn next_dump(&mut self) -> io::Result<()> {
        let payload = match self.pending.pop() {
            None => return Ok(()),
            Some(Dump::Addresses) => RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            Some(Dump::Routes(family)) => {
                let mut message = RouteMessage::default();
                message.header.address_family = family;
                RouteNetlinkMessage::GetRoute(message)
            }
        };
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_DUMP | NLM_F_REQUEST;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(payload));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_| ())
    }

    /// Handles every message of a datagram; one that cannot be read is stepped over.
    fn handle(&mut self, mut bytes: &[u8], changes: &mut Vec<Change>) {
        while let Ok(frame) = NetlinkBuffer::new_checked(bytes) {
            let length = (frame.length() as usize).next_multiple_of(4);
            if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
                let replaces = message.header.flags & NLM_F_REPLACE != 0;
                self.handle_message(message.payload, replaces, changes);
            }
            if length == 0 || length >= bytes.len() {
                return;
            }
            bytes = &bytes[length..];
        }
    }

    fn handle_message(
        &mut self,
        payload: NetlinkPayload<RouteNetlinkMessage>,
        replaces: bool,
        changes: &mut Vec<Change>,
    ) {
        use RouteNetlinkMessage::{DelAddress, DelRoute, NewAddress, NewRoute};
        match payload {
            NetlinkPayload::InnerMessage(NewRoute(route)) => self.add(&route, replaces, changes),
            NetlinkPayload::InnerMessage(DelRoute(route)) => self.remove(&route, changes),
            NetlinkPayload::InnerMessage(NewAddress(message)) => self.address(&message, true, changes),
            NetlinkPayload::InnerMessage(DelAddress(message)) => self.address(&message, false, changes),
            // A device that goes down takes its IPv4 routes with it, and no message says so.
            NetlinkPayload::InnerMessage(_) => self.need_dump(),
            NetlinkPayload::Done(_) if self.dump.is_some() => self.end_part(changes),
            NetlinkPayload::Error(_) => self.abandon_dump(),
            _ => {}
        }
    }

    /// Notes that one part of the dump is complete.
    fn end_part(&mut self, changes: &mut Vec<Change>) {
        if !self.pending.is_empty() {
            if self.next_dump().is_err() {
                self.abandon_dump();
            }
            return;
        }
        if self.again {
            // What it brought may be half old and half new.
            let _ = self.start_dump();
            return;
        }
        let Some((table, addresses)) = self.dump.take() else { return };
        let lost: Vec<_> = self.addresses.difference(&addresses).map(|(address, ..)| *address).collect();
        self.addresses = addresses;
        for address in lost {
            changes.push(Change::Address { address, devices: self.devices_with(address) });
        }
        let old = std::mem::replace(&mut self.table, table);
        let gone = old.keys().filter(|key| !self.table.contains_key(key)).map(|(to, _)| *to);
        for to in gone.collect::<BTreeSet<_>>() {
            self.changed(to, changes);
        }
    }

    /// Returns the devices that the host has `address` on.
    fn devices_with(&self, address: IpAddr) -> Vec<u32> {
        let (first, last) = ((address, 0, 0), (address, u32::MAX, u8::MAX));
        self.addresses.range(first..=last).map(|(_, device, _)| *device).collect()
    }

    fn address(&mut self, message: &AddressMessage, present: bool, changes: &mut Vec<Change>) {
        let Some(address) = host_address(message) else { return };
        let entry = (address, message.header.index, message.header.prefix_len);
        let during = self.dump.as_mut().map(|(_, addresses)| addresses);
        for addresses in [Some(&mut self.addresses), during].into_iter().flatten() {
            if present {
                addresses.insert(entry);
            } else {
                addresses.remove(&entry);
            }
        }
        changes.push(Change::Address { address, devices: self.devices_with(address) });
    }

    /// Adds a route that is new, or replaces another; one that the gateway cannot use may replace
    /// one that it could.
    fn add(&mut self, route: &RouteMessage, replaces: bool, changes: &mut Vec<Change>) {
        let Some(key) = key(route) else { return };
        let Some(hop) = self.hop(route) else {
            if replaces {
                self.forget(key, changes);
            }
            return;
        };
        if let Some((dump, _)) = &mut self.dump {
            dump.insert(key, hop);
        }
        if self.table.insert(key, hop) != Some(hop) {
            self.changed(key.0, changes);
        }
    }

    fn remove(&mut self, route: &RouteMessage, changes: &mut Vec<Change>) {
        if let Some(key) = key(route).filter(|key| self.table.get(key) == self.hop(route).as_ref()) {
            self.forget(key, changes);
            // Another route of the same prefix and metric may be left, which only a dump would
            // show.
            self.need_dump();
        }
    }

    fn forget(&mut self, key: (Prefix, u32), changes: &mut Vec<Change>) {
        if let Some((dump, _)) = &mut self.dump {
            dump.remove(&key);
        }
        if self.table.remove(&key).is_some() {
            self.changed(key.0, changes);
        }
    }

    fn changed(&self, to: Prefix, changes: &mut Vec<Change>) {
        let hop = self.table.range((to, 0)..=(to, u32::MAX)).next().map(|(_, hop)| *hop);
        changes.push(Change::Route { to, hop });
    }

    /// Returns the next hop of a unicast route by one of our devices. Of several paths the first is
    /// taken.
    fn hop(&self, route: &RouteMessage) -> Option<NextHop> {
        if route.header.kind != RouteType::Unicast {
            return None;
        }
        let (mut via, mut device) = (None, None);
        let paths = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::MultiPath(paths) => paths.first(),
            _ => None,
        });
        let (attributes, index) = match paths {
            Some(path) => (&path.attributes, Some(path.interface_index)),
            None => (&route.attributes, None),
        };
        for attribute in attributes {
            match attribute {
                RouteAttribute::Gateway(address) => via = ip(address),
                RouteAttribute::Oif(index) => device = Some(*index),
                _ => {}
            }
        }
        let device = index.or(device)?;
        let (_, port) = self.devices.iter().find(|(index, _)| *index == device)?;
        Some(NextHop::Port { port: *port, via })
    }
}

/// Returns destination and metric of a route of the main table.
fn key(route: &RouteMessage) -> Option<(Prefix, u32)> {
    let RouteHeader { table, destination_prefix_length, address_family, .. } = route.header;
    if table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let mut to = match address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let mut metric = 0;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address)?,
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    Some((Prefix::new(to, destination_prefix_length)?, metric))
}

/// Returns the address that a message is about: of a point-to-point device the near end.
pub(super) fn host_address(message: &AddressMessage) -> Option<IpAddr> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

pub(super) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
