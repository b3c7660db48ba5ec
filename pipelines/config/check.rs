//! Checks `[gateway]`, routes and policies, and puts the whole model together.

use super::{
    connection, dpdk,
    error::{ConfigError, ConfigResult, Rule},
    field::{Unique, cores, numbers, pairs, port_towards, ports_of, prefixes},
    file::{self, RouteSource, Scalar},
    home_agent,
    model::{Config, Gateway, Ike, Policy, PolicyAction, Port, PortKind, Route},
    nat, neighbour, port, siu,
    source::Source,
    tunnel, value,
};
use std::{net::IpAddr, path::PathBuf};
use toml::Spanned;
use wayfarer_dataplane::{
    pool::HEADROOM,
    port::classifier::MAX_PORTS,
    sa::Selector,
    table::Prefix,
    wire::{ethernet, ip::V6_MIN_MTU},
};

/// Most cores of a machine.
const CORES: usize = 1024;

/// Least length of a frame, in bytes: every link of IPv6 carries packets of 1280 bytes (RFC 8200 §5), here
/// in two VLANs.
const SHORTEST_FRAME: usize = (HEADROOM + ethernet::HEADER + 8 + V6_MIN_MTU).next_multiple_of(64);

/// Checks the whole file.
pub(super) fn config(source: &Source<'_>, file: &file::File) -> ConfigResult<Config> {
    let mut config = Config {
        gateway: gateway(source, &file.gateway)?,
        ports: port::ports(source, &file.port)?,
        dpdk: None,
        routes: vec![],
        neighbours: vec![],
        nats: vec![],
        home_agent: None,
        siu: vec![],
        tunnels: vec![],
        policies: vec![],
        ike: Ike::default(),
    };
    config.dpdk = dpdk::options(source, file, &config)?;
    let cores = config.dpdk.as_ref().map(|dpdk| dpdk.cores.clone()).filter(|cores| !cores.is_empty());
    config.gateway.workers = config.gateway.workers.or(cores);
    one_worker_for_files(source, file, &config)?;
    config.routes = routes(source, &file.route, &config.ports)?;
    config.neighbours = neighbour::neighbours(source, &file.neighbour, &config.ports)?;
    let raw_agent = file.home_agent.as_ref().map(Spanned::get_ref);
    config.home_agent = home_agent::home_agent(source, raw_agent, &config)?;
    config.siu = siu::home_agents(source, &file.siu, &config)?;
    config.nats = nat::nats(source, &file.nat, &config)?;
    config.tunnels = tunnel::tunnels(source, &file.tunnel, &config)?;
    config.gateway.tunnels = config.gateway.tunnels.max(config.tunnels.len());
    config.gateway.flow_cache = flow_cache(source, &file.gateway, config.gateway.tunnels)?;
    for policy in &file.policy {
        config.policies.extend(policies(source, policy)?);
    }
    config.ike = connection::ike(source, file, &config)?;
    Ok(config)
}

/// Refuses several workers with a file port, which has one queue and so can serve one worker only.
fn one_worker_for_files(source: &Source<'_>, raw: &file::File, config: &Config) -> ConfigResult<()> {
    let is_file = |port: &&Port| matches!(port.kind, PortKind::Pcap { .. } | PortKind::Generator { .. });
    let Some(file) = config.ports.iter().find(is_file) else { return Ok(()) };
    let check = |cores: &Vec<i64>| match cores.len() {
        0 | 1 => Ok(()),
        _ => Err(Rule::OneWorker(file.name.as_str().into())),
    };
    source.optional("gateway.workers", &raw.gateway.workers, check)?;
    let dpdk = raw.dpdk.as_ref().map(|dpdk| &dpdk.get_ref().cores);
    dpdk.map_or(Ok(None), |cores| source.optional("dpdk.cores", cores, check)).map(|_| ())
}

fn gateway(source: &Source<'_>, raw: &file::Gateway) -> ConfigResult<Gateway> {
    let control = |path: &String| match &path[..] {
        "none" => Ok(None),
        path => source.path(path).map(Some),
    };
    let idle = |text: &String| match &text[..] {
        "poll" => Ok(None),
        time => value::duration(time).map(Some),
    };
    let size = |size: &Scalar| {
        let size = value::size_within(size, SHORTEST_FRAME..=65472)?;
        if size.is_multiple_of(64) { Ok(size) } else { Err(Rule::Multiple(64)) }
    };
    let many = |n: &i64, range| Ok(value::integer::<u32>(*n, range)? as usize);
    let encap_ports = source
        .optional("gateway.encap_ports", &raw.encap_ports, |list| match numbers(list, 1u16..=u16::MAX)? {
            list if list.len() > MAX_PORTS => Err(Rule::TooLong(MAX_PORTS)),
            list => Ok(list),
        })?
        .unwrap_or_else(|| vec![value::NAT_T]);
    Ok(Gateway {
        workers: source.optional("gateway.workers", &raw.workers, |list| cores(list, CORES))?,
        control: source
            .optional("gateway.control", &raw.control, control)?
            .unwrap_or_else(|| Some(PathBuf::from(crate::control::SOCKET))),
        idle_sleep: source.optional("gateway.idle", &raw.idle, idle)?.flatten(),
        siu_port: siu::port(source, raw, &encap_ports)?,
        encap_ports,
        kernel_routes: raw.routes.as_ref().is_some_and(|routes| *routes.get_ref() == RouteSource::Kernel),
        mss_clamp: raw.mss_clamp.unwrap_or(true),
        frames: source.optional("gateway.frames", &raw.frames, |n| many(n, 256..=1 << 24))?.unwrap_or(16_384),
        frame_size: source.optional("gateway.frame_size", &raw.frame_size, size)?,
        tunnels: source.optional("gateway.tunnels", &raw.tunnels, |n| many(n, 1..=1 << 24))?.unwrap_or(1024),
        flow_cache: 0,
    })
}

