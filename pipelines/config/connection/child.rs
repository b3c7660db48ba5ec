//! Checks the child SAs of a connection.

use super::raw::RawConnection;
use crate::config::{
    error::{ConfigResult, Rule},
    field::{Unique, prefixes},
    file::{Key, List, Mode},
    value,
};
use std::ops::Range;
use toml::Spanned;
use wayfarer_dataplane::table::Prefix;
use wayfarer_mobility::ike::{
    bounds,
    connection::ChildPolicy,
    selector::{cost, cost_within_bounds, everything},
    wire::TrafficSelector,
};

/// The keys of one child SA, from `[[connection]]` or `[[connection.child]]`.
struct RawChild<'a> {
    table: &'static str,
    place: Range<usize>,
    local: &'a Key<List>,
    remote: &'a Key<List>,
    mode: &'a Key<Mode>,
}

impl RawConnection<'_> {
    /// Returns the children: first the one in the connection's own keys, if it has such keys or no
    /// other children.
    pub(super) fn children(&self, name: &str, ask_address: bool) -> ConfigResult<Vec<ChildPolicy>> {
        let Self { source, raw, place } = self;
        let mut names = Unique::new();
        let mut children = vec![];
        let own = raw.inner_local.is_some() || raw.inner_remote.is_some() || raw.mode.is_some();
        if own || raw.child.is_empty() {
            let child = RawChild {
                table: "connection",
                place: place.clone(),
                local: &raw.inner_local,
                remote: &raw.inner_remote,
                mode: &raw.mode,
            };
            source.value("connection.name", &raw.name, |_| {
                names.add(source, name.to_owned(), raw.name.span())
            })?;
            children.push(self.child(&child, name.to_owned(), ask_address)?);
        }
        for child in &raw.child {
            let place = child.span();
            let child = child.get_ref();
            let name = source.value("connection.child.name", &child.name, |name| {
                names.add(source, name.clone(), child.name.span())?;
                value::name(name)
            })?;
            let child = RawChild {
                table: "connection.child",
                place,
                local: &child.inner_local,
                remote: &child.inner_remote,
                mode: &child.mode,
            };
            children.push(self.child(&child, name, ask_address)?);
        }
        let broken = |rule| Err(source.error("connection", Some(place.clone()), rule));
        if children.len() > bounds::CHILDREN {
            return broken(Rule::Children(bounds::CHILDREN));
        }
        if children.iter().map(|child| cost(&child.local, &child.remote)).sum::<usize>() > bounds::RULES {
            return broken(Rule::AllPairs(bounds::RULES));
        }
        Ok(children)
    }

    fn child(&self, raw: &RawChild<'_>, name: String, ask_address: bool) -> ConfigResult<ChildPolicy> {
        let source = self.source;
        let transport = raw.mode.as_ref().is_some_and(|mode| *mode.get_ref() == Mode::Transport);
        let [local_key, remote_key] =
            ["inner_local", "inner_remote"].map(|key| format!("{}.{key}", raw.table));
        let side = |key: &str, list: &Key<List>| match list {
            Some(list) if transport => Err(source.bad(key, list.span(), pointless("mode = \"transport\""))),
            list => source.optional(key, list, selectors),
        };
        let local = match side(&local_key, raw.local)? {
            Some(_) if ask_address => {
                let place = raw.local.as_ref().map_or(0..0, Spanned::span);
                return Err(source.bad(&local_key, place, pointless("request_address = true")));
            }
            None if !ask_address && !transport => {
                let because = "tunnel mode without request_address".into();
                let rule = Rule::Needs("inner_local", because);
                return Err(source.error(raw.table, Some(raw.place.clone()), rule));
            }
            local => local.unwrap_or_default(),
        };
        let remote = match side(&remote_key, raw.remote)? {
            // A client that requests an address may reach everything with it.
            None if ask_address && !transport => vec![everything(true), everything(false)],
            remote => remote.unwrap_or_default(),
        };
        if cost_within_bounds(&local, &remote).is_err() {
            let rule = Rule::TooMany(bounds::CHILD_RULES);
            return Err(source.error(raw.table, Some(raw.place.clone()), rule));
        }
        Ok(ChildPolicy { name, local, remote, transport })
    }
}

fn pointless(because: &str) -> Rule {
    Rule::Pointless(because.into())
}

fn selectors(list: &List) -> Result<Vec<TrafficSelector>, Rule> {
    let prefixes = prefixes(list)?;
    if prefixes.len() > bounds::SELECTORS {
        return Err(Rule::TooLong(bounds::SELECTORS));
    }
    let selector = |prefix: Prefix| {
        let (first, last) = value::ends(prefix);
        TrafficSelector::range(first, last)
    };
    Ok(prefixes.into_iter().map(selector).collect())
}
