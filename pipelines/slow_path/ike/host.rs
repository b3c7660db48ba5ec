//! The inner addresses that a gateway gives us, on the host's device, and the routes by which its
//! programs use them.

use super::super::kernel::{host_address, ip};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType, RouteVia,
    },
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::{collections::BTreeSet, io, net::IpAddr};
use tracing::warn;
use wayfarer_dataplane::table::Prefix;

/// The host's side of a port.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// The kernel's index of its device.
    pub(super) device: u32,
    /// Our addresses on it: the host's next hops.
    pub(super) own: Vec<IpAddr>,
}

fn family(address: IpAddr) -> (AddressFamily, u8) {
    match address {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

impl Host {
    /// Gives the host an address.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(super) fn add(&self, address: IpAddr) -> io::Result<()> {
        ask(RouteNetlinkMessage::NewAddress(self.address(address)), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Takes it away, and with it the routes that begin at it.
    ///
    /// # Errors
    /// What the kernel answers.
    pub(super) fn remove(&self, address: IpAddr) -> io::Result<()> {
        ask(RouteNetlinkMessage::DelAddress(self.address(address)), 0)
    }

    fn address(&self, address: IpAddr) -> AddressMessage {
        let mut message = AddressMessage::default();
        let (family, length) = family(address);
        message.header.family = family;
        message.header.prefix_len = length;
        message.header.index = self.device;
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        message
    }

    /// Leads what the host sends to `to` through us, from `address`. Everything is two halves, so
    /// that the host's own default route stays where it is.
    ///
    /// # Errors
    /// What the kernel answers; there is nothing to do if we have no address of that family on
    /// the port.
    pub(super) fn route(&self, to: Prefix, address: IpAddr) -> io::Result<()> {
        let Some(via) = self.own.iter().find(|own| own.is_ipv4() == address.is_ipv4()) else { return Ok(()) };
        if to.is_ipv4() != address.is_ipv4() {
            return Ok(());
        }
        let halves: [Option<Prefix>; 2] = match (to.length(), to.is_ipv4()) {
            (0, true) => [Prefix::new([0; 4].into(), 1), Prefix::new([128, 0, 0, 0].into(), 1)],
            (0, false) => {
                let mut upper = [0; 16];
                upper[0] = 0x80;
                [Prefix::new([0; 16].into(), 1), Prefix::new(upper.into(), 1)]
            }
            _ => [Some(to), None],
        };
        for to in halves.into_iter().flatten() {
            let mut message = RouteMessage::default();
            message.header = RouteHeader {
                address_family: family(address).0,
                destination_prefix_length: to.length(),
                table: RouteHeader::RT_TABLE_MAIN,
                protocol: RouteProtocol::Static,
                scope: RouteScope::Universe,
                kind: RouteType::Unicast,
                flags: RouteFlags::Onlink,
                ..RouteHeader::default()
            };
            message.attributes = vec![
                RouteAttribute::Destination(route_address(to.address())),
                RouteAttribute::Gateway(route_address(*via)),
                RouteAttribute::PrefSource(route_address(address)),
                RouteAttribute::Oif(self.device),
            ];
            ask(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)?;
        }
        Ok(())
    }
}

/// Datagrams read of one of the kernel's lists: more than the routes of any host that is a client.
const DATAGRAMS: usize = 4096;

/// Returns the host's own addresses, and the routers that its routes go by.
///
/// # Errors
/// What the kernel answers.
pub(super) fn taken() -> io::Result<BTreeSet<IpAddr>> {
    let mut all = BTreeSet::new();
    list(RouteNetlinkMessage::GetAddress(AddressMessage::default()), |message| {
        if let RouteNetlinkMessage::NewAddress(message) = message {
            all.extend(host_address(&message));
        }
    })?;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        list(RouteNetlinkMessage::GetRoute(request), |message| {
            if let RouteNetlinkMessage::NewRoute(route) = message {
                all.extend(routers(&route.attributes));
            }
        })?;
    }
    Ok(all)
}

/// Returns the routers of a route, or of one of its paths.
fn routers(attributes: &[RouteAttribute]) -> Vec<IpAddr> {
    let router = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::Gateway(router) => ip(router).into_iter().collect(),
        RouteAttribute::Via(RouteVia::Inet(router)) => vec![IpAddr::V4(*router)],
        RouteAttribute::Via(RouteVia::Inet6(router)) => vec![IpAddr::V6(*router)],
        RouteAttribute::MultiPath(paths) => paths.iter().flat_map(|path| routers(&path.attributes)).collect(),
        _ => vec![],
    };
    attributes.iter().flat_map(router).collect()
}

/// Asks the kernel for a list, and hands each of its entries to `take`.
fn list(request: RouteNetlinkMessage, mut take: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
    let socket = send(request, NLM_F_DUMP)?;
    let mut buffer = Vec::with_capacity(1 << 16);
    for _ in 0..DATAGRAMS {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        let mut bytes = &buffer[..];
        while let Ok(frame) = NetlinkBuffer::new_checked(bytes) {
            let length = (frame.length() as usize).next_multiple_of(4);
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes);
            match message.map(|message| message.payload) {
                Ok(NetlinkPayload::Done(_)) => return Ok(()),
                Ok(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                Ok(NetlinkPayload::InnerMessage(message)) => take(message),
                // One that cannot be read is stepped over.
                _ => {}
            }
            match bytes.get(length..).filter(|rest| length > 0 && !rest.is_empty()) {
                Some(rest) => bytes = rest,
                None => break,
            }
        }
    }
    Err(io::Error::other("too long a list of routes"))
}

/// Sends a request to the kernel; its answer comes by the socket.
fn send(message: RouteNetlinkMessage, flags: u16) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    Ok(socket)
}

/// Has the kernel do something, and waits for its answer: it comes at once.
fn ask(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let socket = send(message, NLM_F_ACK | flags)?;
    let mut answer = Vec::with_capacity(4096);
    socket.recv(&mut answer, 0)?;
    let buffer = NetlinkBuffer::new_checked(&answer[..]).map_err(io::Error::other)?;
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(buffer.into_inner())
        .map_err(io::Error::other)?
        .payload
    {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}

/// Logs what the system says against an address or its route.
pub(super) fn log_refusal(result: io::Result<()>, address: IpAddr) {
    if let Err(why) = result {
        warn!(%address, "the host's device does not take an inner address or its route: {why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_addresses_are_taken() {
        let taken = taken().unwrap();
        assert!(taken.contains(&IpAddr::from([127, 0, 0, 1])), "{taken:?}");
    }
}
