//! Tunnels that get in each other's way.

use super::review::Review;
use std::collections::{HashMap, hash_map::Entry};
use toml::Spanned;
use wayfarer_dataplane::{
    sa::{PortRange, Selector},
    table::Prefix,
};

/// Most enclosing selectors that one is compared with.
const COMPARED: usize = 64;

/// Warns of a key that several SAs have. With AES-GCM, two packets under one key and IV reveal both
/// (RFC 4106 §3.1).
pub(super) fn same_keys(review: &mut Review<'_>) {
    let mut seen = HashMap::new();
    let all = review.raw.tunnel.iter().zip(&review.config.tunnels);
    let all = all.flat_map(|(raw, tunnel)| {
        let raw = raw.get_ref();
        [
            ("tunnel.inbound.key_file", &raw.inbound.key_file, &tunnel.inbound.key),
            ("tunnel.outbound.key_file", &raw.outbound.key_file, &tunnel.outbound.key),
        ]
    });
    for (key, file, secret) in all {
        match seen.entry(secret.as_slice()) {
            Entry::Vacant(slot) => drop(slot.insert(file.span())),
            Entry::Occupied(first) => {
                let line = review.source.line(first.get());
                review.warn(
                    key,
                    file.span(),
                    format!("the SA of line {line} has the same key: give each SA a key of its own"),
                );
            }
        }
    }
}

/// Warns of two tunnels for the same packets. At most one warning for each tunnel.
pub(super) fn overlaps(review: &mut Review<'_>) {
    let (raw, config) = (review.raw, review.config);
    let selectors = config.tunnels.iter().enumerate();
    let mut all: Vec<(usize, &Selector)> =
        selectors.flat_map(|(index, tunnel)| tunnel.selectors.iter().map(move |s| (index, s))).collect();
    // Prefixes are disjoint or one is inside the other. In this order, those around a prefix are
    // the ones that it finds open.
    all.sort_by_key(|(index, s)| (s.remote.is_ipv4(), s.remote.address(), s.remote.length(), *index));
    let mut open: Vec<(usize, &Selector)> = vec![];
    let mut warned = None;
    for (index, selector) in all {
        while open.last().is_some_and(|(_, outer)| !is_within(selector.remote, outer.remote)) {
            open.pop();
        }
        let same = |(other, outer): &&(usize, &Selector)| *other != index && meet(selector, outer);
        let found = open.iter().rev().take(COMPARED).find(same);
        if let Some((other, outer)) = found.filter(|_| warned != Some(index)) {
            warned = Some(index);
            let name = &config.tunnels[*other].name;
            let line = review.source.line(&raw.tunnel[*other].get_ref().name.span());
            let text = match (selector.remote, selector.local) == (outer.remote, outer.local) {
                true => format!(
                    "tunnel {name:?} of line {line} is for the same packets, and gets none or all of them: \
                     give each tunnel prefixes of its own"
                ),
                false => format!(
                    "overlaps tunnel {name:?} of line {line}: the longer prefix gets the packets that both are \
                     for; narrow one of them if that is not meant"
                ),
            };
            let this = raw.tunnel[index].get_ref();
            let place = this.inner_remote.as_ref().map_or_else(|| this.name.span(), Spanned::span);
            review.warn("tunnel.inner_remote", place, text);
        }
        open.push((index, selector));
    }
}

fn is_within(inner: Prefix, outer: Prefix) -> bool {
    inner.is_ipv4() == outer.is_ipv4() && inner.length() >= outer.length() && outer.contains(inner.address())
}

/// Returns whether there are packets that both selectors are for, if one's remote prefix is within
/// the other's.
fn meet(a: &Selector, b: &Selector) -> bool {
    let ports = |a: PortRange, b: PortRange| a.first <= b.last && b.first <= a.last;
    (is_within(a.local, b.local) || is_within(b.local, a.local))
        && (a.protocol.is_none() || b.protocol.is_none() || a.protocol == b.protocol)
        && ports(a.local_ports, b.local_ports)
        && ports(a.remote_ports, b.remote_ports)
}
