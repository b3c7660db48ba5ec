//! Whether an SA and policy let in an inner packet (RFC 4301 §5.2).

use super::{
    io::Io,
    policy::{Action, Decision, Rule},
    policy_fragments::shows_ports,
    rings::Event,
    tables::Tables,
};
use std::sync::atomic::Ordering::Relaxed;
use wayfarer_dataplane::{
    drop::DropReason,
    sa::{Flow, InboundSa, Mode, Selector},
    table::Reader,
    wire::{icmp, ip::IpHeader},
};

/// Returns the selector of `sa` that lets in `packet`, which begins with `inner`, and the flow by which it
/// does.
///
/// # Errors
/// The reason why it must be dropped.
#[inline(always)]
pub(super) fn admit<'r>(
    inner: &IpHeader,
    packet: &[u8],
    sa: &'r InboundSa,
    tables: &Tables,
    reader: &Reader,
) -> Result<(&'r Selector, Flow), DropReason> {
    let flow = Flow::of(inner, packet);
    let (admitted, flow) = if flow.is_icmp() {
        match admit_icmp(flow, inner, packet, sa, tables, reader) {
            Ok(admitted) => admitted,
            Err(reason) => return Err(refuse(sa, reason)),
        }
    } else {
        match sa.selector_of(&flow) {
            Some(selector) => (selector, flow),
            None => return Err(refuse(sa, DropReason::InnerSelector)),
        }
    };
    if tables.settings.discards {
        permits_source(&flow, sa, admitted, tables, reader)?;
    }
    Ok((admitted, flow))
}

/// Counts a packet of `length` bytes against the limits of `sa`, if it has any.
///
/// # Errors
/// `SaExpired`.
#[inline(always)]
pub(super) fn charge(sa: &InboundSa, length: usize, io: &Io) -> Result<(), DropReason> {
    let tell = |due| io.tell(Event::Due { tunnel: sa.tunnel, inbound: true, due });
    if sa.life.is_limited() && !sa.life.charge(length, tell) {
        return Err(DropReason::SaExpired);
    }
    Ok(())
}

/// Checks that a fragment out of `sa`, which begins with `inner`, need not wait for others of its packet.
///
/// # Errors
/// `FragmentPorts` if it has to, or another reason why it must not pass at all.
#[cold]
#[inline(never)]
pub(super) fn may_come_alone(
    inner: &IpHeader,
    packet: &[u8],
    sa: &InboundSa,
    tables: &Tables,
    reader: &Reader,
) -> Result<(), DropReason> {
    if sa.mode == Mode::Transport {
        Err(DropReason::TransportFragment)
    } else if depends_on_ports(inner, sa, tables, reader) {
        Err(DropReason::FragmentPorts)
    } else {
        shows_ports(inner, packet)
    }
}

/// Returns whether only the first fragment of a packet out of `sa` shows if the SA and policy let it in
/// (RFC 4301 §7). The answer is the same for all fragments of the packet, one of which begins with `inner`.
fn depends_on_ports(inner: &IpHeader, sa: &InboundSa, tables: &Tables, reader: &Reader) -> bool {
    let later = Flow::of_later(inner);
    let back = later.reversed();
    let mut selectors = sa.selectors.iter();
    let Some(admits) = selectors.find(|one| one.covers(&back) || one.cannot_tell(&back)) else {
        return false;
    };
    let is_hidden = |flow| matches!(tables.decide(flow, reader), Decision::Hidden(_));
    admits.cannot_tell(&back) || is_hidden(&later) || (tables.settings.discards && is_hidden(&back))
}

/// Counts a packet that no selector of `sa` admits, for this reason.
#[cold]
fn refuse(sa: &InboundSa, reason: DropReason) -> DropReason {
    sa.refused.selector.fetch_add(1, Relaxed);
    reason
}

/// Returns the selector that admits an ICMP packet of `flow` out of `sa`, and the flow by which it
/// does. An error must quote a packet of the SA, and that is enough: its own source may be any router
/// (RFC 4301 §6.2). If its own addresses are not admitted, the flow is the one that it stands for. If
/// they are, it may be about another tunnel to the same peer, since the peer chooses the tunnel by
/// them.
///
/// # Errors
/// `InnerSelector` or `IcmpQuote`, or why policy refuses the source.
#[cold]
#[inline(never)]
fn admit_icmp<'r>(
    flow: Flow,
    inner: &IpHeader,
    packet: &[u8],
    sa: &'r InboundSa,
    tables: &Tables,
    reader: &Reader,
) -> Result<(&'r Selector, Flow), DropReason> {
    let own = sa.selector_of(&flow);
    if !icmp::is_error(inner, packet) {
        return own.map(|own| (own, flow)).ok_or(DropReason::InnerSelector);
    }
    let back = Flow::returned_by(inner, packet);
    let by_quote = back.and_then(|back| Some((back, sa.selector_of(&back)?)));
    match (own, by_quote) {
        (Some(own), Some(_)) => Ok((own, flow)),
        (Some(own), None) => {
            let there = back.map(|back| tables.decide(&back.reversed(), reader));
            match there {
                Some(Decision::Rule(Rule { action: Action::Protect(other), .. }))
                    if other.endpoint(reader).is_some_and(|to| sa.is_on(&to.path())) =>
                {
                    Ok((own, flow))
                }
                _ => Err(DropReason::IcmpQuote),
            }
        }
        // The sender of a packet in transport mode is the peer itself, to which the quoted packet went.
        (None, Some((back, by_quote))) if sa.mode == Mode::Tunnel || back.src == flow.src => {
            if tables.settings.discards {
                permits_source(&flow, sa, by_quote, tables, reader)?;
            }
            Ok((by_quote, back))
        }
        (None, _) => Err(DropReason::InnerSelector),
    }
}

/// Returns the rule that overrides the selector `admitted`, by which a packet that came out of `sa`
/// is for this side. There is one only if the operator's prefix for the packet's destination is
/// longer than the one that `admitted` stands for.
#[inline(always)]
pub(super) fn ruled<'r>(decision: Decision<'r>, sa: &InboundSa, admitted: &Selector) -> Decision<'r> {
    match decision.rule() {
        Some(rule) if rule.outranks(admitted.rank.local, Some(sa.tunnel)) => decision,
        _ => Decision::None,
    }
}

/// Returns the reason if policy refuses a packet that came out of `sa` and that its selector
/// `admitted`: the operator discards traffic to the packet's source, by a longer prefix than the
/// one that `admitted` was narrowed from.
#[inline(never)]
fn permits_source(
    flow: &Flow,
    sa: &InboundSa,
    admitted: &Selector,
    tables: &Tables,
    reader: &Reader,
) -> Result<(), DropReason> {
    let back = tables.decide(&flow.reversed(), reader);
    match back.rule() {
        Some(rule) if rule.outranks(admitted.rank.remote, Some(sa.tunnel)) => permits(back),
        _ => Ok(()),
    }
}

/// Returns the reason if the operator's policies refuse a packet from a tunnel.
pub(super) fn permits(decision: Decision<'_>) -> Result<(), DropReason> {
    match decision {
        Decision::Rule(Rule { action: Action::Discard, .. }) => Err(DropReason::Discard),
        Decision::Hidden(Rule { action: Action::Discard, .. }) => Err(DropReason::FragmentPorts),
        _ => Ok(()),
    }
}
