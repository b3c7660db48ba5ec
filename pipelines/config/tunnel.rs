//! Checks `[[tunnel]]`.

use super::{
    error::{ConfigError, ConfigResult, Rule},
    field::{Unique, mtu, pairs, path_probing, ports_of, prefixes},
    file::{self, Key, Scalar},
    keys,
    model::{Config, Encapsulation, Remote, Roam, Sa, Tunnel},
    siu,
    source::Source,
    value,
};
use std::{ops::Range, time::Duration};
use toml::Spanned;
use wayfarer_dataplane::{
    sa::{Df, Limits, Mode, Selector, Spi},
    table::Prefix,
};
use zeroize::Zeroizing;

/// Numbers in an anti-replay window by default.
const WINDOW: u32 = 1024;

pub(super) fn tunnels(
    source: &Source<'_>,
    raw: &[Spanned<file::Tunnel>],
    config: &Config,
) -> ConfigResult<Vec<Tunnel>> {
    let (mut names, mut spis, mut homes) = (Unique::new(), Unique::new(), Unique::new());
    let mut tunnels = Vec::with_capacity(raw.len());
    for raw in raw {
        let tunnel = RawTunnel { source, raw: raw.get_ref(), place: raw.span() }.check(config)?;
        let raw = raw.get_ref();
        source.value("tunnel.name", &raw.name, |name| names.add(source, name.clone(), raw.name.span()))?;
        siu::check_home_is_free(source, raw, tunnel.home, &mut homes)?;
        let spi = &raw.inbound.spi;
        source.value("tunnel.inbound.spi", spi, |_| spis.add(source, tunnel.inbound.spi, spi.span()))?;
        tunnels.push(tunnel);
    }
    Ok(tunnels)
}

/// A tunnel of the file.
struct RawTunnel<'a> {
    source: &'a Source<'a>,
    raw: &'a file::Tunnel,
    place: Range<usize>,
}

