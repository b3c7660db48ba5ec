//! Parsers of single values, which return a typed value or the broken rule.

use super::{
    error::{Rule, nearest},
    file::Scalar,
    model::Remote,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};
use wayfarer_dataplane::{
    crypto::Suite,
    port::{Mac, vlan::Priority},
    sa::PortRange,
    table::{Prefix, PrefixError},
    wire::{
        ip::protocol,
        vlan::{self, Vlan},
    },
};
use wayfarer_mobility::{
    identity::Identity,
    ike::connection::{self, IdentityPattern},
};

/// UDP port of ESP in UDP (RFC 3948 §2.1).
pub(super) const NAT_T: u16 = 4500;

/// Longest identity, in bytes.
const LONGEST_IDENTITY: usize = 255;

const PROTOCOLS: [(&str, u8); 7] = [
    ("icmp", protocol::ICMP),
    ("ipip", protocol::IPV4),
    ("tcp", protocol::TCP),
    ("udp", protocol::UDP),
    ("gre", 47),
    ("icmpv6", protocol::ICMPV6),
    ("sctp", protocol::SCTP),
];

/// Converts a number, which must be within `range`, into an integer type.
pub(super) fn integer<T>(value: i64, range: RangeInclusive<T>) -> Result<T, Rule>
where
    T: TryFrom<i64> + PartialOrd + Copy + Into<u64>,
{
    let broken = Rule::Range((*range.start()).into(), (*range.end()).into());
    T::try_from(value).ok().filter(|v| range.contains(v)).ok_or(broken)
}

/// Parses digits and a unit. Returns the number and the factor of the unit in `units`.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: u64 = digits.parse().ok()?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.checked_mul(*factor)
}

/// Parses a time like `"500ms"`, `"30s"`, `"5m"`, `"1h"` or `"7d"`. Zero is refused.
pub(super) fn duration(text: &str) -> Result<Duration, Rule> {
    let units = [
        ("us", 1),
        ("ms", 1_000),
        ("s", 1_000_000),
        ("m", 60_000_000),
        ("h", 3_600_000_000),
        ("d", 86_400_000_000),
    ];
    match with_unit(text, &units) {
        Some(micros) if micros > 0 => Ok(Duration::from_micros(micros)),
        _ => Err(Rule::Duration),
    }
}

