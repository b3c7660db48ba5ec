//! Checks `[coa]`.

use super::raw::ADVISED_PSK;
use crate::config::{
    error::{ConfigResult, Rule},
    field::Unique,
    file::{self, Key, List},
    keys,
    model::{Coa, CoaClient, Connection, PeerMethod},
    source::Source,
    value,
};
use std::net::{IpAddr, SocketAddr};
use toml::Spanned;
use wayfarer_mobility::ike::connection::SharedKey;

/// Checks `[coa]`, and notes in the connections which clients may send requests about their peers.
pub(super) fn coa(
    source: &Source<'_>,
    raw: &Key<file::Coa>,
    all: &mut [Connection],
) -> ConfigResult<Option<Coa>> {
    let Some(raw) = raw else { return Ok(None) };
    let raw = raw.get_ref();
    // All of the host's addresses are allowed here too, unlike for a server.
    let socket = |text: &String| text.parse::<SocketAddr>().ok().filter(|socket| socket.port() > 0);
    let listen = source.value("coa.listen", &raw.listen, |text| socket(text).ok_or(Rule::Server))?;
    source.value(
        "coa.clients",
        &raw.clients,
        |all| if all.is_empty() { Err(Rule::Empty) } else { Ok(()) },
    )?;
    let client = |raw: &file::CoaClient| {
        let address = source.value("coa.clients.address", &raw.address, |text| value::address(text))?;
        let load = |path: &String| keys::secret(&source.path(path)?, ADVISED_PSK);
        let secret = source.value("coa.clients.secret_file", &raw.secret_file, load)?;
        Ok(CoaClient { address, secret: SharedKey(secret) })
    };
    let clients = raw.clients.get_ref().iter().map(client).collect::<ConfigResult<Vec<_>>>()?;
    let mut addresses = Unique::new();
    for (client, raw) in clients.iter().zip(raw.clients.get_ref()) {
        let add = |_: &String| addresses.add(source, client.address, raw.address.span());
        source.value("coa.clients.address", &raw.address, add)?;
        if let Some(list) = &raw.connections {
            assign(source, client.address, list, all)?;
        }
    }
    Ok(Some(Coa { listen, clients, needs_time: raw.require_event_timestamp }))
}

/// Gives a client a say about the peers of the connections that it lists, and of no others.
fn assign(
    source: &Source<'_>,
    client: IpAddr,
    list: &Spanned<List>,
    all: &mut [Connection],
) -> ConfigResult<()> {
    let bad = |rule| source.bad("coa.clients.connections", list.span(), rule);
    if list.get_ref().0.is_empty() {
        return Err(bad(Rule::Empty));
    }
    all.iter_mut().for_each(|connection| connection.servers.retain(|server| *server != client));
    for name in &list.get_ref().0 {
        let mut known = all.iter_mut().filter(|connection| connection.peer_method == PeerMethod::Radius);
        match known.find(|connection| connection.protocol.name == *name) {
            Some(connection) => connection.servers.push(client),
            None => return Err(bad(Rule::UnknownConnection)),
        }
    }
    Ok(())
}
