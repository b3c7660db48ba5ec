//! One connection of the file, as all that check it see it.

use crate::config::{
    error::{ConfigError, ConfigResult, Rule},
    file, keys,
    source::Source,
};
use std::ops::Range;
use toml::Spanned;
use wayfarer_mobility::ike::connection::SharedKey;

/// Shortest password or shared key that raises no warning, in bytes.
pub(super) const ADVISED_PSK: usize = 16;

/// One connection of the file.
pub(super) struct Raw<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) raw: &'a file::Connection,
    pub(super) place: Range<usize>,
}

impl Raw<'_> {
    pub(super) fn secret(
        &self,
        key: &str,
        file: &Spanned<String>,
        advised: usize,
    ) -> ConfigResult<SharedKey> {
        let load = |path: &String| keys::secret(&self.source.path(path)?, advised);
        self.source.value(key, file, load).map(SharedKey)
    }

    pub(super) fn missing(&self, key: &'static str, because: &str) -> ConfigError {
        self.source.error("connection", Some(self.place.clone()), Rule::Needs(key, because.into()))
    }
}