/// Parses a number of bytes: a number, or a text like `"64KiB"`.
pub(super) fn size(value: &Scalar) -> Result<u64, Rule> {
    let units = [("", 1), ("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
    match value {
        Scalar::Integer(bytes) => u64::try_from(*bytes).ok(),
        Scalar::Text(text) => with_unit(text, &units),
    }
    .ok_or(Rule::Size)
}

/// Parses a number of bytes that must be within `range`.
pub(super) fn size_within(value: &Scalar, range: RangeInclusive<usize>) -> Result<usize, Rule> {
    let bytes = size(value)?;
    let broken = Rule::Range(*range.start() as u64, *range.end() as u64);
    usize::try_from(bytes).ok().filter(|b| range.contains(b)).ok_or(broken)
}

/// Returns the VLAN of a list of one number, or of two from the outside in.
pub(super) fn vlan(list: &[i64]) -> Result<Vlan, Rule> {
    let id = |number: &i64| integer(*number, 1..=vlan::MAX_ID);
    let vlan = match list {
        [inner] => Vlan::new(None, id(inner)?),
        [outer, inner] => Vlan::new(Some(id(outer)?), id(inner)?),
        _ => None,
    };
    vlan.ok_or(Rule::Vlan)
}

/// Parses the priority of frames in a VLAN: `"dscp"`, or a number from 0 to 7.
pub(super) fn priority(value: &Scalar) -> Result<Priority, Rule> {
    match value {
        Scalar::Text(text) if text == "dscp" => Ok(Priority::Dscp),
        Scalar::Integer(priority @ 0..=7) => Ok(Priority::Fixed(*priority as u8)),
        _ => Err(Rule::Pcp),
    }
}

/// Parses a count: a number of at least 1, or a text of digits.
pub(super) fn count(value: &Scalar) -> Result<u64, Rule> {
    match value {
        Scalar::Integer(n) => u64::try_from(*n).ok(),
        Scalar::Text(text) => text.parse().ok(),
    }
    .filter(|&n| n > 0)
    .ok_or(Rule::Count)
}

fn unicast(address: IpAddr) -> Result<IpAddr, Rule> {
    let broadcast = matches!(address, IpAddr::V4(a) if a.is_broadcast());
    let bad = address.is_unspecified() || address.is_multicast() || broadcast;
    if bad { Err(Rule::Unicast) } else { Ok(address) }
}

/// Parses a unicast address.
pub(super) fn address(text: &str) -> Result<IpAddr, Rule> {
    let address: IpAddr = text.parse().map_err(|_| Rule::Address)?;
    unicast(address.to_canonical())
}

/// Parses an address of the gateway with its subnet: `"203.0.113.1/24"`.
pub(super) fn interface(text: &str) -> Result<(IpAddr, Prefix), Rule> {
    let Some((host, length)) = text.split_once('/') else {
        let host = address(text)?;
        return Ok((host, Prefix::host(host)));
    };
    let host = address(host)?;
    let length = length.parse().map_err(|_| Rule::Prefix)?;
    let subnet = Prefix::new(host, length).ok_or(Rule::PrefixLength)?;
    Ok((host, subnet))
}

/// Parses a prefix like `"10.0.0.0/8"`, or a single address.
pub(super) fn prefix(text: &str) -> Result<Prefix, Rule> {
    text.parse().map_err(|why| match why {
        PrefixError::Syntax => Rule::Prefix,
        PrefixError::Length => Rule::PrefixLength,
        PrefixError::HostBits => Rule::HostBits,
    })
}

/// Returns the prefix that remains without the host bits in `text`.
pub(super) fn without_host_bits(text: &str) -> Option<Prefix> {
    let (address, length) = text.split_once('/')?;
    Prefix::new(address.parse().ok()?, length.parse().ok()?)
}

/// Parses a peer's address: `"any"`, an address, or an address with a port. Also returns whether it
/// has a port.
pub(super) fn remote(text: &str) -> Result<(Remote, bool), Rule> {
    if text == "any" {
        return Ok((Remote::Any, false));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((Remote::At(unicast(address.to_canonical())?, NAT_T), false));
    }
    let socket: SocketAddr = text.parse().map_err(|_| Rule::Remote)?;
    if socket.port() == 0 {
        return Err(Rule::Remote);
    }
    Ok((Remote::At(unicast(socket.ip().to_canonical())?, socket.port()), true))
}

/// Parses where a peer of IKE is: an address or a host name, with a port or else at port `usual`.
pub(super) fn peer(text: &str, usual: u16) -> Result<connection::Remote, Rule> {
    match remote(text) {
        Ok((Remote::At(address, port), has_port)) => {
            let port = if has_port { port } else { usual };
            return Ok(connection::Remote::At(SocketAddr::new(address, port)));
        }
        Err(Rule::Unicast) => return Err(Rule::Unicast),
        _ => {}
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, port.parse().ok().filter(|port| *port > 0).ok_or(Rule::Peer)?),
        None => (text, usual),
    };
    let name = domain(name).map_err(|_| Rule::Peer)?;
    // An address with a typing error is not a name: no top-level domain is a number (RFC 3696 §2).
    let has_letter = |label: &str| label.chars().any(|c| !c.is_ascii_digit());
    match name.rsplit('.').next().is_some_and(has_letter) {
        true => Ok(connection::Remote::Named(name, port)),
        false => Err(Rule::Peer),
    }
}

/// Parses a protocol: a name or a number.
pub(super) fn protocol(value: &Scalar) -> Result<u8, Rule> {
    let number = match value {
        Scalar::Integer(n) => u8::try_from(*n).ok(),
        Scalar::Text(text) => PROTOCOLS.iter().find_map(|&(name, n)| (name == text).then_some(n)),
    };
    number.ok_or(Rule::Protocol)
}

/// Parses ports: a number, `"80"` or `"1000-2000"`.
pub(super) fn ports(value: &Scalar) -> Result<PortRange, Rule> {
    let range = match value {
        Scalar::Integer(n) => u16::try_from(*n).ok().map(|port| (port, port)),
        Scalar::Text(text) => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            first.trim().parse().ok().zip(last.trim().parse().ok())
        }
    };
    match range {
        Some((first, last)) if first <= last => Ok(PortRange { first, last }),
        _ => Err(Rule::Ports),
    }
}

/// Parses a DSCP; `"copy"` becomes `None`.
pub(super) fn dscp(value: &Scalar) -> Result<Option<u8>, Rule> {
    match value {
        Scalar::Text(text) if text == "copy" => Ok(None),
        Scalar::Integer(n @ 0..=63) => Ok(Some(*n as u8)),
        _ => Err(Rule::Dscp),
    }
}

/// Parses the name of a cipher suite. An error comes with the nearest name.
pub(super) fn cipher(text: &str) -> Result<Suite, (Rule, Option<String>)> {
    text.parse().map_err(|_| {
        let names: Vec<String> = Suite::ALL.iter().map(Suite::to_string).collect();
        (Rule::Cipher, nearest(text, names.iter().map(String::as_str)).map(str::to_owned))
    })
}

/// Parses an identity: an address, a domain name, a mail address, or a key ID.
pub(super) fn identity(text: &str) -> Result<Identity, Rule> {
    let plain = |text: &&str| !text.starts_with('*') && text.len() <= LONGEST_IDENTITY;
    Some(text).filter(plain).and_then(Identity::from_text).ok_or(Rule::Identity)
}

