//! The kernel's main route table, followed by rtnetlink(7): what it knows of the gateway's ports, the gateway uses.

use super::routes::NextHop;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use wayfarer_dataplane::table::Prefix;

/// Groups of rtnetlink: link changes, IPv4 routes, IPv6 routes.
const GROUPS: [u32; 3] = [1, 7, 11];
/// Messages read in one call of [`KernelRoutes::poll`].
const MESSAGES: usize = 64;

/// A change of the route table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Destinations.
    pub(super) to: Prefix,
    /// The next hop now; none: the route is gone.
    pub(super) hop: Option<NextHop>,
}

/// Routes by prefix and metric: the kernel prefers the lowest metric.
type Table = BTreeMap<(Prefix, u32), NextHop>;

/// Follows the kernel's routes.
pub(super) struct KernelRoutes {
    socket: Socket,
    /// Index of the kernel's device, and of the port that it is.
    devices: Vec<(u32, u16)>,
    table: Table,
    /// What a dump under way has brought so far.
    dump: Option<Table>,
    /// Families still to be dumped.
    pending: Vec<AddressFamily>,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for KernelRoutes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KernelRoutes {{ routes: {} }}", self.table.len())
    }
}

impl KernelRoutes {
    /// Begins to follow the routes of these devices (index of the kernel's, index of the port).
    ///
    /// # Errors
    /// What the system answered.
    pub(super) fn follow(devices: Vec<(u32, u16)>) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        let mut this = Self {
            socket,
            devices,
            table: Table::new(),
            dump: None,
            pending: Vec::new(),
            buffer: Vec::with_capacity(1 << 16),
        };
        this.start_dump()?;
        Ok(this)
    }

    /// Reads what the kernel has to say, and answers what changed; whether there was anything.
    pub(super) fn poll(&mut self, changes: &mut Vec<Change>) -> bool {
        let mut busy = false;
        for _ in 0..MESSAGES {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {
                    busy = true;
                    let bytes = std::mem::take(&mut self.buffer);
                    self.handle(&bytes, changes);
                    self.buffer = bytes;
                }
                // Messages were lost: the whole table is asked for again. Where even that fails, so will the next read.
                Err(why) if why.raw_os_error() == Some(nix::libc::ENOBUFS) => {
                    let _ = self.start_dump();
                }
                Err(_) => break,
            }
        }
        busy
    }

    fn start_dump(&mut self) -> io::Result<()> {
        self.dump = Some(Table::new());
        self.pending = vec![AddressFamily::Inet6, AddressFamily::Inet];
        self.next_dump()
    }

    /// Asks for the routes of the next family; `false` inside where there is none left.
    fn next_dump(&mut self) -> io::Result<()> {
        let Some(address_family) = self.pending.pop() else { return Ok(()) };
        let mut message = RouteMessage::default();
        message.header.address_family = address_family;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_DUMP | NLM_F_REQUEST;
        let payload = NetlinkPayload::from(RouteNetlinkMessage::GetRoute(message));
        let mut packet = NetlinkMessage::new(header, payload);
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(|_| ())
    }

    fn handle(&mut self, mut bytes: &[u8], changes: &mut Vec<Change>) {
        while let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
            let length = (message.header.length as usize).next_multiple_of(4);
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                    self.add(&route, changes)
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) => {
                    self.remove(&route, changes)
                }
                // A device that goes down takes its IPv4 routes with it, and no message says so.
                NetlinkPayload::InnerMessage(_) => {
                    let _ = self.start_dump();
                }
                NetlinkPayload::Done(_) if self.pending.is_empty() => self.end_dump(changes),
                NetlinkPayload::Done(_) => {
                    let _ = self.next_dump();
                }
                _ => {}
            }
            if length == 0 || length >= bytes.len() {
                return;
            }
            bytes = &bytes[length..];
        }
    }

    fn add(&mut self, route: &RouteMessage, changes: &mut Vec<Change>) {
        let Some((key, hop)) = self.read(route) else { return };
        if let Some(dump) = &mut self.dump {
            dump.insert(key, hop);
        }
        if self.table.insert(key, hop) != Some(hop) {
            self.changed(key.0, changes);
        }
    }

    fn remove(&mut self, route: &RouteMessage, changes: &mut Vec<Change>) {
        let Some((key, _)) = self.read(route) else { return };
        if let Some(dump) = &mut self.dump {
            dump.remove(&key);
        }
        if self.table.remove(&key).is_some() {
            self.changed(key.0, changes);
        }
    }

    /// The dump is complete: what it did not bring is gone.
    fn end_dump(&mut self, changes: &mut Vec<Change>) {
        let Some(dump) = self.dump.take() else { return };
        let old = std::mem::replace(&mut self.table, dump);
        let gone = old.keys().filter(|key| !self.table.contains_key(key)).map(|(to, _)| *to);
        for to in gone.collect::<BTreeSet<_>>() {
            self.changed(to, changes);
        }
    }

    fn changed(&self, to: Prefix, changes: &mut Vec<Change>) {
        let hop = self.table.range((to, 0)..=(to, u32::MAX)).next().map(|(_, hop)| *hop);
        changes.push(Change { to, hop });
    }

    /// Destination, metric and next hop of a unicast route of the main table by one of our devices.
    fn read(&self, route: &RouteMessage) -> Option<((Prefix, u32), NextHop)> {
        let RouteHeader { table, kind, destination_prefix_length, address_family, .. } = route.header;
        if table != RouteHeader::RT_TABLE_MAIN || kind != RouteType::Unicast {
            return None;
        }
        let (mut to, mut via, mut device, mut metric) = (None, None, None, 0);
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Destination(address) => to = ip(address),
                RouteAttribute::Gateway(address) => via = ip(address),
                RouteAttribute::Oif(index) => device = Some(*index),
                RouteAttribute::Priority(priority) => metric = *priority,
                _ => {}
            }
        }
        let any = match address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let (_, port) = self.devices.iter().find(|(index, _)| Some(*index) == device)?;
        let prefix = Prefix::new(to.unwrap_or(any), destination_prefix_length)?;
        Some(((prefix, metric), NextHop::Port { port: *port, via }))
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
