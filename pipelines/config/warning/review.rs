//! A warning, and how warnings are collected.

use crate::config::{file::File, model::Config, source::Source};
use std::{fmt, ops::Range, path::Path};

/// Most warnings about one configuration.
const MOST: usize = 100;

/// A part of a valid configuration that is probably not meant, and what to do about it.
///
/// ```text
/// gateway.toml:12: connection.certificate: expired 3 days ago, so peers refuse it: renew it
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Path of the file.
    pub file: Box<Path>,
    /// Line in the file, counted from 1.
    pub line: usize,
    /// Key with its tables, like `tunnel.inbound.key_file`.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub text: Box<str>,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file.display(), self.line, self.key, self.text)
    }
}

/// The warnings so far, with what they are about.
pub(super) struct Review<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) raw: &'a File,
    pub(super) config: &'a Config,
    warnings: Vec<Warning>,
}

impl<'a> Review<'a> {
    pub(super) fn new(source: &'a Source<'a>, raw: &'a File, config: &'a Config) -> Self {
        Self { source, raw, config, warnings: vec![] }
    }

    /// Warns about the value in this place of the file.
    pub(super) fn warn(&mut self, key: &'static str, place: Range<usize>, text: impl Into<Box<str>>) {
        if self.warnings.len() < MOST {
            let line = self.source.line(&place);
            self.warnings.push(Warning { file: self.source.file.into(), line, key, text: text.into() });
        }
    }

    /// Returns the warnings in the order of their lines.
    pub(super) fn finish(mut self) -> Vec<Warning> {
        self.warnings.sort_by_key(|warning| warning.line);
        self.warnings
    }
}
