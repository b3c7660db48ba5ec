//! Identities that the operator has barred for a time.

use crate::{crypto::Crypto, identity::Identity};
use alloc::{collections::BTreeSet, vec::Vec};
use core::{fmt, time::Duration};

/// Most identities that are barred at a time.
pub const MAX_BARS: usize = 1024;

/// A hash of a name in the canonical form, which takes little memory however long the name is.
pub(super) type NameHash = [u8; 20];

/// Returns the hash of a name.
pub(super) fn hash(crypto: &dyn Crypto, name: &Identity) -> NameHash {
    let Identity { kind, data } = name.canonical();
    crypto.sha1(&[&[kind], &data])
}

/// A barred identity.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    /// The identity as the peer had it.
    pub(super) identity: Identity,
    /// All names of the peer.
    pub(super) names: BTreeSet<NameHash>,
    /// When the bar ends.
    pub(super) until: Duration,
    /// The number of the connection that we make to this identity alone, if there is one.
    pub(super) dialled: Option<usize>,
}

/// The barred identities.
#[derive(Debug, Default)]
pub(super) struct Bars(Vec<Bar>);

impl Bars {
    /// Returns the bars in force.
    pub(super) fn iter(&self, now: Duration) -> impl Iterator<Item = &Bar> {
        self.0.iter().filter(move |bar| bar.until > now)
    }

    /// Returns true if one of these names is barred.
    pub(super) fn has(&self, now: Duration, names: &BTreeSet<NameHash>) -> bool {
        self.iter(now).any(|bar| !bar.names.is_disjoint(names))
    }

    /// Returns until when the peer of the connection with this number, which we make, is barred.
    pub(super) fn until(&self, now: Duration, connection: usize) -> Option<Duration> {
        let of_it = self.iter(now).filter(|bar| bar.dialled == Some(connection));
        of_it.map(|bar| bar.until).max()
    }

    /// Adds a bar, which replaces an earlier one of the same identity.
    ///
    /// # Errors
    /// [`BarError::TooMany`].
    pub(super) fn insert(&mut self, now: Duration, bar: Bar) -> Result<(), BarError> {
        self.0.retain(|known| known.until > now && known.names != bar.names);
        if self.0.len() >= MAX_BARS {
            return Err(BarError::TooMany);
        }
        self.0.push(bar);
        Ok(())
    }

    /// Removes and returns the bars in force of the identities that `is_it` accepts.
    pub(super) fn lift(&mut self, now: Duration, is_it: impl Fn(&Identity) -> bool) -> Vec<Bar> {
        self.0.retain(|bar| bar.until > now);
        self.0.extract_if(.., |bar| is_it(&bar.identity)).collect()
    }
}

/// Why a peer cannot be barred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarError {
    /// It has not proved its identity yet.
    Unproved,
    /// It has no name of its own.
    Unnamed,
    /// [`MAX_BARS`] identities are barred.
    TooMany,
}

impl fmt::Display for BarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unproved => f.write_str("the peer has not proved its identity, so it cannot be barred"),
            Self::Unnamed => f.write_str("the peer has no name, so it cannot be barred"),
            Self::TooMany => write!(f, "{MAX_BARS} identities are barred: lift a bar first"),
        }
    }
}

impl core::error::Error for BarError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: usize, until: u64) -> Bar {
        let identity = Identity::from_name(alloc::format!("{name}.test").as_bytes());
        let mut hash = [0; 20];
        hash[..8].copy_from_slice(&name.to_be_bytes());
        let names = [hash].into();
        Bar { identity, names, until: Duration::from_secs(until), dialled: None }
    }

    #[test]
    fn bars_are_bounded_and_make_room_when_their_time_is_over() {
        let mut bars = Bars::default();
        let now = Duration::from_secs(1);
        (0..MAX_BARS).for_each(|name| bars.insert(now, bar(name, 10)).unwrap());
        assert_eq!(bars.insert(now, bar(MAX_BARS, 10)), Err(BarError::TooMany));
        assert!(!bars.has(now, &bar(MAX_BARS, 10).names));
        // A bar that is renewed takes no more room.
        bars.insert(now, bar(7, 20)).unwrap();
        assert_eq!(bars.iter(now).count(), MAX_BARS);
        let later = Duration::from_secs(10);
        bars.insert(later, bar(MAX_BARS, 30)).unwrap();
        assert!(bars.has(later, &bar(7, 20).names) && !bars.has(later, &bar(8, 10).names));
        assert_eq!(bars.iter(later).count(), 2);
    }
}
