//! Inner addresses and DNS (RFC 7296 §3.15, RFC 8598).

use super::message::Attributes;
use crate::ike::{
    connection::Connection,
    context::Context,
    event::Event,
    peer::Peer,
    wire::{attribute, notify},
};
use alloc::{string::String, vec, vec::Vec};
use core::net::IpAddr;

const REQUEST: u8 = 1;
const REPLY: u8 = 2;

impl Attributes {
    fn push(&mut self, kinds: [u16; 2], address: IpAddr, prefix: Option<u8>) {
        self.all.push(match address {
            IpAddr::V4(a) => (kinds[0], a.octets().to_vec()),
            IpAddr::V6(a) => (kinds[1], a.octets().into_iter().chain(prefix).collect()),
        });
    }

    /// Returns the request of a client: an address of each family, DNS servers and their domains.
    pub(super) fn request() -> Self {
        let kinds = [
            attribute::INTERNAL_IP4_ADDRESS,
            attribute::INTERNAL_IP6_ADDRESS,
            attribute::INTERNAL_IP4_DNS,
            attribute::INTERNAL_IP6_DNS,
            attribute::INTERNAL_DNS_DOMAIN,
        ];
        Self { kind: REQUEST, all: kinds.into_iter().map(|kind| (kind, vec![])).collect() }
    }
}

fn address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(value) {
        return Some(v4.into());
    }
    let v6 = value.get(..16)?;
    <[u8; 16]>::try_from(v6).ok().map(IpAddr::from)
}

impl Peer {
    /// Assigns what the peer asks for. Returns `None` if it asks for nothing, or if the connection
    /// has no pools.
    ///
    /// # Errors
    /// INTERNAL_ADDRESS_FAILURE if the pools are exhausted.
    pub(in crate::ike) fn configure(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        request: &Attributes,
    ) -> Result<Option<Attributes>, u16> {
        if request.kind != REQUEST || connection.pools.is_empty() {
            return Ok(None);
        }
        let Some(owner) = self.owner() else { return Ok(None) };
        let requests = |kind| request.all.iter().any(|(k, _)| *k == kind);
        let mut reply = Attributes { kind: REPLY, all: vec![] };
        for (kind, is_v4) in
            [(attribute::INTERNAL_IP4_ADDRESS, true), (attribute::INTERNAL_IP6_ADDRESS, false)]
        {
            let Some((_, requested)) = request.all.iter().find(|(k, _)| *k == kind) else { continue };
            if let Some((pool, lease)) =
                cx.lease(&connection.pools, is_v4, &owner, address(requested), self.takes_over)
            {
                self.leases.push((pool, lease));
                let kinds = [attribute::INTERNAL_IP4_ADDRESS, attribute::INTERNAL_IP6_ADDRESS];
                reply.push(kinds, lease, Some(128));
            }
        }
        let requests_address =
            requests(attribute::INTERNAL_IP4_ADDRESS) || requests(attribute::INTERNAL_IP6_ADDRESS);
        if self.leases.is_empty() && requests_address {
            return Err(notify::INTERNAL_ADDRESS_FAILURE);
        }
        for dns in &connection.dns {
            let kinds = [attribute::INTERNAL_IP4_DNS, attribute::INTERNAL_IP6_DNS];
            if requests(kinds[usize::from(dns.is_ipv6())]) {
                reply.push(kinds, *dns, None);
            }
        }
        // Split DNS is only for a peer that asks for it (RFC 8598 §3.1).
        if requests(attribute::INTERNAL_DNS_DOMAIN) {
            let domain = |name: &String| (attribute::INTERNAL_DNS_DOMAIN, name.as_bytes().to_vec());
            reply.all.extend(connection.domains.iter().map(domain));
        }
        Ok(Some(reply))
    }

    /// Accepts the configuration that the gateway assigned: the first address of each family,
    /// because we asked for one each (RFC 7296 §3.15.1).
    ///
    /// # Errors
    /// The first address that cannot be an inner address. The connection must then be given up.
    pub(in crate::ike) fn accept_configuration(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        reply: &Attributes,
    ) -> Result<(), IpAddr> {
        if reply.kind != REPLY {
            return Ok(());
        }
        let all = |kinds: [u16; 2]| {
            let of_kinds = reply.all.iter().filter(move |(kind, _)| kinds.contains(kind));
            of_kinds.filter_map(|(_, value)| address(value)).collect::<Vec<_>>()
        };
        let received = all([attribute::INTERNAL_IP4_ADDRESS, attribute::INTERNAL_IP6_ADDRESS]);
        let first = |is_v4| received.iter().copied().find(|address| address.is_ipv4() == is_v4);
        let assigned: Vec<IpAddr> = [true, false].into_iter().filter_map(first).collect();
        let outer = [self.addresses.local.ip(), self.addresses.remote.ip()];
        let is_outer = |address: &IpAddr| outer.contains(address) || connection.local.contains(address);
        if let Some(bad) = assigned.iter().find(|address| !is_assignable(**address) || is_outer(address)) {
            return Err(*bad);
        }
        self.assigned = assigned;
        let domains = reply.all.iter().filter(|(kind, _)| *kind == attribute::INTERNAL_DNS_DOMAIN);
        let domains = domains.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect();
        let dns = all([attribute::INTERNAL_IP4_DNS, attribute::INTERNAL_IP6_DNS]);
        cx.tell(Event::Configured { peer: self.id, addresses: self.assigned.clone(), dns, domains });
        Ok(())
    }
}

/// Returns true if a host can use this address for traffic beyond its own network segments.
fn is_assignable(address: IpAddr) -> bool {
    match address {
        // 0/8 and 240/4 never belong to a host (RFC 6890 §2.2.2).
        IpAddr::V4(a) => {
            !matches!(a.octets()[0], 0 | 240..) && !a.is_loopback() && !a.is_multicast() && !a.is_link_local()
        }
        IpAddr::V6(a) => {
            !a.is_unspecified()
                && !a.is_loopback()
                && !a.is_multicast()
                && !a.is_unicast_link_local()
                && a.to_ipv4_mapped().is_none()
        }
    }
}
