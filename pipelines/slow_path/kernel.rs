//! Follows the kernel's state by rtnetlink(7): the addresses of the host, which decide what traffic
//! on a shared device, or on one with a kernel side, belongs to the host; whether a device has
//! changed; and, if configured, the main route table.

use super::routes::NextHop;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHopFlags, RouteType, RouteVia,
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::socket::{setsockopt, sockopt};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};
use wayfarer_dataplane::table::Prefix;

/// The rtnetlink groups of changes of devices, IPv4 and IPv6 addresses.
const GROUPS: [u32; 3] = [1, 5, 9];
/// The rtnetlink groups of IPv4 and IPv6 routes.
const ROUTE_GROUPS: [u32; 2] = [7, 11];
/// Most datagrams that are read in one call of [`Kernel::poll`].
const MAX_DATAGRAMS: usize = 64;
/// Bytes of messages that the kernel may keep for us: some thousand changes, such as a routing daemon
/// makes at once.
const RECEIVE_BUFFER: usize = 4 << 20;
/// The least time from a dump that failed to the next one.
const RETRY: Duration = Duration::from_secs(1);

/// A change of the kernel's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A route of the main table changed.
    Route {
        /// The destinations.
        to: Prefix,
        /// The next hop from now on; `None` if the route is gone.
        hop: Option<NextHop>,
    },
    /// An address of the host changed.
    Address {
        /// The address.
        address: IpAddr,
        /// The devices that have the address from now on.
        devices: Vec<u32>,
    },
    /// A device changed, was made or was removed.
    Device,
}

/// Routes by prefix and metric. The kernel prefers the lowest metric.
type Table = BTreeMap<(Prefix, u32), NextHop>;

/// Addresses of the host, each with its device and prefix length; an address may occur more than
/// once.
type Addresses = BTreeSet<(IpAddr, u32, u8)>;

/// A list that the kernel can be asked for.
#[derive(Clone, Copy, Debug)]
enum Dump {
    Addresses,
    Routes(AddressFamily),
}

/// Follows the kernel's state.
pub(super) struct Kernel {
    socket: Socket,
    /// Index of the kernel's device and index of the gateway's port, for routes.
    devices: Vec<(u32, u16)>,
    follows_routes: bool,
    table: Table,
    addresses: Addresses,
    /// The routes and addresses received so far in the current dump.
    dump: Option<(Table, Addresses)>,
    /// The lists that the current dump has yet to request; the last one comes first.
    pending: Vec<Dump>,
    /// True if something happened that requires a dump, or another one after the current one.
    needs_dump: bool,
    /// True if a dump has failed since the queue was last empty.
    has_failed: bool,
    /// No dump starts before this time.
    retry_at: Duration,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kernel {{ routes: {} }}", self.table.len())
    }
}

