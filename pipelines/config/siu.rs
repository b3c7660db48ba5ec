//! Checks `[[siu]]` and the links that follow home agents.

use super::{
    error::{ConfigResult, Rule},
    field::Unique,
    file, keys,
    model::{Config, Home, Roam, Siu},
    source::Source,
    value,
};
use std::net::IpAddr;
use toml::Spanned;
use wayfarer_dataplane::wire::esp;
use wayfarer_mobility::mip::siu::{SharedKey, UDP_PORT};

/// Length below which a secret is called short: that of the hash (RFC 2104 §3).
const ADVISED: usize = 32;

/// Returns the UDP port that receives updates, which is none of those that receive ESP or IKE.
pub(super) fn port(source: &Source<'_>, raw: &file::Gateway, encap_ports: &[u16]) -> ConfigResult<u16> {
    let is_taken = |port| port == esp::IKE_PORT || encap_ports.contains(&port);
    let port = source.optional("gateway.siu_port", &raw.siu_port, |port| {
        let port = value::integer(*port, 1..=u16::MAX)?;
        if is_taken(port) { Err(Rule::TakenUdpPort) } else { Ok(port) }
    })?;
    match port {
        None if is_taken(UDP_PORT) => {
            let needs = Rule::Needs("siu_port", format!("UDP port {UDP_PORT} in encap_ports").into());
            Err(source.error("gateway", raw.encap_ports.as_ref().map(Spanned::span), needs))
        }
        port => Ok(port.unwrap_or(UDP_PORT)),
    }
}

/// Checks all home agents.
pub(super) fn home_agents(
    source: &Source<'_>,
    raw: &[Spanned<file::Siu>],
    config: &Config,
) -> ConfigResult<Vec<Siu>> {
    let (mut names, mut addresses, mut numbers) = (Unique::new(), Unique::new(), Unique::new());
    let mut all = Vec::with_capacity(raw.len());
    let ours = |own| config.ports.iter().any(|port| port.addresses.iter().any(|(a, _)| *a == own));
    for raw in raw {
        let raw = raw.get_ref();
        let (place, named) = (raw.address.span(), raw.name.span());
        let name = source.value("siu.name", &raw.name, |text| {
            names.add(source, text.clone(), named)?;
            value::name(text)
        })?;
        let address = source.value("siu.address", &raw.address, |text| {
            let address = value::address(text)?;
            addresses.add(source, address, place)?;
            if ours(address) { Err(Rule::Own) } else { Ok(address) }
        })?;
        let number = source.value("siu.key", &raw.key, |number| {
            let number = value::integer(*number, 0..=u32::MAX)?;
            numbers.add(source, number, raw.key.span()).map(|()| number)
        })?;
        let load = |path: &String| keys::secret(&source.path(path)?, ADVISED);
        let secret = source.value("siu.secret_file", &raw.secret_file, load)?;
        all.push(Siu { name, address, key: SharedKey { number, secret } });
    }
    Ok(all)
}

/// Returns which home agent says where the peer of a tunnel is, and for which home address; `None` if none
/// does.
pub(super) fn home(
    source: &Source<'_>,
    raw: &file::Tunnel,
    roam: Roam,
    config: &Config,
) -> ConfigResult<Option<Home>> {
    let follows = roam == Roam::HomeAgent;
    let pointless = Rule::Pointless("roam other than \"home_agent\"".into());
    let named = source.optional("tunnel.siu", &raw.siu, |name| match follows {
        true => config.siu.iter().find(|one| one.name == *name).ok_or(Rule::UnknownHomeAgent),
        false => Err(pointless.clone()),
    })?;
    // Without a name it is the gateway's own.
    let own = config.home_agent.as_ref().map(|own| own.address.into());
    let agent = named.map(|named| named.address).or(own);
    let address = source.optional("tunnel.home", &raw.home, |text| match follows {
        true => value::address(text),
        false => Err(pointless.clone()),
    })?;
    match (&raw.roam, agent, address) {
        (Some(_), Some(agent), Some(address)) => Ok(Some(Home { agent, address })),
        (Some(roam), agent, _) if follows => {
            let missing = if agent.is_none() { "siu" } else { "home" };
            let because = "roam = \"home_agent\"".into();
            Err(source.error("tunnel", Some(roam.span()), Rule::Needs(missing, because)))
        }
        _ => Ok(None),
    }
}

/// Checks that no other tunnel has the home address of this one. `homes` has those of the tunnels before it.
pub(super) fn check_home_is_free(
    source: &Source<'_>,
    raw: &file::Tunnel,
    home: Option<Home>,
    homes: &mut Unique<IpAddr>,
) -> ConfigResult<()> {
    let Some((home, written)) = home.zip(raw.home.as_ref()) else { return Ok(()) };
    source.value("tunnel.home", written, |_| homes.add(source, home.address, written.span()))
}
