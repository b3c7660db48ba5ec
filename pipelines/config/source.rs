//! The text of a configuration: parses it, and finds the line of an error.

use super::{
    error::{ConfigError, Rule, nearest},
    file::{File, Key},
};
use serde_path_to_error::Segment;
use std::{
    ops::Range,
    path::{Path, PathBuf},
};
use toml::Spanned;

/// Most characters of a value that an error shows.
const SHOWN: usize = 60;

/// Keys of times, which are texts with a unit.
const TIMES: [&str; 9] = [
    "idle",
    "keepalive",
    "soft_time",
    "hard_time",
    "half_open_time",
    "liveness",
    "timeout",
    "lifetime.ike",
    "lifetime.child",
];

/// A function that returns the value of an environment variable.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A configuration file.
pub(super) struct Source<'a> {
    /// Path of the file.
    pub file: &'a Path,
    /// Contents of the file.
    pub text: &'a str,
    /// The source of environment variables in paths.
    pub environment: Environment<'a>,
}

impl Source<'_> {
    /// Parses the keys of the file.
    pub(super) fn read(&self) -> Result<File, ConfigError> {
        let not_toml = |e: toml::de::Error| {
            let message = e.message().lines().collect::<Vec<_>>().join(", ");
            self.error("", e.span(), Rule::Syntax(message.into()))
        };
        let toml = toml::Deserializer::parse(self.text).map_err(not_toml)?;
        serde_path_to_error::deserialize(toml).map_err(|e| self.misfit(&e))
    }

    /// Returns the line of a place in the text.
    pub(super) fn line(&self, place: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..place.start).unwrap_or_default();
        before.iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    /// Returns an error about a table or the whole file.
    pub(super) fn error(&self, key: &str, place: Option<Range<usize>>, rule: Rule) -> ConfigError {
        let line = place.map(|place| self.line(&place));
        ConfigError { file: self.file.into(), line, key: key.into(), value: None, rule, hint: None }
    }

    /// Returns an error about a value.
    pub(super) fn bad(&self, key: &str, place: Range<usize>, rule: Rule) -> ConfigError {
        let written = self.text.get(place.clone()).unwrap_or_default();
        let line = written.lines().next().unwrap_or_default();
        let shown = match line.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None if line.len() < written.len() => format!("{line}…"),
            None => line.to_owned(),
        };
        ConfigError { value: Some(shown.into()), ..self.error(key, Some(place), rule) }
    }

    /// Converts a value by `check`.
    pub(super) fn value<T, U>(
        &self,
        key: &str,
        value: &Spanned<T>,
        check: impl FnOnce(&T) -> Result<U, Rule>,
    ) -> Result<U, ConfigError> {
        check(value.get_ref()).map_err(|rule| self.bad(key, value.span(), rule))
    }

    /// Converts a value by `check`, if it is present.
    pub(super) fn optional<T, U>(
        &self,
        key: &str,
        value: &Key<T>,
        check: impl FnOnce(&T) -> Result<U, Rule>,
    ) -> Result<Option<U>, ConfigError> {
        value.as_ref().map(|value| self.value(key, value, check)).transpose()
    }

    /// Returns the path in `text`, relative to the file's folder. `$VARIABLE` and `${VARIABLE}`
    /// stand for environment variables.
    pub(super) fn path(&self, text: &str) -> Result<PathBuf, Rule> {
        let mut path = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            let (name, after) = match after.strip_prefix('{') {
                Some(braced) => braced.split_once('}').ok_or(Rule::OpenVariable)?,
                None => {
                    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    after.split_at(after.find(|c| !is_part(c)).unwrap_or(after.len()))
                }
            };
            path += before;
            path += &(self.environment)(name).ok_or_else(|| Rule::Variable(name.into()))?;
            rest = after;
        }
        path += rest;
        if path.is_empty() {
            return Err(Rule::Empty);
        }
        Ok(self.file.parent().unwrap_or(Path::new("")).join(path))
    }

    /// Converts a TOML error about keys or types into an error of this module.
    fn misfit(&self, error: &serde_path_to_error::Error<toml::de::Error>) -> ConfigError {
        let message = error.inner().message();
        let place = error.inner().span();
        let mut quoted = message.split('`').skip(1).step_by(2);
        let first = quoted.next().unwrap_or_default();
        let hint = || nearest(first, quoted.clone()).map(Into::into);
        let key = key_of(error.path());
        let at_value = |rule| match place.clone() {
            Some(place) => self.bad(&key, place, rule),
            None => self.error(&key, None, rule),
        };
        if message.starts_with("unknown field") {
            let table = key.strip_suffix(first).unwrap_or(&key).trim_end_matches('.');
            let error = self.error(table, place, Rule::UnknownKey(first.into()));
            ConfigError { hint: hint(), ..error }
        } else if message.starts_with("unknown variant") {
            let words: Vec<String> = quoted.clone().map(|word| format!("{word:?}")).collect();
            let error = at_value(Rule::UnknownWord(words.join(" or ").into()));
            ConfigError { hint: hint(), ..error }
        } else if message.starts_with("missing field") {
            self.error(&key, place, Rule::MissingKey(first.into()))
        } else if let Some((_, expected)) = message.split_once(", expected ") {
            let wanted = match expected {
                "i64" => "an integer",
                "a sequence" => "a list",
                table if table.starts_with("struct ") => "a table",
                other => other,
            };
            let is_time = wanted == "a string" && TIMES.iter().any(|time| key.ends_with(time));
            at_value(if is_time { Rule::Duration } else { Rule::Type(format!("must be {wanted}").into()) })
        } else {
            at_value(Rule::Type(message.into()))
        }
    }
}

/// Returns the key as people write it, without list indices and without the keys by which TOML
/// keeps places.
fn key_of(path: &serde_path_to_error::Path) -> String {
    let key = |segment: &Segment| match segment {
        Segment::Map { key } if !key.starts_with("$__") => Some(key.clone()),
        _ => None,
    };
    path.iter().filter_map(key).collect::<Vec<_>>().join(".")
}
