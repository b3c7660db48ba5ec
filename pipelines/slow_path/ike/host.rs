//! Puts inner addresses that a gateway assigned to us on the host's device, with the routes by
//! which the host's programs use them.

use super::super::kernel::{host_address, router};
use crate::rtnetlink::{list, send};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use std::{collections::BTreeSet, io, net::IpAddr};
use tracing::warn;
use wayfarer_dataplane::table::Prefix;

/// The host's device behind a port.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// The kernel's index of the device.
    pub(super) device: u32,
    /// Our addresses on the port: next hops for the host.
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
    /// Adds an address to the host's device.
    ///
    /// # Errors
    /// The kernel's error.
    pub(super) fn add(&self, address: IpAddr) -> io::Result<()> {
        request(RouteNetlinkMessage::NewAddress(self.address(address)), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Removes an address from the host's device, and with it the routes that use it as their
    /// source.
    ///
    /// # Errors
    /// The kernel's error.
    pub(super) fn remove(&self, address: IpAddr) -> io::Result<()> {
        request(RouteNetlinkMessage::DelAddress(self.address(address)), 0)
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

    /// Routes what the host sends to `to` through us, with the source `address`. The default route
    /// is split in two halves, so that the host's own default route stays in place.
    ///
    /// # Errors
    /// The kernel's error. It is no error if we have no address of that family on the port.
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
            request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)?;
        }
        Ok(())
    }
}

/// Returns the host's own addresses and the routers of its routes.
///
/// # Errors
/// The kernel's error.
pub(super) fn addresses_in_use() -> io::Result<BTreeSet<IpAddr>> {
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

/// Returns the routers of a route, including those of a multipath route.
fn routers(attributes: &[RouteAttribute]) -> Vec<IpAddr> {
    let routers_in = |attribute: &RouteAttribute| match attribute {
        RouteAttribute::MultiPath(paths) => paths.iter().flat_map(|path| routers(&path.attributes)).collect(),
        other => Vec::from_iter(router(other)),
    };
    attributes.iter().flat_map(routers_in).collect()
}

/// Sends a request to the kernel and waits for the answer, which comes at once.
fn request(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
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

/// Logs the system's error for an inner address or its route.
pub(super) fn log_failure(result: io::Result<()>, address: IpAddr) {
    if let Err(why) = result {
        warn!(%address, "cannot set an inner address or its route on the host's device: {why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_addresses_are_in_use() {
        let in_use = addresses_in_use().unwrap();
        assert!(in_use.contains(&IpAddr::from([127, 0, 0, 1])), "{in_use:?}");
    }
}