/// Parses the identities that a peer may have: `"any"` or `"*.example.org"` alone, or a list of
/// identities.
pub(super) fn identities(list: &[String]) -> Result<IdentityPattern, Rule> {
    let is_suffix = |text: &str| text.starts_with("*.") || text.starts_with("*@");
    match list {
        [] => Err(Rule::Empty),
        [any] if any == "any" => Ok(IdentityPattern::Any),
        [text] if is_suffix(text) => {
            let rest =
                text.get(2..).filter(|rest| Identity::from_text(rest).is_some()).ok_or(Rule::Identity)?;
            identity(rest)?;
            Ok(IdentityPattern::Suffix(text.as_bytes().get(1..).unwrap_or_default().to_vec()))
        }
        list if list.iter().any(|text| text == "any" || is_suffix(text)) => Err(Rule::LonePattern),
        list => Ok(IdentityPattern::of(list.iter().map(|text| identity(text)).collect::<Result<_, _>>()?)),
    }
}

/// Parses a domain name (RFC 1035 §2.3.1, and underscores, which are in use today).
pub(super) fn domain(text: &str) -> Result<String, Rule> {
    let is_label = |label: &str| {
        matches!(label.len(), 1..=63)
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    let fits = text.len() <= 253 && text.split('.').all(is_label);
    if fits { Ok(text.to_owned()) } else { Err(Rule::Domain) }
}

/// Parses a server's address and port.
pub(super) fn server(text: &str) -> Result<SocketAddr, Rule> {
    let server: SocketAddr = text.parse().map_err(|_| Rule::Server)?;
    if server.port() == 0 {
        return Err(Rule::Server);
    }
    Ok(SocketAddr::new(unicast(server.ip().to_canonical())?, server.port()))
}

/// Returns the first and last address of a prefix.
pub(super) fn ends(prefix: Prefix) -> (IpAddr, IpAddr) {
    let first = prefix.address();
    let last = match first {
        IpAddr::V4(a) => {
            let host = u32::MAX.checked_shr(prefix.length().into()).unwrap_or(0);
            Ipv4Addr::from_bits(a.to_bits() | host).into()
        }
        IpAddr::V6(a) => {
            let host = u128::MAX.checked_shr(prefix.length().into()).unwrap_or(0);
            Ipv6Addr::from_bits(a.to_bits() | host).into()
        }
    };
    (first, last)
}

/// Parses a pool and returns its first and last address: a range, or a prefix without the network
/// and broadcast addresses that IPv4 prefixes shorter than /31 have (RFC 3021), and without the
/// routers' anycast address of IPv6 prefixes shorter than /127 (RFC 4291 §2.6.1, RFC 6164).
pub(super) fn pool(text: &str) -> Result<(IpAddr, IpAddr), Rule> {
    if let Some((first, last)) = text.split_once('-') {
        let [first, last] = [first, last].map(|end| end.trim().parse::<IpAddr>().map_err(|_| Rule::Pool));
        let (first, last) = (unicast(first?)?, unicast(last?)?);
        let is_range = first.is_ipv4() == last.is_ipv4() && first <= last;
        return if is_range { Ok((first, last)) } else { Err(Rule::Pool) };
    }
    let prefix = prefix(text).map_err(|why| if why == Rule::Prefix { Rule::Pool } else { why })?;
    match ends(prefix) {
        (IpAddr::V4(first), IpAddr::V4(last)) if prefix.length() < 31 => {
            let (first, last) = (first.to_bits().saturating_add(1), last.to_bits().saturating_sub(1));
            Ok((Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(last).into()))
        }
        (IpAddr::V6(first), last) if prefix.length() < 127 => {
            Ok((Ipv6Addr::from_bits(first.to_bits().saturating_add(1)).into(), last))
        }
        ends => Ok(ends),
    }
}

/// Parses a unicast MAC address: `"02:00:00:00:00:01"`.
pub(super) fn mac(text: &str) -> Result<Mac, Rule> {
    let mut mac = Mac::default();
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|p| p.len() == 2 && !p.starts_with('+')).ok_or(Rule::Mac)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| Rule::Mac)?;
    }
    let group = mac[0] & 1 == 1;
    if parts.next().is_some() || group || mac == Mac::default() { Err(Rule::Mac) } else { Ok(mac) }
}

/// Parses a name for people, which is short and has visible characters only.
pub(super) fn name(text: &str) -> Result<String, Rule> {
    let seen = |c: char| c.is_alphanumeric() || c.is_ascii_punctuation();
    let fits = !text.is_empty() && text.len() <= 64 && text.chars().all(seen);
    if fits { Ok(text.to_owned()) } else { Err(Rule::Name) }
}

/// Parses the name of a network device, by the rules of Linux.
pub(super) fn device(text: &str) -> Result<String, Rule> {
    let fits = matches!(text.len(), 1..=15)
        && !matches!(text, "." | "..")
        && text.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | ':'));
    if fits { Ok(text.to_owned()) } else { Err(Rule::Device) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_address_is_one_stations() {
        assert_eq!(mac("02:00:00:00:0a:FF"), Ok([2, 0, 0, 0, 10, 255]));
        for text in [
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "+2:00:00:00:00:01",
            "2:00:00:00:00:01",
            "002:00:00:00:00:01",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ] {
            assert_eq!(mac(text), Err(Rule::Mac), "{text}");
        }
    }
}
