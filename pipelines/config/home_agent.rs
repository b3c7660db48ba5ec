//! Checks `[home_agent]`.

use super::{
    error::{ConfigResult, Rule},
    field::Unique,
    file, keys,
    model::{Config, HomeAgent, HomeTerminal},
    source::Source,
    value,
};
use std::{net::Ipv4Addr, path::PathBuf, time::Duration};
use toml::Spanned;
use wayfarer_dataplane::table::Prefix;
use wayfarer_mobility::mip::{
    agent::ReverseTunnel,
    association::{Algorithm, Replay},
    wire::{Encapsulation, LIFETIME_INFINITE},
};

/// Where bindings are by default.
const STORE: &str = "/var/lib/wayfarer/bindings";
/// The longest lifetime of a binding by default: half an hour.
const LIFETIME: u16 = 1800;
/// How far a timestamp may be from our clock by default (RFC 5944 §5.7.1).
const WINDOW: Duration = Duration::from_secs(7);
/// Length below which a secret is called short.
const ADVISED: usize = 16;
/// SPIs below this are reserved (RFC 5944 §1.6).
const FIRST_SPI: u32 = 256;

/// Checks the home agent, if there is one.
pub(super) fn home_agent(
    source: &Source<'_>,
    raw: Option<&file::HomeAgent>,
    config: &Config,
) -> ConfigResult<Option<HomeAgent>> {
    let Some(raw) = raw else { return Ok(None) };
    let address = source.value("home_agent.address", &raw.address, |text| {
        let address = ipv4(text)?;
        let ours = config.ports.iter().any(|port| port.addresses.iter().any(|(own, _)| *own == address));
        if ours { Ok(address) } else { Err(Rule::NotOurs) }
    })?;
    let network = source.value("home_agent.network", &raw.network, |text| {
        let network = value::prefix(text)?;
        if network.is_ipv4() { Ok(network) } else { Err(Rule::MobileIpv4) }
    })?;
    let lifetime = source.optional("home_agent.lifetime", &raw.lifetime, |text| match &text[..] {
        "none" => Ok(LIFETIME_INFINITE),
        text => {
            let seconds = value::duration(text)?.as_secs();
            let most = u64::from(LIFETIME_INFINITE) - 1;
            if (1..=most).contains(&seconds) { Ok(seconds as u16) } else { Err(Rule::BindingLifetime) }
        }
    })?;
    let encapsulations = raw.encapsulations.iter().map(|one| match one {
        file::Encapsulation::Ipip => Encapsulation::IpInIp,
        file::Encapsulation::Gre => Encapsulation::Gre,
        file::Encapsulation::Minimal => Encapsulation::Minimal,
    });
    let store = source.optional("home_agent.store", &raw.store, |path| match &path[..] {
        "none" => Ok(None),
        path => source.path(path).map(Some),
    })?;
    Ok(Some(HomeAgent {
        address,
        network,
        store: store.unwrap_or_else(|| Some(PathBuf::from(STORE))),
        lifetime: lifetime.unwrap_or(LIFETIME),
        reverse_tunnel: match raw.reverse_tunnel {
            Some(file::ReverseTunnel::Refused) => ReverseTunnel::Refused,
            Some(file::ReverseTunnel::Required) => ReverseTunnel::Required,
            Some(file::ReverseTunnel::Allowed) | None => ReverseTunnel::Allowed,
        },
        encapsulations: encapsulations.collect(),
        terminals: terminals(source, &raw.terminal, address, network)?,
    }))
}

fn terminals(
    source: &Source<'_>,
    raw: &[Spanned<file::HomeTerminal>],
    agent: Ipv4Addr,
    network: Prefix,
) -> ConfigResult<Vec<HomeTerminal>> {
    let (mut homes, mut names) = (Unique::new(), Unique::new());
    let mut all = Vec::with_capacity(raw.len());
    for raw in raw {
        let raw = raw.get_ref();
        let home = source.value("home_agent.terminal.home", &raw.home, |text| {
            let home = ipv4(text)?;
            homes.add(source, home, raw.home.span())?;
            match home {
                home if home == agent => Err(Rule::Own),
                home if !network.contains(std::net::IpAddr::from(home)) => Err(Rule::NotHome),
                home => Ok(home),
            }
        })?;
        let nai = source.optional("home_agent.terminal.nai", &raw.nai, |nai| {
            let place = raw.nai.as_ref().map(Spanned::span).unwrap_or_default();
            names.add(source, nai.clone(), place)?;
            if (1..=255).contains(&nai.len()) { Ok(nai.clone()) } else { Err(Rule::Nai) }
        })?;
        let spi = source
            .value("home_agent.terminal.spi", &raw.spi, |spi| value::integer(*spi, FIRST_SPI..=u32::MAX))?;
        let load = |path: &String| keys::secret(&source.path(path)?, ADVISED);
        let secret = source.value("home_agent.terminal.secret_file", &raw.secret_file, load)?;
        let window = source.optional("home_agent.terminal.window", &raw.window, |text| match raw.replay {
            Some(file::Replay::Nonces) => Err(Rule::Pointless("replay = \"nonces\"".into())),
            _ => value::duration(text),
        })?;
        all.push(HomeTerminal {
            home,
            nai,
            spi,
            algorithm: match raw.algorithm {
                Some(file::Authenticator::HmacMd5) => Algorithm::HmacMd5,
                Some(file::Authenticator::HmacSha256) | None => Algorithm::HmacSha256,
            },
            secret,
            replay: match raw.replay {
                Some(file::Replay::Nonces) => Replay::Nonces,
                Some(file::Replay::Timestamps) | None => Replay::Timestamps(window.unwrap_or(WINDOW)),
            },
        });
    }
    Ok(all)
}

fn ipv4(text: &str) -> Result<Ipv4Addr, Rule> {
    match value::address(text)? {
        std::net::IpAddr::V4(address) => Ok(address),
        std::net::IpAddr::V6(_) => Err(Rule::MobileIpv4),
    }
}
