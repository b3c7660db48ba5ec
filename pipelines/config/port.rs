//! Checks `[[port]]`.

use super::{
    dpdk,
    error::{ConfigResult, Rule},
    field::{Unique, mtu},
    file::{self, Key, Kind, List, Scalar},
    model::{Exception, Port, PortKind},
    source::Source,
    value,
};
use std::{net::IpAddr, ops::Range};
use toml::Spanned;
use wayfarer_dataplane::table::Prefix;

/// Frames a second on an exception path by default.
const EXCEPTION_RATE: u32 = 10_000;

pub(super) fn ports(source: &Source<'_>, raw: &[Spanned<file::Port>]) -> ConfigResult<Vec<Port>> {
    if raw.is_empty() {
        return Err(source.error("", None, Rule::MissingKey("[[port]]".into())));
    }
    let (mut names, mut devices, mut addresses) = (Unique::new(), Unique::new(), Unique::new());
    let mut hosts = Unique::new();
    let mut ports = vec![];
    for raw in raw {
        let port = port(source, raw)?;
        let raw = raw.get_ref();
        source.value("port.name", &raw.name, |name| names.add(source, name.clone(), raw.name.span()))?;
        source.optional("port.device", &raw.device, |device| {
            let device = if let PortKind::Dpdk { device, .. } = &port.kind { device } else { device };
            devices.add(source, device.clone(), raw.device.as_ref().map_or(0..0, Spanned::span))
        })?;
        source.optional("port.exception", &raw.exception, |device| {
            devices.add(source, device.clone(), raw.exception.as_ref().map_or(0..0, Spanned::span))
        })?;
        source.optional("port.host", &raw.host, |is_host| {
            if *is_host {
                hosts.add(source, (), raw.host.as_ref().map_or(0..0, Spanned::span))
            } else {
                Ok(())
            }
        })?;
        source.optional("port.addresses", &raw.addresses, |_| {
            let place = raw.addresses.as_ref().map_or(0..0, Spanned::span);
            port.addresses.iter().try_for_each(|(own, _)| addresses.add(source, *own, place.clone()))
        })?;
        ports.push(port);
    }
    Ok(ports)
}

fn port(source: &Source<'_>, raw: &Spanned<file::Port>) -> ConfigResult<Port> {
    let place = raw.span();
    let raw = raw.get_ref();
    let addresses = |list: &List| list.0.iter().map(|text| value::interface(text)).collect();
    let addresses: Vec<(IpAddr, Prefix)> =
        source.optional("port.addresses", &raw.addresses, addresses)?.unwrap_or_default();
    let v6 = addresses.iter().any(|(own, _)| own.is_ipv6());
    Ok(Port {
        name: source.value("port.name", &raw.name, |name| value::name(name))?,
        kind: kind(source, raw, place)?,
        addresses,
        mtu: source.optional("port.mtu", &raw.mtu, |size| mtu(size, v6))?,
        mac: source.optional("port.mac", &raw.mac, |mac| value::mac(mac))?,
        is_host: raw.host.as_ref().is_some_and(|host| *host.get_ref()),
        is_optional: raw.optional.as_ref().is_some_and(|optional| *optional.get_ref()),
    })
}

fn kind(source: &Source<'_>, raw: &file::Port, place: Range<usize>) -> ConfigResult<PortKind> {
    let kind = raw.kind.as_ref().map_or(Kind::Auto, |kind| *kind.get_ref());
    let because = || match &raw.kind {
        Some(kind) => format!("kind = {}", &source.text[kind.span()]),
        None => "kind = \"auto\"".to_owned(),
    };
    let needs = |key| source.error("port", Some(place.clone()), Rule::Needs(key, because().into()));
    let pointless = |key, found: Option<Range<usize>>| match found {
        Some(place) => Err(source.bad(key, place, Rule::Pointless(because().into()))),
        None => Ok(()),
    };
    if matches!(kind, Kind::Pcap | Kind::Generator | Kind::Sink) {
        pointless("port.device", raw.device.as_ref().map(Spanned::span))?;
    }
    if !matches!(kind, Kind::Pcap | Kind::Generator) {
        pointless("port.input", raw.input.as_ref().map(Spanned::span))?;
    }
    if matches!(kind, Kind::Auto | Kind::AfXdp | Kind::AfPacket) {
        pointless("port.mac", raw.mac.as_ref().map(Spanned::span))?;
    }
    if !matches!(kind, Kind::Auto | Kind::AfPacket) {
        pointless("port.optional", raw.optional.as_ref().map(Spanned::span))?;
    }
    if kind != Kind::Pcap {
        pointless("port.output", raw.output.as_ref().map(Spanned::span))?;
        pointless("port.host", raw.host.as_ref().map(Spanned::span))?;
    }
    if kind != Kind::Generator {
        pointless("port.count", raw.count.as_ref().map(Spanned::span))?;
    }
    if kind != Kind::Dpdk {
        pointless("port.promiscuous", raw.promiscuous.as_ref().map(Spanned::span))?;
        pointless("port.exception", raw.exception.as_ref().map(Spanned::span))?;
        pointless("port.exception_rate", raw.exception_rate.as_ref().map(Spanned::span))?;
    }
    let path = |key, path: &Key<String>| source.optional(key, path, |path| source.path(path));
    let input = path("port.input", &raw.input)?;
    let device = source.optional("port.device", &raw.device, |name| match kind {
        Kind::Dpdk => Ok(dpdk::name(name)),
        _ => value::device(name),
    })?;
    let device = || device.ok_or_else(|| needs("device"));
    Ok(match kind {
        Kind::Auto => PortKind::Auto { device: device()? },
        Kind::AfXdp => PortKind::AfXdp { device: device()? },
        Kind::AfPacket => PortKind::AfPacket { device: device()? },
        Kind::Tap => PortKind::Tap { device: device()? },
        Kind::Dpdk => PortKind::Dpdk {
            device: device()?,
            promiscuous: raw.promiscuous.as_ref().is_some_and(|on| *on.get_ref()),
            exception: exception(source, raw, place.clone())?,
        },
        Kind::Pcap => match (input, path("port.output", &raw.output)?) {
            (None, None) => return Err(needs("input")),
            (input, output) => PortKind::Pcap { input, output },
        },
        Kind::Generator => PortKind::Generator {
            input: input.ok_or_else(|| needs("input"))?,
            count: source.optional("port.count", &raw.count, |&n| value::count(&Scalar::Integer(n)))?,
        },
        Kind::Sink => PortKind::Sink,
    })
}

/// Returns the exception path of a DPDK port.
fn exception(source: &Source<'_>, raw: &file::Port, place: Range<usize>) -> ConfigResult<Option<Exception>> {
    let device = source.optional("port.exception", &raw.exception, |name| value::device(name))?;
    let rate = |&rate: &i64| value::integer(rate, 1..=10_000_000u32);
    let rate = source.optional("port.exception_rate", &raw.exception_rate, rate)?;
    if device.is_none() && rate.is_some() {
        return Err(source.error("port", Some(place), Rule::Needs("exception", "exception_rate".into())));
    }
    Ok(device.map(|device| Exception { device, rate: rate.unwrap_or(EXCEPTION_RATE) }))
}
