//! Inner addresses and DNS (RFC 7296 §3.15, RFC 8598).

use crate::ike::{
    connection::Connection,
    context::Context,
    event::Event,
    peer::Peer,
    wire::{Attribute, Configuration, REPLY, REQUEST, notify},
};
use alloc::{string::String, vec, vec::Vec};
use core::net::IpAddr;

/// Returns the request of a client: an address of each family, DNS servers and their domains.
pub(super) fn request() -> Configuration {
    let attributes = vec![
        Attribute::Ip4Address(None),
        Attribute::Ip6Address(None),
        Attribute::Ip4Dns(None),
        Attribute::Ip6Dns(None),
        Attribute::DnsDomain(String::new()),
    ];
    Configuration { kind: REQUEST, attributes }
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
        request: &Configuration,
    ) -> Result<Option<Configuration>, u16> {
        if request.kind != REQUEST || connection.pools.is_empty() {
            return Ok(None);
        }
        let Some(owner) = self.owner() else { return Ok(None) };
        // A client gets one address of each family: its first request counts.
        let all = &request.attributes;
        let ip4 = all.iter().find_map(|a| if let Attribute::Ip4Address(a) = a { Some(*a) } else { None });
        let ip6 = all.iter().find_map(|a| if let Attribute::Ip6Address(a) = a { Some(*a) } else { None });
        let wishes = [ip4.map(|a| (true, a.map(IpAddr::from))), ip6.map(|a| (false, a.map(IpAddr::from)))];
        let mut attributes = Vec::new();
        for (is_v4, wish) in wishes.into_iter().flatten() {
            if let Some((pool, lease)) = cx.lease(&connection.pools, is_v4, &owner, wish, self.takes_over) {
                self.leases.push((pool, lease));
                attributes.push(Attribute::address(lease));
            }
        }
        if self.leases.is_empty() && (ip4.is_some() || ip6.is_some()) {
            return Err(notify::INTERNAL_ADDRESS_FAILURE);
        }
        let requests = |wanted: fn(&Attribute) -> bool| all.iter().any(wanted);
        let ip4_dns = requests(|attribute| matches!(attribute, Attribute::Ip4Dns(_)));
        let ip6_dns = requests(|attribute| matches!(attribute, Attribute::Ip6Dns(_)));
        let servers = connection.dns.iter().filter(|dns| if dns.is_ipv4() { ip4_dns } else { ip6_dns });
        attributes.extend(servers.copied().map(Attribute::dns));
        // Split DNS is only for a peer that asks for it (RFC 8598 §3.1).
        if requests(|attribute| matches!(attribute, Attribute::DnsDomain(_))) {
            attributes.extend(connection.domains.iter().cloned().map(Attribute::DnsDomain));
        }
        Ok(Some(Configuration { kind: REPLY, attributes }))
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
        reply: &Configuration,
    ) -> Result<(), IpAddr> {
        if reply.kind != REPLY {
            return Ok(());
        }
        let (mut first, mut dns, mut domains) = ([None, None], Vec::new(), Vec::new());
        for attribute in &reply.attributes {
            match attribute {
                Attribute::Ip4Address(Some(a)) if first[0].is_none() => first[0] = Some(IpAddr::from(*a)),
                Attribute::Ip6Address(Some(a)) if first[1].is_none() => first[1] = Some(IpAddr::from(*a)),
                Attribute::Ip4Dns(Some(a)) => dns.push(IpAddr::from(*a)),
                Attribute::Ip6Dns(Some(a)) => dns.push(IpAddr::from(*a)),
                Attribute::DnsDomain(domain) => domains.push(domain.clone()),
                _ => {}
            }
        }
        let assigned: Vec<IpAddr> = first.into_iter().flatten().collect();
        let outer = [self.addresses.local.ip(), self.addresses.remote.ip()];
        let is_outer = |address: &IpAddr| outer.contains(address) || connection.local.contains(address);
        if let Some(bad) = assigned.iter().find(|address| !is_assignable(**address) || is_outer(address)) {
            return Err(*bad);
        }
        self.assigned = assigned;
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
