//! Asks the tables for the treatment of a flow as the whole way does, and remembers it if it is one for
//! the short way.

use super::{
    super::{
        outbound::treat_from_wire,
        policy::{Action, Rules},
        tables::{Hop, Tables},
    },
    entry::{Exit, InboundEntry, InboundKey, InnerEntry, InnerKey, OutboundEntry, OutboundKey},
    memory::{Memory, Missed},
    ways::Entry,
};
use wayfarer_dataplane::{
    sa::{Flow, InboundSa, Mode, OutboundSa},
    table::{Reader, Remembered, Stamp},
    wire::{Address, dhcp},
};

/// Learns the flows that were not known.
#[cold]
#[inline(never)]
pub(super) fn learn(memory: &mut Memory, tables: &Tables, reader: &Reader) {
    for (hash, missed) in memory.take_missed() {
        match missed {
            Missed::Outbound(key) => {
                let renew = |entry: &mut OutboundEntry| entry.renew(tables, reader);
                memory.outbound.learn(hash, key, reader, renew, || outbound(key, tables, reader));
            }
            Missed::Inbound(key) => {
                let renew = |entry: &mut InboundEntry| entry.sa.renew(reader);
                memory.inbound.learn(hash, key, reader, renew, || inbound(key, tables, reader));
            }
            Missed::Inner(key) => {
                let renew = |entry: &mut InnerEntry| entry.stamp.renew(reader);
                memory.inner.learn(hash, key, reader, renew, || inner(key, tables, reader));
            }
        }
    }
}

/// Returns what is to be remembered of a flow from this side.
fn outbound(key: OutboundKey, tables: &Tables, reader: &Reader) -> Option<OutboundEntry> {
    let flow = key.flow();
    let Tables { policies, routes, .. } = tables;
    let ([a, short], [b, _]) = (policies.parts(flow.src), policies.parts(flow.dst));
    let ([c, short_routes], [d, _]) = (routes.parts(flow.src), routes.parts(flow.dst));
    let parts = [a, b, short, c, d, short_routes];
    let Some(sa) = protected(&flow, key.port(), tables, reader) else {
        return Some(OutboundEntry { key, sa: Remembered::nothing(parts, reader)?, exit: Exit::NONE });
    };
    let exit = sa.endpoint(reader).map_or(Exit::NONE, |to| Exit::to(to, tables, reader));
    let sa = policies.remember(flow.dst, parts, reader, |rules| protecting(rules, &flow, sa))?;
    Some(OutboundEntry { key, sa, exit })
}

/// Returns the SA that protects a flow, if its packets may take the short way.
fn protected<'r>(flow: &Flow, port: u16, tables: &'r Tables, reader: &'r Reader) -> Option<&'r OutboundSa> {
    let is_here = matches!(tables.routes.find(flow.dst, reader), Some(Hop::Local | Hop::Host));
    let is_forwardable = flow.src.is_routable() && flow.dst.is_routable();
    if is_here || !is_forwardable || flow.ports.is_some_and(dhcp::are_ports) {
        return None;
    }
    let sa = treat_from_wire(flow, port, tables, reader).ok()??;
    (sa.mode == Mode::Tunnel && sa.tfc() == 0).then_some(sa)
}

/// Returns `sa` by the rule of these that protects `flow` with it.
fn protecting<'v>(rules: &'v Rules, flow: &Flow, sa: &OutboundSa) -> Option<&'v OutboundSa> {
    match &rules.find(flow)?.rule()?.action {
        Action::Protect(own) if std::ptr::eq(&**own, sa) => Some(own),
        _ => None,
    }
}

/// Returns what is to be remembered of the ESP packets of an SA.
fn inbound(key: InboundKey, tables: &Tables, reader: &Reader) -> Option<InboundEntry> {
    let (dst, spi) = (key.dst(), key.spi());
    let [a, b] = tables.routes.parts(dst);
    let parts = [tables.inbound.part(tables.inbound.bucket(&spi)), a, b];
    let is_here = matches!(tables.routes.find(dst, reader), Some(Hop::Local));
    let is_plain = |sa: &InboundSa| is_here && sa.mode == Mode::Tunnel && sa.pin.is_none() && sa.is_at(dst);
    let sa = match tables.inbound.get(&spi, reader) {
        Some(sa) if is_plain(sa) => tables.inbound.remember(&spi, parts, reader, |sa| Some(&**sa))?,
        _ => Remembered::nothing(parts, reader)?,
    };
    Some(InboundEntry { key, sa, ..InboundEntry::NONE })
}

/// Returns what is to be remembered of a destination of packets out of tunnels. They take the whole way if
/// a rule of policy may be for it, or for their sources.
fn inner(key: InnerKey, tables: &Tables, reader: &Reader) -> Option<InnerEntry> {
    let dst = Address::v4(key.0);
    let ([a, b], [c, d]) = (tables.policies.parts(dst), tables.routes.parts(dst));
    let is_ruled = tables.settings.discards || tables.policies.find(dst, reader).is_some();
    let exit = Exit::of(tables.routes.find(dst, reader)).filter(|exit| {
        let has_nat = tables.settings.ports[usize::from(exit.port)].has_nat;
        !is_ruled && !has_nat && dst.is_routable()
    });
    Some(InnerEntry { key, stamp: Stamp::new([a, b, c, d], reader)?, exit })
}
