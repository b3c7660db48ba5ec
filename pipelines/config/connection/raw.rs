//! A connection as the file has it, not yet checked.

use crate::{
    config::{
        error::{ConfigError, ConfigResult, Rule},
        file, keys,
        source::Source,
    },
    credentials::Revocation,
};
use std::ops::Range;
use toml::Spanned;
use wayfarer_mobility::ike::connection::SharedKey;

/// Shortest password or shared key without a warning, in bytes.
pub(super) const ADVISED_PSK: usize = 16;

/// A connection of the file, not yet checked.
pub(super) struct RawConnection<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) raw: &'a file::Connection,
    pub(super) place: Range<usize>,
}

impl RawConnection<'_> {
    pub(super) fn secret(
        &self,
        key: &str,
        file: &Spanned<String>,
        advised: usize,
    ) -> ConfigResult<SharedKey> {
        let load = |path: &String| keys::secret(&self.source.path(path)?, advised);
        self.source.value(key, file, load).map(SharedKey)
    }

    /// Returns whether revocation lists are fetched.
    pub(super) fn revocation(&self) -> Revocation {
        match self.raw.revocation.as_ref().map(Spanned::get_ref) {
            Some(file::Revocation::IfAvailable) => Revocation::IfAvailable,
            Some(file::Revocation::Required) => Revocation::Required,
            Some(file::Revocation::Off) | None => Revocation::Off,
        }
    }

    /// Returns true if signatures with SHA-1 are allowed.
    pub(super) fn allows_sha1(&self) -> bool {
        self.raw.legacy_signatures.as_ref().is_some_and(|allowed| *allowed.get_ref())
    }

    pub(super) fn missing(&self, key: &'static str, because: &str) -> ConfigError {
        self.source.error("connection", Some(self.place.clone()), Rule::Needs(key, because.into()))
    }
}