impl RawTunnel<'_> {
    fn check(&self, config: &Config) -> ConfigResult<Tunnel> {
        let Self { source, raw, .. } = self;
        let ours = |own| config.ports.iter().any(|port| port.addresses.iter().any(|(a, _)| *a == own));
        let local = source.value("tunnel.local", &raw.local, |text| {
            let local = value::address(text)?;
            if ours(local) { Ok(local) } else { Err(Rule::NotOurs) }
        })?;
        let (remote, with_port) = source.value("tunnel.remote", &raw.remote, |text| {
            let (remote, with_port) = value::remote(text)?;
            match remote {
                Remote::At(address, _) if address.is_ipv4() != local.is_ipv4() => Err(Rule::Family),
                Remote::At(address, _) if ours(address) => Err(Rule::Own),
                _ => Ok((remote, with_port)),
            }
        })?;
        let mode = match raw.mode.as_ref().map(Spanned::get_ref) {
            Some(file::Mode::Transport) => Mode::Transport,
            Some(file::Mode::Tunnel) | None => Mode::Tunnel,
        };
        let roam = raw.roam.as_ref().map_or(Roam::Follow, |roam| roam.get_ref().0);
        if let (Roam::HomeAgent, Mode::Transport, Some(written)) = (roam, mode, &raw.roam) {
            let rule = Rule::Pointless("mode = \"transport\"".into());
            return Err(source.bad("tunnel.roam", written.span(), rule));
        }
        if let (Roam::HomeAgent, Remote::At(..)) = (roam, remote) {
            return Err(source.bad("tunnel.remote", raw.remote.span(), Rule::AnyRemote));
        }
        let outer_fragments = raw.outer_fragments.unwrap_or(false);
        let window = |n: &i64| value::integer(*n, 64..=65536);
        Ok(Tunnel {
            name: source.value("tunnel.name", &raw.name, |name| value::name(name))?,
            mode,
            local,
            remote,
            encap: self.encap(with_port, &config.gateway.encap_ports)?,
            selectors: self.selectors(mode, Prefix::host(local), remote)?,
            roam,
            home: siu::home(source, raw, roam, config)?,
            pin_source: source
                .optional("tunnel.pin_source", &raw.pin_source, |&pin| match remote {
                    _ if pin && roam == Roam::HomeAgent => {
                        Err(Rule::Pointless("roam = \"home_agent\"".into()))
                    }
                    Remote::Any if pin => Err(Rule::FixedRemote("pin_source")),
                    _ => Ok(pin),
                })?
                .unwrap_or(false),
            window: source.optional("tunnel.window", &raw.window, window)?.unwrap_or(WINDOW),
            esn: raw.esn.unwrap_or(false),
            dscp: source.optional("tunnel.dscp", &raw.dscp, value::dscp)?.flatten(),
            df: match raw.df.as_ref().map(Spanned::get_ref) {
                None => Df::default_for(outer_fragments),
                Some(file::Df::Copy) => Df::Copy,
                Some(file::Df::Set) => Df::Set,
                Some(file::Df::Clear) => Df::Clear,
            },
            tfc: source
                .optional("tunnel.tfc", &raw.tfc, |size| value::size_within(size, 0..=65472))?
                .unwrap_or(0),
            mtu: source.optional("tunnel.mtu", &raw.mtu, |size| mtu(size, local.is_ipv6()))?,
            outer_fragments,
            path_probing: path_probing(raw.path_mtu_probing),
            udp6_checksum: raw.udp6_checksum.unwrap_or(true),
            keepalive: source.optional("tunnel.keepalive", &raw.keepalive, |text| value::duration(text))?,
            limits: self.limits()?,
            soft_time: self.soft_time()?,
            hard_time: self.hard_time()?,
            inbound: self.sa("tunnel.inbound", &raw.inbound)?,
            outbound: self.sa("tunnel.outbound", &raw.outbound)?,
        })
    }

    /// Returns the encapsulation: UDP if `encap` says so, or if there is no `encap` and the peer
    /// has a port.
    fn encap(&self, with_port: bool, encap_ports: &[u16]) -> ConfigResult<Encapsulation> {
        let Self { source, raw, .. } = self;
        let encap = raw.encap.as_ref().map(Spanned::get_ref);
        let udp = match encap {
            Some(file::Encap::Udp) => true,
            Some(file::Encap::None) => false,
            None => with_port,
        };
        let pointless = || Rule::Pointless("encap = \"none\"".into());
        if !udp && with_port {
            return Err(source.bad("tunnel.remote", raw.remote.span(), pointless()));
        }
        let taken = |port: &i64| match value::integer(*port, 1..=u16::MAX)? {
            _ if !udp => Err(pointless()),
            port if !encap_ports.contains(&port) => Err(Rule::NotEncapPort),
            port => Ok(port),
        };
        match source.optional("tunnel.local_port", &raw.local_port, taken)? {
            Some(port) => Ok(Encapsulation::Udp(port)),
            None if !udp => Ok(Encapsulation::None),
            None if encap_ports.contains(&value::NAT_T) => Ok(Encapsulation::Udp(value::NAT_T)),
            None => Err(self.missing("local_port", "gateway.encap_ports without 4500")),
        }
    }

    fn missing(&self, key: &'static str, because: &str) -> ConfigError {
        self.source.error("tunnel", Some(self.place.clone()), Rule::Needs(key, because.into()))
    }

    fn selectors(&self, mode: Mode, local: Prefix, remote: Remote) -> ConfigResult<Vec<Selector>> {
        let Self { source, raw, .. } = self;
        let pairs = match (mode, remote) {
            (Mode::Transport, remote) => {
                let pointless = |_: &_| Err::<(), _>(Rule::Pointless("mode = \"transport\"".into()));
                source.optional("tunnel.inner_local", &raw.inner_local, pointless)?;
                source.optional("tunnel.inner_remote", &raw.inner_remote, pointless)?;
                for (key, place) in [
                    ("tunnel.dscp", raw.dscp.as_ref().map(Spanned::span)),
                    ("tunnel.df", raw.df.as_ref().map(Spanned::span)),
                    ("tunnel.tfc", raw.tfc.as_ref().map(Spanned::span)),
                ] {
                    if let Some(place) = place {
                        return Err(source.bad(key, place, Rule::Pointless("mode = \"transport\"".into())));
                    }
                }
                let Remote::At(remote, _) = remote else {
                    let rule = Rule::FixedRemote("mode = \"transport\"");
                    return Err(source.bad("tunnel.remote", raw.remote.span(), rule));
                };
                vec![(local, Prefix::host(remote))]
            }
            (Mode::Tunnel, _) => {
                let inner = |key, list: &Key<_>, name| {
                    source.optional(key, list, prefixes)?.ok_or_else(|| self.missing(name, "tunnel mode"))
                };
                let local = inner("tunnel.inner_local", &raw.inner_local, "inner_local")?;
                let remote = inner("tunnel.inner_remote", &raw.inner_remote, "inner_remote")?;
                pairs("inner_local and inner_remote", &local, &remote)
                    .map_err(|rule| source.error("tunnel", Some(self.place.clone()), rule))?
            }
        };
        let protocol = source.optional("tunnel.protocol", &raw.protocol, value::protocol)?;
        let local_ports = ports_of(source, "tunnel.local_ports", &raw.local_ports, protocol)?;
        let remote_ports = ports_of(source, "tunnel.remote_ports", &raw.remote_ports, protocol)?;
        let selector = |(local, remote)| Selector {
            protocol,
            local_ports,
            remote_ports,
            ..Selector::configured(local, remote)
        };
        Ok(pairs.into_iter().map(selector).collect())
    }

    fn limits(&self) -> ConfigResult<Limits> {
        let raw = &self.raw.lifetime;
        let pair = |keys: [&str; 2], soft: &Key<Scalar>, hard: &Key<Scalar>, check: fn(&Scalar) -> _| {
            let hard = self.source.optional(keys[1], hard, check)?.unwrap_or(u64::MAX);
            let soft = self.source.optional(keys[0], soft, |soft| below(check(soft)?, &hard))?;
            Ok((soft.unwrap_or(u64::MAX), hard))
        };
        let keys = ["tunnel.lifetime.soft_packets", "tunnel.lifetime.hard_packets"];
        let (soft_packets, hard_packets) = pair(keys, &raw.soft_packets, &raw.hard_packets, value::count)?;
        let keys = ["tunnel.lifetime.soft_bytes", "tunnel.lifetime.hard_bytes"];
        let bytes =
            |size: &Scalar| value::size(size).and_then(|n| if n > 0 { Ok(n) } else { Err(Rule::Size) });
        let (soft_bytes, hard_bytes) = pair(keys, &raw.soft_bytes, &raw.hard_bytes, bytes)?;
        Ok(Limits { soft_packets, hard_packets, soft_bytes, hard_bytes })
    }

    fn soft_time(&self) -> ConfigResult<Option<Duration>> {
        let hard = self.hard_time()?.unwrap_or(Duration::MAX);
        let soft = |text: &String| below(value::duration(text)?, &hard);
        self.source.optional("tunnel.lifetime.soft_time", &self.raw.lifetime.soft_time, soft)
    }

    fn hard_time(&self) -> ConfigResult<Option<Duration>> {
        let hard = &self.raw.lifetime.hard_time;
        self.source.optional("tunnel.lifetime.hard_time", hard, |text| value::duration(text))
    }

    fn sa(&self, name: &str, raw: &file::Sa) -> ConfigResult<Sa> {
        let source = self.source;
        let spi = |spi: &i64| match u32::try_from(*spi) {
            Ok(spi @ 0x100..) => Ok(Spi(spi)),
            _ => Err(Rule::ReservedSpi),
        };
        let spi = source.value(&format!("{name}.spi"), &raw.spi, spi)?;
        let cipher = value::cipher(raw.cipher.get_ref()).map_err(|(rule, hint)| ConfigError {
            hint: hint.map(Into::into),
            ..source.bad(&format!("{name}.cipher"), raw.cipher.span(), rule)
        })?;
        let load = |path: &String| keys::load(&source.path(path)?, cipher);
        let key: Zeroizing<Vec<u8>> = source.value(&format!("{name}.key_file"), &raw.key_file, load)?;
        let last = if self.raw.esn.unwrap_or(false) { u64::MAX / 2 } else { u64::from(u32::MAX) };
        let sequence =
            source.optional(&format!("{name}.sequence"), &raw.sequence, |n| value::integer(*n, 0..=last))?;
        Ok(Sa { spi, cipher, key, sequence: sequence.unwrap_or(0) })
    }
}

/// Returns a soft limit, which must not be above the hard limit.
fn below<T: PartialOrd>(soft: T, hard: &T) -> Result<T, Rule> {
    if soft <= *hard { Ok(soft) } else { Err(Rule::SoftAboveHard) }
}
