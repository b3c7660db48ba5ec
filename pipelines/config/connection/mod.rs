//! Checks `[ike]`, `[[pool]]` and `[[connection]]`.

mod accounting;
mod child;
mod coa;
mod pool;
mod proof;
mod raw;
mod remote;
mod shared;

use super::{
    algorithms::{self, Use},
    error::{ConfigError, ConfigResult, Rule, nearest},
    field::{Unique, mtu, path_probing},
    file::{self, IkeEncap, Key, List, Method, Scalar},
    model::{Config, Connection, Ike, KEY_LOG_WARNING, PeerMethod, PoolRange, PortKind},
    source::Source,
    value,
};
use proof::Proofs;
use raw::RawConnection;
use std::{net::IpAddr, time::Duration};
use toml::Spanned;
use wayfarer_dataplane::sa::Limits;
use wayfarer_mobility::{
    ike::{
        connection::{self, Lifetimes, Ppk, Remote},
        proposal::Offer,
    },
    roaming::Policy,
};

/// Default size of the anti-replay windows, in sequence numbers.
const WINDOW: u32 = 1024;

/// Default size of the largest IP packet of an IKE message, in bytes (RFC 7383 §2.5.1).
const FRAGMENT: usize = 1280;

/// Default lifetimes.
const LIFETIMES: Lifetimes = Lifetimes {
    ike_sa: Duration::from_secs(8 * 3600),
    child: Duration::from_secs(3600),
    grace: Duration::from_secs(300),
    authentication: None,
};

/// Shortest time for which an authentication may count: a peer that learns of less might authenticate
/// again at once and for ever.
const MIN_AUTHENTICATION: Duration = Duration::from_secs(3600);

/// Default time without packets from a peer after which a liveness check starts.
const LIVENESS: Duration = Duration::from_secs(30);

/// PPK_ID_FIXED (RFC 8784 §5.1).
const FIXED_PPK: u8 = 2;

/// Shortest post-quantum key without a warning, in bytes (RFC 8784 §4).
const ADVISED_PPK: usize = 32;

/// Checks `[ike]`, `[[pool]]` and `[[connection]]`.
pub(super) fn ike(source: &Source<'_>, file: &file::File, config: &Config) -> ConfigResult<Ike> {
    let defaults = Ike::default();
    let raw = &file.ike;
    let many = |n: &i64, first| Ok(value::integer::<u32>(*n, first..=1 << 24)? as usize);
    let key_log = source.optional("ike.key_log", &raw.key_log, |path| source.path(path))?;
    if let Some(folder) = &key_log {
        tracing::warn!(folder = %folder.display(), "{KEY_LOG_WARNING}");
    }
    let pools = pool::pools(source, &file.pool, config)?;
    let mut connections = connections(source, &file.connection, config, &pools)?;
    let coa = coa::coa(source, &file.coa, &mut connections)?;
    if !connections.is_empty() {
        let natt = |ports: &Vec<i64>| match ports.contains(&value::NAT_T.into()) {
            true => Ok(()),
            false => Err(Rule::NatTraversal),
        };
        source.optional("gateway.encap_ports", &file.gateway.encap_ports, natt)?;
    }
    Ok(Ike {
        connections,
        pools,
        coa,
        key_log,
        crash_secret_file: source
            .optional("ike.crash_secret_file", &raw.crash_secret_file, |path| source.path(path))?,
        cookie_threshold: source
            .optional("ike.cookie_threshold", &raw.cookie_threshold, |n| many(n, 0))?
            .unwrap_or(defaults.cookie_threshold),
        half_open: source
            .optional("ike.half_open", &raw.half_open, |n| many(n, 1))?
            .unwrap_or(defaults.half_open),
        half_open_time: source
            .optional("ike.half_open_time", &raw.half_open_time, |text| value::duration(text))?
            .unwrap_or(defaults.half_open_time),
        peers: source.optional("ike.peers", &raw.peers, |n| many(n, 1))?.unwrap_or(defaults.peers),
        devices: source.optional("ike.devices", &raw.devices, |n| many(n, 1))?.unwrap_or(defaults.devices),
        children: source
            .optional("ike.children", &raw.children, |n| many(n, 1))?
            .unwrap_or(defaults.children),
    })
}

fn connections(
    source: &Source<'_>,
    raw: &[Spanned<file::Connection>],
    config: &Config,
    pools: &[PoolRange],
) -> ConfigResult<Vec<Connection>> {
    let mut names = Unique::new();
    let mut shared = shared::EarlierProofs::new();
    let mut connections = Vec::with_capacity(raw.len());
    for raw in raw {
        let place = raw.span();
        let raw = raw.get_ref();
        source
            .value("connection.name", &raw.name, |name| names.add(source, name.clone(), raw.name.span()))?;
        let raw = RawConnection { source, raw, place };
        let mut connection = raw.check(config, pools)?;
        raw.share(&mut connection.protocol, &mut shared)?;
        connections.push(connection);
    }
    Ok(connections)
}

