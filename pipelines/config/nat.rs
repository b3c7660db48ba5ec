//! Checks `[[nat]]`.

use super::{
    error::{ConfigResult, Rule},
    field::prefixes,
    file::{self, Key},
    model::{Config, Nat},
    source::Source,
    value,
};
use std::{
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    time::Duration,
};
use toml::Spanned;
use wayfarer_dataplane::{
    port::classifier::MAX_NATS,
    sa::PortRange,
    table::Prefix,
    wire::{Address, esp},
};

/// The UDP port of home agents (RFC 5944 §3.3).
const REGISTRATIONS: u16 = 434;
/// Ports outside by default: below the kernel's for its own connections, which are 32768 and up.
const PORTS: RangeInclusive<u16> = 10_000..=32_767;
/// Mappings of an inner address by default.
const MAPPINGS: u32 = 4096;

const MINUTE: u64 = 60;
// Timeouts by default: the shortest that RFC 4787 §4.3 recommends, and that RFC 5382 §5 and RFC 5508 §3.2
// allow.
const UDP: Duration = Duration::from_secs(5 * MINUTE);
const TCP: Duration = Duration::from_secs(124 * MINUTE);
const TCP_TRANSITORY: Duration = Duration::from_secs(4 * MINUTE);
const ICMP: Duration = Duration::from_secs(MINUTE);

/// Checks all NATs.
pub(super) fn nats(
    source: &Source<'_>,
    raw: &[Spanned<file::Nat>],
    config: &Config,
) -> ConfigResult<Vec<Nat>> {
    let mut nats: Vec<Nat> = vec![];
    for one in raw {
        if nats.len() == MAX_NATS {
            return Err(source.error("nat", Some(one.span()), Rule::TooManyNats(MAX_NATS)));
        }
        let nat = nat(source, one, config)?;
        for (other, before) in nats.iter().zip(raw) {
            let line = source.line(&before.span());
            if shares_inside(&nat, other) {
                let inside = &one.get_ref().inside;
                return Err(source.bad("nat.inside", inside.span(), Rule::SameInside(line)));
            }
            if shares_ports(&nat, other) {
                let place = one.get_ref().ports.as_ref().map_or(one.span(), Spanned::span);
                return Err(source.bad("nat.ports", place, Rule::SamePorts(line)));
            }
        }
        nats.push(nat);
    }
    Ok(nats)
}

/// Returns whether some sources would be translated by both when they leave by one port.
fn shares_inside(nat: &Nat, other: &Nat) -> bool {
    let overlap = |a: &Prefix, b: &Prefix| a.contains(b.address()) || b.contains(a.address());
    nat.port == other.port && nat.inside.iter().any(|a| other.inside.iter().any(|b| overlap(a, b)))
}

fn shares_ports(nat: &Nat, other: &Nat) -> bool {
    let overlaps = nat.ports.start() <= other.ports.end() && other.ports.start() <= nat.ports.end();
    nat.address == other.address && overlaps
}

fn nat(source: &Source<'_>, raw: &Spanned<file::Nat>, config: &Config) -> ConfigResult<Nat> {
    let raw = raw.get_ref();
    let port = source.value("nat.port", &raw.port, |name| {
        config.ports.iter().position(|port| port.name == *name).ok_or(Rule::UnknownPort)
    })?;
    let own = || config.ports[port].addresses.iter().filter_map(|(own, _)| v4(*own));
    let named = source.optional("nat.address", &raw.address, |text| {
        let address = value::address(text)?;
        own().find(|own| IpAddr::from(*own) == address).ok_or(Rule::NotOnPort)
    })?;
    let first = source.value("nat.port", &raw.port, |_| own().next().ok_or(Rule::NoAddress))?;
    let address = named.unwrap_or(first);
    let inside = source.value("nat.inside", &raw.inside, |list| {
        let inside = prefixes(list)?;
        if inside.iter().any(|prefix| !prefix.is_ipv4()) {
            return Err(Rule::Ipv4);
        }
        let holds = |prefix: &Prefix| prefix.contains(Address::from(address));
        if inside.iter().any(holds) { Err(Rule::OutsideInside(address)) } else { Ok(inside) }
    })?;
    let ports = source.optional("nat.ports", &raw.ports, |ports| {
        let PortRange { first, last } = value::ports(ports)?;
        let siu = config.siu.first().map(|_| &config.gateway.siu_port);
        let registrations = config.home_agent.as_ref().map(|_| &REGISTRATIONS);
        let ours = config.gateway.encap_ports.iter().chain([&esp::IKE_PORT]).chain(siu).chain(registrations);
        match ours.copied().find(|port| (first..=last).contains(port)) {
            Some(port) => Err(Rule::OwnUdpPort(port)),
            None if first == 0 => Err(Rule::Range(1, u16::MAX.into())),
            None => Ok(first..=last),
        }
    })?;
    let siu = config.siu.first().map(|_| &config.gateway.siu_port);
    if ports.is_none()
        && let Some(port) = config.gateway.encap_ports.iter().chain(siu).find(|port| PORTS.contains(*port))
    {
        let needs = Rule::Needs("ports", format!("[[nat]] beside UDP port {port} of the gateway").into());
        return Err(source.error("nat", Some(raw.port.span()), needs));
    }
    let mappings = |&n: &i64| value::integer(n, 1..=u32::from(u16::MAX));
    let time = |key, time: &Key<String>| source.optional(key, time, |text| value::duration(text));
    Ok(Nat {
        inside,
        port,
        address,
        ports: ports.unwrap_or(PORTS),
        mappings: source.optional("nat.mappings", &raw.mappings, mappings)?.unwrap_or(MAPPINGS),
        udp_timeout: time("nat.udp_timeout", &raw.udp_timeout)?.unwrap_or(UDP),
        tcp_timeout: time("nat.tcp_timeout", &raw.tcp_timeout)?.unwrap_or(TCP),
        tcp_transitory_timeout: time("nat.tcp_transitory_timeout", &raw.tcp_transitory_timeout)?
            .unwrap_or(TCP_TRANSITORY),
        icmp_timeout: time("nat.icmp_timeout", &raw.icmp_timeout)?.unwrap_or(ICMP),
    })
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}
