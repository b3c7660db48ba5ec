//! Checks `[[port]]`.

use super::{
    dpdk,
    error::{ConfigResult, Rule},
    field::{Unique, mtu},
    file::{self, Key, Kind, List, PortDscp, Scalar},
    model::{Exception, Port, PortKind},
    source::Source,
    value,
};
use std::{net::IpAddr, ops::Range};
use toml::Spanned;
use wayfarer_dataplane::{
    port::{
        Mac,
        vlan::{Priority, Tagging},
    },
    table::Prefix,
};

/// Frames a second on an exception path by default.
const EXCEPTION_RATE: u32 = 10_000;

pub(super) fn ports(source: &Source<'_>, raw: &[Spanned<file::Port>]) -> ConfigResult<Vec<Port>> {
    if raw.is_empty() {
        return Err(source.error("", None, Rule::MissingKey("[[port]]".into())));
    }
    let (mut names, mut devices, mut addresses) = (Unique::new(), Unique::new(), Unique::new());
    let mut hosts = Unique::new();
    let mut ports = vec![];
    for (index, port_raw) in raw.iter().enumerate() {
        let port = port(source, port_raw)?;
        let is_first = !shares_device(source, &raw[..=index], &ports, &port)?;
        let raw = port_raw.get_ref();
        source.value("port.name", &raw.name, |name| names.add(source, name.clone(), raw.name.span()))?;
        source.optional("port.device", &raw.device, |device| {
            let device = if let PortKind::Dpdk { device, .. } = &port.kind { device } else { device };
            let place = raw.device.as_ref().map_or(0..0, Spanned::span);
            if is_first { devices.add(source, device.clone(), place) } else { Ok(()) }
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

/// Returns whether `port`, the last one of `raw`, shares its device with some of `earlier`. All of them
/// must have the same settings of the device, and no two the same VLAN, or none.
fn shares_device(
    source: &Source<'_>,
    raw: &[Spanned<file::Port>],
    earlier: &[Port],
    port: &Port,
) -> ConfigResult<bool> {
    let others: Vec<_> = earlier.iter().zip(raw).filter(|(other, _)| port.shares_device(other)).collect();
    let Some((first, raw_first)) = others.first() else { return Ok(false) };
    let mut vlans = Unique::new();
    for (port, raw) in others.iter().copied().chain(raw.last().map(|raw| (port, raw))) {
        let raw = raw.get_ref();
        let (key, place) = match &raw.vlan {
            Some(vlan) => ("port.vlan", vlan.span()),
            None => device_place(raw),
        };
        let vlan = port.tagging.map(|tagging| tagging.vlan);
        vlans.add(source, vlan, place.clone()).map_err(|rule| source.bad(key, place, rule))?;
    }
    if device_settings(first) != device_settings(port) {
        let rule = Rule::SharedDevice(source.line(&raw_first.span()));
        return Err(source.error("port", raw.last().map(Spanned::span), rule));
    }
    Ok(true)
}

/// Returns the key that names a port's device or file, and its place.
fn device_place(raw: &file::Port) -> (&'static str, Range<usize>) {
    let keys = [("port.device", &raw.device), ("port.input", &raw.input), ("port.output", &raw.output)];
    let mut named = keys.into_iter().filter_map(|(key, name)| Some((key, name.as_ref()?.span())));
    named.next().unwrap_or(("port", 0..0))
}

/// Returns the settings that all ports of a device must have in common.
fn device_settings(port: &Port) -> (PortKind, Option<Mac>, bool) {
    let mut kind = port.kind.clone();
    if let PortKind::Dpdk { exception, .. } = &mut kind {
        *exception = None;
    }
    (kind, port.mac, port.is_optional)
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
        kind: kind(source, raw, place.clone())?,
        tagging: tagging(source, raw, place)?,
        addresses,
        mtu: source.optional("port.mtu", &raw.mtu, |size| mtu(size, v6))?,
        mac: source.optional("port.mac", &raw.mac, |mac| value::mac(mac))?,
        is_host: raw.host.as_ref().is_some_and(|host| *host.get_ref()),
        is_optional: raw.optional.as_ref().is_some_and(|optional| *optional.get_ref()),
    })
}

/// Returns the port's VLAN and its marks.
fn tagging(source: &Source<'_>, raw: &file::Port, place: Range<usize>) -> ConfigResult<Option<Tagging>> {
    let vlan = source.optional("port.vlan", &raw.vlan, |numbers| value::vlan(&numbers.0))?;
    let priority = source.optional("port.pcp", &raw.pcp, value::priority)?;
    let sets_dscp = raw.dscp.as_ref().map(|dscp| *dscp.get_ref() == PortDscp::Pcp);
    let key = if priority.is_some() { "pcp" } else { "dscp" };
    if vlan.is_none() && (priority.is_some() || sets_dscp.is_some()) {
        return Err(source.error("port", Some(place), Rule::Needs("vlan", key.into())));
    }
    Ok(vlan.map(|vlan| Tagging {
        vlan,
        priority: priority.unwrap_or(Priority::Fixed(0)),
        sets_dscp: sets_dscp.unwrap_or(false),
    }))
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
    if kind == Kind::Sink {
        pointless("port.vlan", raw.vlan.as_ref().map(Spanned::span))?;
    }
    if !matches!(kind, Kind::Pcap | Kind::Generator) {
        pointless("port.input", raw.input.as_ref().map(Spanned::span))?;
    }
    if matches!(kind, Kind::Auto | Kind::AfXdp | Kind::AfPacket) {
        pointless("port.mac", raw.mac.as_ref().map(Spanned::span))?;
    } else {
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
