//! Checks `[[neighbour]]`.

use super::{
    error::{ConfigResult, Rule},
    field::{Unique, port_towards},
    file,
    model::{Neighbour, Port, PortKind},
    source::Source,
    value,
};
use toml::Spanned;

/// Checks all static neighbours.
pub(super) fn neighbours(
    source: &Source<'_>,
    raw: &[Spanned<file::Neighbour>],
    ports: &[Port],
) -> ConfigResult<Vec<Neighbour>> {
    let mut known = Unique::new();
    let mut neighbours = vec![];
    for raw in raw {
        let raw = raw.get_ref();
        let neighbour = neighbour(source, raw, ports)?;
        let key = (neighbour.port, neighbour.address);
        source.value("neighbour.address", &raw.address, |_| known.add(source, key, raw.address.span()))?;
        neighbours.push(neighbour);
    }
    Ok(neighbours)
}

fn neighbour(source: &Source<'_>, raw: &file::Neighbour, ports: &[Port]) -> ConfigResult<Neighbour> {
    let named = source.optional("neighbour.port", &raw.port, |name| {
        ports.iter().position(|port| port.name == *name).ok_or(Rule::UnknownPort)
    })?;
    let (address, port) = source.value("neighbour.address", &raw.address, |text| {
        let address = value::address(text)?;
        if ports.iter().any(|port| port.addresses.iter().any(|(own, _)| *own == address)) {
            return Err(Rule::Own);
        }
        let port = port_towards(address, named, ports).ok_or(Rule::OffSubnet)?;
        match only_station(&ports[port].kind) {
            Some(kind) => Err(Rule::Pointless(format!("a port of kind = \"{kind}\"").into())),
            None => Ok((address, port)),
        }
    })?;
    let mac = source.value("neighbour.mac", &raw.mac, |text| value::mac(text))?;
    Ok(Neighbour { port, address, mac })
}

/// Returns the word for a kind of port that has only one station, whatever its address: the host, or what
/// reads a file.
fn only_station(kind: &PortKind) -> Option<&'static str> {
    match kind {
        PortKind::Tap { .. } => Some("tap"),
        PortKind::Pcap { .. } => Some("pcap"),
        PortKind::Generator { .. } => Some("generator"),
        PortKind::Sink => Some("sink"),
        PortKind::Auto { .. }
        | PortKind::AfXdp { .. }
        | PortKind::AfPacket { .. }
        | PortKind::Dpdk { .. } => None,
    }
}
