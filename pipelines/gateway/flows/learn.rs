//! Asks the tables for the treatment of a flow as the whole way does, and remembers it if it is one for
//! the short way.

use super::{
    super::{
        outbound::treat_forwardable,
        policy::{Action, Rules},
        tables::{Hop, Tables},
    },
    entry::{Exit, InboundEntry, InnerEntry, InnerExit, OutboundEntry},
    key::{InboundKey, InnerKey, OutboundKey, V6Destination, V6Ends},
    memory::{Memory, Missed},
    ways::Entry,
};
use wayfarer_dataplane::{
    sa::{Flow, InboundSa, OutboundSa},
    table::{Reader, Remembered, Stamp},
    wire::dhcp,
};

/// Learns the flows that were not known.
#[cold]
#[inline(never)]
pub(super) fn learn(memory: &mut Memory, tables: &Tables, reader: &mut Reader) {
    for (hash, missed) in memory.take_missed() {
        // Nothing is learnt if the tables change between here and the answer. Since the turn began they may
        // well have.
        reader.quiescent();
        let reader = &*reader;
        let may = memory.worth.may_take();
        let found = match missed {
            Missed::Outbound(key, ends) => {
                let ask = || outbound(key, &ends, tables, reader);
                memory.outbound.learn(hash, (key, ends), may, reader, ask)
            }
            Missed::Inbound(key, dst) => {
                let ask = || inbound(key, &dst, tables, reader);
                memory.inbound.learn(hash, (key, dst), may, reader, ask)
            }
            Missed::Inner(key) => {
                memory.inner.learn(hash, (key, ()), may, reader, || inner(key, tables, reader))
            }
        };
        found.into_iter().for_each(|found| memory.worth.learn(found));
    }
}

/// Returns what is to be remembered of a flow from this side, whose addresses are `ends` if it is IPv6.
fn outbound(key: OutboundKey, ends: &V6Ends, tables: &Tables, reader: &Reader) -> Option<OutboundEntry> {
    let flow = key.flow(ends);
    let policies = &tables.policies;
    let ([src, short], [dst, _]) = (reader.parts_of(flow.src), reader.parts_of(flow.dst));
    let Some(sa) = protected(&flow, key.port(), tables, reader) else {
        let parts = [src, dst, short, short, short];
        return Some(OutboundEntry { key, sa: Remembered::nothing(parts, reader)?, exit: Exit::NONE });
    };
    let endpoint = sa.endpoint(reader);
    let exit = endpoint.map_or(Exit::NONE, |to| Exit::of_sealed(sa, to, flow.dst, tables, reader));
    let [to, _] = endpoint.map_or([short; 2], |to| reader.parts_of(to.remote()));
    let parts = [src, dst, sa.part(), to, short];
    let sa = policies.remember(flow.dst, parts, reader, |rules| protecting(rules, &flow, sa))?;
    Some(OutboundEntry { key, sa, exit })
}

/// Returns the SA that protects a flow which comes by `port`, if its packets may take the short way.
fn protected<'r>(flow: &Flow, port: u16, tables: &'r Tables, reader: &'r Reader) -> Option<&'r OutboundSa> {
    let is_here = matches!(tables.routes.find(flow.dst, reader), Some(Hop::Local | Hop::Host));
    let is_forwardable = flow.src.is_routable() && flow.dst.is_routable();
    if is_here
        || !is_forwardable
        || tables.may_be_away(flow.dst)
        || tables.may_be_away(flow.src)
        || flow.ports.is_some_and(dhcp::are_ports)
    {
        return None;
    }
    let wire = (!tables.is_host_port(port)).then_some(port);
    let sa = treat_forwardable(flow, wire, tables, reader).ok()??;
    (sa.tfc() == 0).then_some(sa)
}

/// Returns `sa` by the rule of these that protects `flow` with it.
fn protecting<'v>(rules: &'v Rules, flow: &Flow, sa: &OutboundSa) -> Option<&'v OutboundSa> {
    match &rules.find(flow)?.rule()?.action {
        Action::Protect(own) if std::ptr::eq(&**own, sa) => Some(own),
        _ => None,
    }
}

/// Returns what is to be remembered of the ESP packets of an SA, whose destination is `v6` if they are IPv6.
/// Those from the host's own stack take the whole way.
fn inbound(key: InboundKey, v6: &V6Destination, tables: &Tables, reader: &Reader) -> Option<InboundEntry> {
    let (dst, spi) = (key.dst(v6), key.spi());
    let [a, b] = reader.parts_of(dst);
    let parts = [tables.inbound.part(tables.inbound.bucket(&spi)), a, b];
    let is_here = matches!(tables.routes.find(dst, reader), Some(Hop::Local));
    let may_arrive = is_here && !tables.is_host_port(key.port());
    let is_plain = |sa: &InboundSa| may_arrive && sa.pin.is_none() && sa.is_at(dst);
    let sa = match tables.inbound.get(&spi, reader) {
        Some(sa) if is_plain(sa) => tables.inbound.remember(&spi, parts, reader, |sa| Some(&**sa))?,
        _ => Remembered::nothing(parts, reader)?,
    };
    Some(InboundEntry { key, sa, ..InboundEntry::NONE })
}

/// Returns what is to be remembered of a destination of packets out of SAs. They take the whole way if a
/// rule of policy may be for it, or for their sources.
fn inner(key: InnerKey, tables: &Tables, reader: &Reader) -> Option<InnerEntry> {
    let dst = key.0;
    let parts = reader.parts_of(dst);
    let has_nat = |exit: &Exit| tables.settings.ports[usize::from(exit.port)].has_nat;
    let is_ruled = tables.settings.discards || tables.policies.find(dst, reader).is_some();
    let exit = match tables.routes.find(dst, reader) {
        _ if is_ruled || tables.nat.has_address(dst) || tables.may_be_away(dst) => None,
        // Some of them may be messages and tunnels of Mobile IP, which are not the host's.
        Some(Hop::Local | Hop::Host) if tables.settings.has_mobility() => None,
        Some(Hop::Local | Hop::Host) => tables.settings.host.is_some().then_some(InnerExit::Host),
        hop => Exit::of(hop).filter(|exit| dst.is_routable() && !has_nat(exit)).map(InnerExit::Station),
    };
    Some(InnerEntry { key, stamp: Stamp::new(parts, reader)?, exit })
}
