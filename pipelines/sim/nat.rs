//! A NAT with the properties that RFC 4787 names. It translates UDP over IPv4 and IPv6, and drops
//! protocols without ports.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The parts of a remote endpoint that a mapping or a filter distinguishes (RFC 4787 §4.1, §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behavior {
    /// None: all remote endpoints are alike.
    EndpointIndependent,
    /// The address.
    AddressDependent,
    /// The address and the port.
    AddressAndPortDependent,
}

impl Behavior {
    /// All behaviors.
    pub const ALL: [Self; 3] =
        [Self::EndpointIndependent, Self::AddressDependent, Self::AddressAndPortDependent];

    /// Returns the part of `remote` that this behavior distinguishes.
    fn part(self, remote: SocketAddr) -> (Option<IpAddr>, Option<u16>) {
        match self {
            Self::EndpointIndependent => (None, None),
            Self::AddressDependent => (Some(remote.ip()), None),
            Self::AddressAndPortDependent => (Some(remote.ip()), Some(remote.port())),
        }
    }
}

impl fmt::Display for Behavior {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address- and port-dependent",
        })
    }
}

/// A NAT's mapping and filtering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Decides which remote endpoints share an external port (RFC 4787 §4.1).
    pub mapping: Behavior,
    /// Decides which remote endpoints may send to it after a packet went to one of them (RFC 4787
    /// §5).
    pub filtering: Behavior,
}

impl Kind {
    /// Every mapping with every filtering.
    pub const ALL: [Self; 9] = {
        let mut all = [Self { mapping: Behavior::ALL[0], filtering: Behavior::ALL[0] }; 9];
        let mut at = 0;
        while at < all.len() {
            all[at] = Self { mapping: Behavior::ALL[at / 3], filtering: Behavior::ALL[at % 3] };
            at += 1;
        }
        all
    };
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} mapping, {} filtering", self.mapping, self.filtering)
    }
}

/// Source and destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The source.
    pub from: SocketAddr,
    /// The destination.
    pub to: SocketAddr,
}

/// A remote endpoint, as far as a mapping or filter distinguishes it.
type Remote = (Option<IpAddr>, Option<u16>);

#[derive(Clone, Debug)]
struct Mapping {
    inside: SocketAddr,
    remote: Remote,
    /// When the last packet went out.
    used: Duration,
    /// When the last packet went out to each remote endpoint that may answer.
    permitted: BTreeMap<Remote, Duration>,
}

/// A NAT with one external address.
#[derive(Clone, Debug)]
pub struct Nat {
    /// The external address.
    pub address: IpAddr,
    /// Mapping and filtering.
    pub kind: Kind,
    /// How long a mapping lasts after the last outbound packet (RFC 4787 §4.3).
    pub expiry: Duration,
    /// `true` if the external port equals the internal one if it is free (RFC 4787 §4.2.1).
    pub preserves_ports: bool,
    /// `true` if hosts behind the NAT reach each other by the external address (RFC 4787 §6).
    pub hairpins: bool,
    /// External ports, by internal endpoint and the distinguished part of the remote one.
    ports: BTreeMap<(SocketAddr, Remote), u16>,
    mappings: BTreeMap<u16, Mapping>,
    /// The last port that was given out, less [`FIRST_PORT`].
    last_port: u16,
}

impl fmt::Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = if self.preserves_ports { "preserved ports" } else { "other ports" };
        let hairpins = if self.hairpins { "hairpins" } else { "no hairpins" };
        write!(f, "{}, {ports}, {hairpins}", self.kind)
    }
}

/// The first port that a NAT gives out: those below are reserved (RFC 4787 §4.2.1).
const FIRST_PORT: u16 = 1024;

impl Nat {
    /// Makes a NAT at `address` that keeps mappings for two minutes (RFC 4787 REQ-5), lets hosts
    /// behind it reach each other (REQ-9), and does not preserve ports.
    pub fn new(address: IpAddr, kind: Kind) -> Self {
        Self {
            address,
            kind,
            expiry: Duration::from_secs(120),
            preserves_ports: false,
            hairpins: true,
            ports: BTreeMap::new(),
            mappings: BTreeMap::new(),
            last_port: 0,
        }
    }

