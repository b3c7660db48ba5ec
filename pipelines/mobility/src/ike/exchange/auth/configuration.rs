//! Inner addresses and DNS (RFC 7296 §3.15, RFC 8598).

use crate::{
    aaa::grant::Ip6Prefix,
    ike::{
        connection::Connection,
        context::Context,
        event::Event,
        leases::GrantError,
        peer::Peer,
        pool::Owner,
        wire::{Attribute, Configuration, REPLY, REQUEST, notify},
    },
};
use alloc::{string::String, vec, vec::Vec};
use core::net::IpAddr;

/// Addresses of a granted prefix that are tried for a peer, so that others may have some.
const TRIED: usize = 256;

/// Returns the request of a client: an address of each family, DNS servers and their domains. It asks
/// for the addresses that it has `before`.
pub(super) fn request(before: &[IpAddr]) -> Configuration {
    let ip4 = before.iter().find_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None });
    let ip6 = before.iter().find_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None });
    let attributes = vec![
        Attribute::Ip4Address(ip4),
        Attribute::Ip6Address(ip6),
        Attribute::Ip4Dns(None),
        Attribute::Ip6Dns(None),
        Attribute::DnsDomain(String::new()),
    ];
    Configuration { kind: REQUEST, attributes }
}

impl Peer {
    /// Assigns what the peer asks for. Returns `None` if it asks for nothing, or if there are
    /// neither pools nor addresses of its own.
    ///
    /// # Errors
    /// INTERNAL_ADDRESS_FAILURE if the pools are exhausted, or if the peer cannot have what a RADIUS
    /// server granted.
    pub(in crate::ike) fn configure(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        request: &Configuration,
    ) -> Result<Option<Configuration>, u16> {
        let grant = self.grant.as_deref().cloned().unwrap_or_default();
        if request.kind != REQUEST || (connection.pools.is_empty() && !grant.has_address()) {
            return Ok(None);
        }
        let Some(owner) = self.owner(cx) else { return Ok(None) };
        // A client gets one address of each family: its first request counts.
        let all = &request.attributes;
        let ip4 = all.iter().find_map(|a| if let Attribute::Ip4Address(a) = a { Some(*a) } else { None });
        let ip6 = all.iter().find_map(|a| if let Attribute::Ip6Address(a) = a { Some(*a) } else { None });
        let fixed = [grant.ip4.map(IpAddr::from), grant.ip6.map(IpAddr::from)];
        let wishes = [ip4.map(|a| (true, a.map(IpAddr::from))), ip6.map(|a| (false, a.map(IpAddr::from)))];
        for ((is_v4, wish), fixed) in wishes.into_iter().zip(fixed).filter_map(|(w, fixed)| Some((w?, fixed)))
        {
            let kept = self.kept(cx, wish);
            let lease = match (fixed, grant.ip6_prefix.filter(|_| !is_v4)) {
                (Some(address), _) => self.lease_fixed(cx, connection, &owner, address).map(Some),
                (None, Some(prefix)) => self.lease_within(cx, connection, &owner, prefix, kept).map(Some),
                (None, None) => cx.leases().choose(&connection.pools, &grant.pools, is_v4).map(|pools| {
                    kept.filter(|kept| cx.leases().is_in(&pools, *kept))
                        .filter(|kept| cx.leases().lease_fixed(&pools, &owner, *kept).is_ok())
                        .or_else(|| cx.leases().lease(&pools, &owner, wish, self.takes_over))
                }),
            };
            match lease {
                Ok(lease) => self.leases.extend(lease),
                Err(reason) => {
                    self.release_addresses(cx);
                    cx.tell(Event::GrantRefused { peer: self.id, reason });
                    return Err(notify::INTERNAL_ADDRESS_FAILURE);
                }
            }
        }
        let mut attributes: Vec<Attribute> = self.leases.iter().copied().map(Attribute::address).collect();
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

    /// Returns the address that the peer wishes if the device has it already: one that authenticates
    /// again keeps its address.
    fn kept(&self, cx: &Context<'_>, wish: Option<IpAddr>) -> Option<IpAddr> {
        wish.filter(|wish| self.predecessor().is_some_and(|old| cx.has_leased(old, *wish)))
    }

    /// Leases an address of the prefix that a RADIUS server granted: the one that the peer keeps, else
    /// the first that it can have.
    fn lease_within(
        &self,
        cx: &mut Context<'_>,
        connection: &Connection,
        owner: &Owner,
        prefix: Ip6Prefix,
        kept: Option<IpAddr>,
    ) -> Result<IpAddr, GrantError> {
        let first = prefix.hosts().take(TRIED).map(IpAddr::from);
        let mut all = kept.into_iter().filter(|kept| prefix.contains(*kept)).chain(first);
        let leased = all.find_map(|address| self.lease_fixed(cx, connection, owner, address).ok());
        leased.ok_or(GrantError::NoneFree(prefix))
    }

    /// Leases the address that a RADIUS server granted.
    fn lease_fixed(
        &self,
        cx: &mut Context<'_>,
        connection: &Connection,
        owner: &Owner,
        address: IpAddr,
    ) -> Result<IpAddr, GrantError> {
        let is_server = cx.connections.current().any(|(_, current)| current.dns.contains(&address));
        if !is_assignable(address) || self.is_outer(connection, address) || is_server {
            return Err(GrantError::Impossible(address));
        }
        cx.leases().lease_fixed(&connection.pools, owner, address).map(|()| address)
    }

    /// Releases the inner addresses that the peer leased.
    pub(in crate::ike) fn release_addresses(&mut self, cx: &mut Context<'_>) {
        core::mem::take(&mut self.leases).into_iter().for_each(|address| cx.leases().release(address));
    }

    /// Returns true if the address is an outer one, of either side.
    fn is_outer(&self, connection: &Connection, address: IpAddr) -> bool {
        let outer = [self.addresses.local.ip(), self.addresses.remote.ip()];
        outer.contains(&address) || connection.local.contains(&address)
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
        let is_bad = |address: &&IpAddr| !is_assignable(**address) || self.is_outer(connection, **address);
        if let Some(bad) = assigned.iter().find(is_bad) {
            return Err(*bad);
        }
        self.assigned = assigned.clone().into();
        cx.tell(Event::Configured { peer: self.id, addresses: assigned, dns, domains });
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