impl RawConnection<'_> {
    fn check(&self, config: &Config, pools: &[PoolRange]) -> ConfigResult<Connection> {
        let Self { source, raw, .. } = self;
        let name = source.value("connection.name", &raw.name, |name| value::name(name))?;
        let remote = self.remote(config)?;
        let local = self.local(config, &remote)?;
        let ask_address = source
            .optional("connection.request_address", &raw.request_address, |&ask| {
                match ask && remote.is_empty() {
                    true => Err(Rule::FixedRemote("request_address")),
                    false => Ok(ask),
                }
            })?
            .unwrap_or(false);
        let Proofs { local_id, other_local_ids, remote_id, local_auth, remote_auth } =
            self.proofs(&remote, &local)?;
        self.check_named(&remote, &remote_id)?;
        let v6 = local.iter().any(IpAddr::is_ipv6);
        Ok(Connection {
            window: source
                .optional("connection.window", &raw.window, |n| value::integer(*n, 64..=65536))?
                .unwrap_or(WINDOW),
            mtu: source.optional("connection.mtu", &raw.mtu, |size| mtu(size, v6))?,
            outer_fragments: raw.outer_fragments.unwrap_or(false),
            limits: self.limits()?,
            peer_method: match self.methods(&remote)?.remote {
                Method::Psk => PeerMethod::SharedKey,
                Method::Certificate => PeerMethod::Certificate,
                Method::EapMschapv2 => PeerMethod::Password,
                Method::EapTls => PeerMethod::EapTls,
                Method::EapRadius => PeerMethod::Radius,
            },
            certificate: source
                .optional("connection.certificate", &raw.certificate, |text| source.path(text))?,
            legacy_signatures: self.allows_sha1(),
            nas_identifier: self.nas_identifier()?,
            servers: match raw.radius.is_empty() {
                true => vec![],
                false => self.radius()?.iter().map(|server| server.address.ip()).collect(),
            },
            accounting: self.accounting()?,
            protocol: connection::Connection {
                children: self.children(&name, ask_address)?,
                name,
                remote,
                local,
                local_id,
                other_local_ids,
                remote_id,
                local_auth,
                remote_auth,
                ike: self.offers("connection.proposals", &raw.proposals, Use::Ike)?,
                esp: self.offers("connection.esp", &raw.esp, Use::Esp)?,
                pools: self.pools(pools)?,
                ask_address,
                dns: self.list("connection.dns", &raw.dns, value::address)?,
                domains: self.list("connection.domains", &raw.domains, value::domain)?,
                lifetimes: self.lifetimes()?,
                liveness: source
                    .optional("connection.liveness", &raw.liveness, |text| or_none(text, value::duration))?
                    .unwrap_or(Some(LIVENESS)),
                mobike: raw.mobike.unwrap_or(true),
                roam: source
                    .optional("connection.roam", &raw.roam, |roam| match roam.0 {
                        Policy::HomeAgent => Err(Rule::IkeHomeAgent),
                        policy => Ok(policy),
                    })?
                    .unwrap_or(Policy::Follow),
                no_nats: !raw.allow_nat.unwrap_or(true),
                force_udp: raw.encap.as_ref().is_some_and(|encap| *encap.get_ref() == IkeEncap::Udp),
                fragment: source
                    .optional("connection.fragment", &raw.fragment, |size| match size {
                        Scalar::Text(text) if text == "none" => Ok(None),
                        size => mtu(size, v6).map(Some),
                    })?
                    .unwrap_or(Some(FRAGMENT)),
                path_probing: path_probing(raw.path_mtu_probing),
                ppk: self.ppk()?,
                unique: raw.unique.unwrap_or(true),
            },
        })
    }

    /// Returns the gateway's addresses that a peer may use. The default is all but the host's.
    fn local(&self, config: &Config, remote: &[Remote]) -> ConfigResult<Vec<IpAddr>> {
        let all = || config.ports.iter().flat_map(|port| port.addresses.iter().map(|(own, _)| *own));
        let named = self.source.optional("connection.local", &self.raw.local, |list| {
            let own = |text: &String| match value::address(text)? {
                own if all().any(|a| a == own) => Ok(own),
                _ => Err(Rule::NotOurs),
            };
            let list: Vec<IpAddr> = list.0.iter().map(own).collect::<Result<_, _>>()?;
            let may_reach = |end: &Remote| match end {
                Remote::At(peer) => list.iter().any(|own| own.is_ipv4() == peer.is_ipv4()),
                Remote::Named(..) => true,
            };
            match remote {
                _ if list.is_empty() => Err(Rule::Empty),
                remote if !remote.iter().all(may_reach) => Err(Rule::Family),
                _ => Ok(list),
            }
        })?;
        if let Some(named) = named {
            return Ok(named);
        }
        let ports = config.ports.iter().filter(|p| !p.is_host && !matches!(p.kind, PortKind::Tap { .. }));
        let local: Vec<IpAddr> = ports.flat_map(|port| port.addresses.iter().map(|(own, _)| *own)).collect();
        match local.is_empty() {
            true => Err(self.missing("local", "a gateway whose ports have no addresses")),
            false => Ok(local),
        }
    }

    fn offers(&self, key: &str, list: &Key<List>, usage: Use) -> ConfigResult<Vec<Offer>> {
        let Some(list) = list else { return Ok(algorithms::defaults(usage)) };
        algorithms::offers(&list.get_ref().0, usage).map_err(|(rule, hint)| ConfigError {
            hint: hint.map(Into::into),
            ..self.source.bad(key, list.span(), rule)
        })
    }

    /// Returns the indices of the pools named.
    fn pools(&self, pools: &[PoolRange]) -> ConfigResult<Vec<usize>> {
        let Some(list) = &self.raw.pool else { return Ok(vec![]) };
        let index = |name: &String| {
            pools.iter().position(|pool| pool.name == *name).ok_or_else(|| ConfigError {
                hint: nearest(name, pools.iter().map(|pool| &pool.name[..])).map(Into::into),
                ..self.source.bad("connection.pool", list.span(), Rule::UnknownPool)
            })
        };
        list.get_ref().0.iter().map(index).collect()
    }

    fn list<T>(
        &self,
        key: &str,
        list: &Key<List>,
        check: fn(&str) -> Result<T, Rule>,
    ) -> ConfigResult<Vec<T>> {
        let all = |list: &List| list.0.iter().map(|text| check(text)).collect();
        Ok(self.source.optional(key, list, all)?.unwrap_or_default())
    }

    fn lifetimes(&self) -> ConfigResult<Lifetimes> {
        let raw = &self.raw.lifetime;
        let time = |key, text: &Key<String>| self.source.optional(key, text, |text| value::duration(text));
        Ok(Lifetimes {
            ike_sa: time("connection.lifetime.ike", &raw.ike)?.unwrap_or(LIFETIMES.ike_sa),
            child: time("connection.lifetime.child", &raw.child)?.unwrap_or(LIFETIMES.child),
            authentication: self.source.optional(
                "connection.lifetime.authentication",
                &raw.authentication,
                |text| match value::duration(text)? {
                    time if time < MIN_AUTHENTICATION => Err(Rule::Shortest("1h")),
                    time => Ok(time),
                },
            )?,
            ..LIFETIMES
        })
    }

    /// Returns the soft limits, and hard limits that are a quarter higher. A soft limit starts a
    /// rekey, and a hard limit ends the SA.
    fn limits(&self) -> ConfigResult<Limits> {
        let raw = &self.raw.lifetime;
        let bytes =
            |size: &Scalar| value::size(size).and_then(|n| if n > 0 { Ok(n) } else { Err(Rule::Size) });
        let packets = self.source.optional("connection.lifetime.packets", &raw.packets, value::count)?;
        let bytes = self.source.optional("connection.lifetime.bytes", &raw.bytes, bytes)?;
        let pair = |soft: Option<u64>| soft.map_or((u64::MAX, u64::MAX), |n| (n, n.saturating_add(n / 4)));
        let ((soft_packets, hard_packets), (soft_bytes, hard_bytes)) = (pair(packets), pair(bytes));
        Ok(Limits { soft_packets, hard_packets, soft_bytes, hard_bytes })
    }

    fn ppk(&self) -> ConfigResult<Option<Ppk>> {
        let Some(raw) = &self.raw.ppk else { return Ok(None) };
        let id = self.source.value("connection.ppk.id", &raw.id, |id| value::name(id))?;
        let secret = self.secret("connection.ppk.file", &raw.file, ADVISED_PPK)?;
        let id = [&[FIXED_PPK], id.as_bytes()].concat();
        Ok(Some(Ppk { id, secret, required: raw.required }))
    }
}

/// Converts a text by `check`; `"none"` becomes `None`.
fn or_none<T>(text: &str, check: fn(&str) -> Result<T, Rule>) -> Result<Option<T>, Rule> {
    if text == "none" { Ok(None) } else { check(text).map(Some) }
}