    /// Returns NATs at `address` of every kind, each with and without port preservation and
    /// hairpinning.
    pub fn all(address: IpAddr) -> impl Iterator<Item = Self> {
        Kind::ALL.into_iter().flat_map(move |kind| {
            [(false, false), (false, true), (true, false), (true, true)].map(|(preserves_ports, hairpins)| {
                Self { preserves_ports, hairpins, ..Self::new(address, kind) }
            })
        })
    }

    /// Translates a packet from inside; returns `None` if it is dropped. A packet to the NAT's own
    /// address turns back: its new destination is the internal one.
    pub fn outbound(&mut self, now: Duration, Endpoints { from, to }: Endpoints) -> Option<Endpoints> {
        let port = self.external_port(now, from, to)?;
        let mapping = self.mappings.get_mut(&port)?;
        // Outbound packets keep a mapping alive (REQ-6).
        mapping.used = now;
        mapping.permitted.insert(self.kind.filtering.part(to), now);
        let outside = Endpoints { from: SocketAddr::new(self.address, port), to };
        if to.ip() != self.address {
            return Some(outside);
        }
        // The other host sees the external source address and port (REQ-9a).
        if self.hairpins { self.inbound(now, outside) } else { None }
    }

    /// Translates a packet from outside; returns `None` if there is no mapping for it or the filter
    /// drops it.
    pub fn inbound(&self, now: Duration, Endpoints { from, to }: Endpoints) -> Option<Endpoints> {
        if to.ip() != self.address {
            return None;
        }
        let mapping = self.mappings.get(&to.port()).filter(|mapping| now < mapping.used + self.expiry)?;
        let permitted = match self.kind.filtering {
            Behavior::EndpointIndependent => true,
            dependent => mapping
                .permitted
                .get(&dependent.part(from))
                .is_some_and(|permitted| now < *permitted + self.expiry),
        };
        permitted.then_some(Endpoints { from, to: mapping.inside })
    }

    /// Forgets all mappings, as a restart does. Ports that were given out lately are reused last.
    pub fn restart(&mut self) {
        self.ports.clear();
        self.mappings.clear();
    }

    /// Forgets the mappings of one internal host.
    pub fn forget(&mut self, host: IpAddr) {
        let first = (SocketAddr::new(host, 0), (None, None));
        let known = self.ports.range(first..).take_while(|((inside, _), _)| inside.ip() == host);
        for (key, port) in known.map(|(key, port)| (*key, *port)).collect::<Vec<_>>() {
            self.ports.remove(&key);
            self.mappings.remove(&port);
        }
    }

    /// Returns the external port by which `inside` reaches `remote`, a new one if there is none.
    fn external_port(&mut self, now: Duration, inside: SocketAddr, remote: SocketAddr) -> Option<u16> {
        if inside.port() == 0 || remote.port() == 0 {
            return None;
        }
        let remote = self.kind.mapping.part(remote);
        if let Some(&port) = self.ports.get(&(inside, remote)).filter(|port| self.is_alive(now, **port)) {
            return Some(port);
        }
        let port = self.free_port(now, inside.port())?;
        if let Some(old) = self.mappings.remove(&port) {
            self.ports.remove(&(old.inside, old.remote));
        }
        if let Some(old) = self.ports.insert((inside, remote), port) {
            self.mappings.remove(&old);
        }
        self.mappings.insert(port, Mapping { inside, remote, used: now, permitted: BTreeMap::new() });
        Some(port)
    }

    /// Finds a port that no live mapping has, because two internal endpoints never share one
    /// (REQ-1, REQ-3).
    fn free_port(&mut self, now: Duration, inside: u16) -> Option<u16> {
        if self.preserves_ports && inside >= FIRST_PORT && !self.is_alive(now, inside) {
            return Some(inside);
        }
        let ports = u16::MAX - FIRST_PORT;
        (0..ports).find_map(|_| {
            self.last_port = self.last_port % ports + 1;
            let port = FIRST_PORT + self.last_port;
            (!self.is_alive(now, port)).then_some(port)
        })
    }

    fn is_alive(&self, now: Duration, port: u16) -> bool {
        self.mappings.get(&port).is_some_and(|mapping| now < mapping.used + self.expiry)
    }
}