/// Returns the number of flows that each worker remembers.
fn flow_cache(source: &Source<'_>, raw: &file::Gateway, tunnels: usize) -> ConfigResult<usize> {
    let entries = source.optional("gateway.flow_cache", &raw.flow_cache, |n| {
        Ok(value::integer::<u32>(*n, 0..=1 << 24)? as usize)
    })?;
    Ok(entries.map_or_else(|| Gateway::default_flow_cache(tunnels), Gateway::flow_cache_of))
}

fn routes(source: &Source<'_>, raw: &[Spanned<file::Route>], ports: &[Port]) -> ConfigResult<Vec<Route>> {
    let mut destinations = Unique::new();
    let mut routes = vec![];
    for raw in raw {
        let route = route(source, raw, ports)?;
        let to = &raw.get_ref().to;
        source.value("route.to", to, |_| destinations.add(source, route.to, to.span()))?;
        routes.push(route);
    }
    Ok(routes)
}

fn route(source: &Source<'_>, raw: &Spanned<file::Route>, ports: &[Port]) -> ConfigResult<Route> {
    let place = raw.span();
    let raw = raw.get_ref();
    let to = prefix(source, "route.to", &raw.to)?;
    let named = source.optional("route.port", &raw.port, |name| {
        ports.iter().position(|port| port.name == *name).ok_or(Rule::UnknownPort)
    })?;
    let via = source.optional("route.via", &raw.via, |text| {
        let via = value::address(text)?;
        if via.is_ipv4() != to.is_ipv4() {
            return Err(Rule::Family);
        }
        if ports.iter().any(|port| port.addresses.iter().any(|(own, _)| *own == via)) {
            return Err(Rule::Own);
        }
        Ok((via, port_towards(via, named, ports).ok_or(Rule::OffSubnet)?))
    })?;
    let needs = || source.error("route", Some(place), Rule::Needs("via", "a route without \"port\"".into()));
    let port = via.map(|(_, port)| port).or(named).ok_or_else(needs)?;
    Ok(Route { to, via: via.map(|(via, _)| via), port })
}

/// Parses a prefix. An error about host bits suggests the prefix without them.
fn prefix(source: &Source<'_>, key: &str, raw: &Spanned<String>) -> ConfigResult<Prefix> {
    source.value(key, raw, |text| value::prefix(text)).map_err(|error| {
        let meant = (error.rule == Rule::HostBits).then(|| value::without_host_bits(raw.get_ref())).flatten();
        ConfigError { hint: meant.map(|prefix| prefix.to_string().into()), ..error }
    })
}

/// Checks one `[[policy]]`. Returns two policies for every pair of prefixes, one for each
/// direction, because rules are found by a packet's destination. `ports` are those of `remote`.
fn policies(source: &Source<'_>, raw: &Spanned<file::Policy>) -> ConfigResult<Vec<Policy>> {
    let place = raw.span();
    let raw = raw.get_ref();
    let everything = || [IpAddr::from([0u8; 4]), IpAddr::from([0u8; 16])].map(|a| Prefix::new(a, 0));
    let anywhere = || everything().into_iter().flatten().collect::<Vec<_>>();
    let local = source.optional("policy.local", &raw.local, prefixes)?.unwrap_or_else(anywhere);
    let remote = source.optional("policy.remote", &raw.remote, prefixes)?.unwrap_or_else(anywhere);
    let protocol = source.optional("policy.protocol", &raw.protocol, value::protocol)?;
    let ports = ports_of(source, "policy.ports", &raw.ports, protocol)?;
    let action = match raw.action {
        file::Action::Bypass => PolicyAction::Bypass,
        file::Action::Discard => PolicyAction::Discard,
    };
    let pairs = pairs("local and remote", &local, &remote)
        .map_err(|rule| source.error("policy", Some(place), rule))?;
    let both = |(local, remote)| {
        let there = Selector { protocol, remote_ports: ports, ..Selector::configured(local, remote) };
        let back = Selector { protocol, local_ports: ports, ..Selector::configured(remote, local) };
        let same = there == back;
        let policy = |selector| Policy { selector, action };
        std::iter::once(policy(there)).chain((!same).then(|| policy(back)))
    };
    Ok(pairs.into_iter().flat_map(both).collect())
}