impl Kernel {
    /// Starts to follow the host's addresses and, if `follows_routes`, the routes by these devices
    /// (the kernel's index, and the index of the port).
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn follow(devices: Vec<(u32, u16)>, follows_routes: bool) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        // Without CAP_NET_ADMIN on the machine, the buffer gets as large as the system allows. A smaller one
        // costs more dumps, but no change.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            let _ = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER);
        }
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let routes: &[u32] = if follows_routes { &ROUTE_GROUPS } else { &[] };
        for group in GROUPS.iter().chain(routes) {
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
            needs_dump: false,
            has_failed: false,
            retry_at: Duration::ZERO,
            buffer: Vec::with_capacity(1 << 16),
        };
        this.start_dump()?;
        Ok(this)
    }

    /// Returns the host's addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|(address, ..)| *address)
    }

    /// Takes the routes by `device` for those of `port`, instead of those by its earlier device. All of the
    /// host's addresses are reported again.
    pub(super) fn set_device(&mut self, port: u16, device: u32) {
        self.devices.retain(|(_, other)| *other != port);
        self.devices.push((device, port));
        self.needs_dump = true;
    }

    /// Reads the kernel's messages at time `now`, and appends the changes to `changes`. Returns true if
    /// there was any message.
    pub(super) fn poll(&mut self, now: Duration, changes: &mut Vec<Change>) -> bool {
        let mut busy = false;
        for _ in 0..MAX_DATAGRAMS {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {
                    busy = true;
                    let bytes = std::mem::take(&mut self.buffer);
                    self.handle(&bytes, changes);
                    self.buffer = bytes;
                }
                // Messages were lost, so everything is requested again. They may have been about devices,
                // which are not part of a dump.
                Err(why) if why.raw_os_error() == Some(nix::libc::ENOBUFS) => {
                    changes.push(Change::Device);
                    self.needs_dump = true;
                }
                Err(_) => {
                    self.queue_is_empty(now);
                    break;
                }
            }
        }
        busy
    }

    /// Starts the next dump if one is needed. After an overflow the kernel drops messages without another
    /// word until the queue is empty, so a dump that began earlier might lack them. While messages come
    /// faster than they are read, none is started, and changes are taken from the messages alone.
    fn queue_is_empty(&mut self, now: Duration) {
        if std::mem::take(&mut self.has_failed) {
            self.retry_at = now + RETRY;
        }
        // The kernel makes one dump at a time.
        if self.needs_dump && self.dump.is_none() && now >= self.retry_at {
            // If this fails, it is tried again.
            let _ = self.start_dump();
        }
    }

    /// Gives up the current dump and keeps the old tables, because an incomplete dump does not mean
    /// that routes are gone.
    fn abandon_dump(&mut self) {
        self.dump = None;
        self.pending.clear();
        self.needs_dump = true;
        self.has_failed = true;
    }

    fn start_dump(&mut self) -> io::Result<()> {
        self.needs_dump = false;
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

    /// Handles all messages of a datagram, and skips those that cannot be parsed.
    fn handle(&mut self, mut bytes: &[u8], changes: &mut Vec<Change>) {
        while let Ok(frame) = NetlinkBuffer::new_checked(bytes) {
            let length = (frame.length() as usize).next_multiple_of(4);
            // The list changed while it was read, and may lack what has been there all the time.
            self.needs_dump |= frame.flags() & NLM_F_DUMP_INTR != 0;
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
            NetlinkPayload::InnerMessage(NewAddress(message)) => self.handle_address(&message, true, changes),
            NetlinkPayload::InnerMessage(DelAddress(message)) => {
                self.handle_address(&message, false, changes)
            }
            NetlinkPayload::InnerMessage(_) => {
                changes.push(Change::Device);
                // A device that goes down loses its IPv4 routes without further messages.
                self.needs_dump |= self.follows_routes;
            }
            NetlinkPayload::Done(done) if self.dump.is_some() && done.code == 0 => self.end_part(changes),
            NetlinkPayload::Done(_) if self.dump.is_some() => self.abandon_dump(),
            NetlinkPayload::Error(_) => self.abandon_dump(),
            _ => {}
        }
    }

    /// Continues the dump after one of its lists is complete.
    fn end_part(&mut self, changes: &mut Vec<Change>) {
        if !self.pending.is_empty() {
            if self.next_dump().is_err() {
                self.abandon_dump();
            }
            return;
        }
        let Some((table, addresses)) = self.dump.take() else { return };
        if self.needs_dump {
            // The dump may be partly outdated.
            return;
        }
        let removed: Vec<_> = self.addresses.difference(&addresses).map(|(address, ..)| *address).collect();
        self.addresses = addresses;
        for address in removed {
            changes.push(Change::Address { address, devices: self.devices_with(address) });
        }
        let old = std::mem::replace(&mut self.table, table);
        let gone = old.keys().filter(|key| !self.table.contains_key(key)).map(|(to, _)| *to);
        for to in gone.collect::<BTreeSet<_>>() {
            self.changed(to, changes);
        }
    }

    /// Returns the devices of the host that have `address`.
    fn devices_with(&self, address: IpAddr) -> Vec<u32> {
        let (first, last) = ((address, 0, 0), (address, u32::MAX, u8::MAX));
        self.addresses.range(first..=last).map(|(_, device, _)| *device).collect()
    }

    fn handle_address(&mut self, message: &AddressMessage, present: bool, changes: &mut Vec<Change>) {
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

    /// Adds a new route or replaces another. A route that the gateway cannot use may replace one
    /// that it could use.
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
        let Some(key) = key(route).filter(|key| self.table.contains_key(key)) else { return };
        if self.table.get(&key) == self.hop(route).as_ref() {
            self.forget(key, changes);
        }
        // Another route with the same prefix and metric may remain, or a path of this one may have died since
        // it was added, which only a dump shows.
        self.needs_dump = true;
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

    /// Returns the next hop of a unicast route by one of our devices; of a multipath route, by its first
    /// such path that the kernel has not given up.
    fn hop(&self, route: &RouteMessage) -> Option<NextHop> {
        if route.header.kind != RouteType::Unicast {
            return None;
        }
        let paths = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::MultiPath(paths) => Some(paths),
            _ => None,
        });
        let Some(paths) = paths else {
            let device = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            })?;
            return self.hop_by(device, &route.attributes);
        };
        let mut alive = paths.iter().filter(|path| !path.flags.contains(RouteNextHopFlags::Dead));
        alive.find_map(|path| self.hop_by(path.interface_index, &path.attributes))
    }

    /// Returns the next hop of a path with these attributes by the kernel's device `index`, if that is one
    /// of ours.
    fn hop_by(&self, index: u32, attributes: &[RouteAttribute]) -> Option<NextHop> {
        let (_, port) = self.devices.iter().find(|(device, _)| *device == index)?;
        Some(NextHop::Port { port: *port, via: attributes.iter().find_map(router) })
    }
}

/// Returns destination and metric of a route in the main table.
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

/// Returns the address in a message; of a point-to-point device, its local end.
pub(super) fn host_address(message: &AddressMessage) -> Option<IpAddr> {
    let find = |select: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(select);
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

/// Returns the router that an attribute of a path names. That of IPv4 routes may be an IPv6 one (RFC 8950).
pub(super) fn router(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
