//! What a gateway is told to do: one TOML file, read, checked and filled in with defaults before anything starts.
//!
//! | module | what |
//! |---|---|
//! | [`model`] | a configuration as the gateway uses it |
//! | `file` | the keys of the file, as TOML gives them |
//! | `source` | reads the file; knows the place of every value |
//! | `check`, `port`, `dpdk`, `tunnel`, `connection` | from its keys to the model |
//! | [`algorithms`] | proposals in words |
//! | `value`, `keys` | single values, key files |

pub mod algorithms;
pub mod model;

mod check;
mod connection;
mod dpdk;
mod error;
mod field;
mod file;
mod keys;
mod port;
mod source;
mod tunnel;
mod value;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, Rule};

use model::Config;
use source::Source;
use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

/// Longest configuration, in bytes: room for a million tunnels.
const LONGEST: u64 = 512 << 20;

/// Where environment variables come from: the value of a name.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variables of this process.
fn process(name: &str) -> Option<String> {
    // `std::env::var` panics on no name, but these are no names of variables.
    let named = !name.is_empty() && !name.contains(['=', '\0']);
    named.then(|| std::env::var(name).ok()).flatten()
}

/// Reads and checks the configuration in a file.
///
/// # Errors
/// The first rule that it breaks, with file, line, key and value.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    load_with(path, &process)
}

/// As [`load`], with variables from elsewhere than the process.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, environment: Environment<'_>) -> Result<Config, ConfigError> {
    let unreadable =
        |why| Source { file: path, text: "", environment }.error("", None, Rule::Unreadable(why));
    let mut text = String::new();
    let file = File::open(path).map_err(|e| unreadable(e.kind()))?;
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(|e| unreadable(e.kind()))?;
    if text.len() as u64 > LONGEST {
        return Err(unreadable(ErrorKind::FileTooLarge));
    }
    parse_with(&text, path, environment)
}

/// Checks the configuration in `text`. Errors call it `path`, and files that it names are looked for from there.
///
/// # Errors
/// The first rule that it breaks, with file, line, key and value.
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    parse_with(text, path, &process)
}

fn parse_with(text: &str, path: &Path, environment: Environment<'_>) -> Result<Config, ConfigError> {
    let source = Source { file: path, text, environment };
    check::config(&source, source.read()?)
}
