//! A warning, and how warnings are collected.

use crate::config::{file::File, model::Config, source::Source};
use std::{collections::BTreeMap, fmt, ops::Range, path::Path};

/// Most warnings of one kind.
const MOST: usize = 20;

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
    /// The warnings of the present reviewer, by key: how many there are, and the line of the last
    /// one that is shown.
    kinds: BTreeMap<&'static str, (usize, usize)>,
}

impl<'a> Review<'a> {
    pub(super) fn new(source: &'a Source<'a>, raw: &'a File, config: &'a Config) -> Self {
        Self { source, raw, config, warnings: vec![], kinds: BTreeMap::new() }
    }

    /// Has a reviewer look for warnings. Those that it has about one key are of one kind, and of
    /// each kind only some are shown.
    pub(super) fn by(mut self, reviewer: fn(&mut Self)) -> Self {
        reviewer(&mut self);
        for (key, (count, line)) in std::mem::take(&mut self.kinds) {
            if count > MOST {
                self.push(key, line, format!("and {} more like this", count - MOST));
            }
        }
        self
    }

    /// Warns about the value in this place of the file.
    pub(super) fn warn(&mut self, key: &'static str, place: Range<usize>, text: impl Into<Box<str>>) {
        let (count, last) = self.kinds.entry(key).or_default();
        *count += 1;
        if *count <= MOST {
            let line = self.source.line(&place);
            *last = line.max(*last);
            self.push(key, line, text);
        }
    }

    fn push(&mut self, key: &'static str, line: usize, text: impl Into<Box<str>>) {
        self.warnings.push(Warning { file: self.source.file.into(), line, key, text: text.into() });
    }

    /// Returns the warnings in the order of their lines.
    pub(super) fn finish(mut self) -> Vec<Warning> {
        self.warnings.sort_by_key(|warning| warning.line);
        self.warnings
    }
}
