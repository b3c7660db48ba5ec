//! The configuration of a gateway: one TOML file, read, checked and completed with defaults before
//! anything starts.
//!
//! | module | contents |
//! |---|---|
//! | [`model`] | a configuration as the gateway uses it |
//! | `file` | the keys of the file, as TOML gives them |
//! | `source` | reads the file, and finds the line of every value |
//! | `check`, `port`, `dpdk`, `neighbour`, `nat`, `home_agent`, `siu`, `tunnel`, `connection` | check the keys, and make the model of them |
//! | [`algorithms`] | the names of algorithms and proposals |
//! | [`Warning`] | what a valid configuration may still get wrong |
//! | `value`, `keys` | single values, key files |
//! | `frames` | the size of frames, which devices may decide |
//! | `diff` | what cannot change while the gateway runs |

pub mod algorithms;
pub mod model;

mod check;
mod connection;
mod diff;
mod dpdk;
mod error;
mod field;
mod file;
mod frames;
mod home_agent;
mod keys;
mod nat;
mod neighbour;
mod port;
mod siu;
mod source;
mod tunnel;
mod value;
mod warning;

#[cfg(test)]
mod tests;

pub use diff::needs_restart;
pub use error::{ConfigError, Rule};
pub use frames::{USUAL_FRAME, frame_size, longest_packet};
pub use source::Environment;
pub use warning::Warning;

use model::Config;
use source::Source;
use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
    time::Duration,
};
use wayfarer_dataplane::port::Mac;

/// Longest configuration, in bytes: room for a million tunnels.
const LONGEST: u64 = 512 << 20;

/// Returns the value of a variable of this process.
fn process(name: &str) -> Option<String> {
    // `std::env::var` panics on a text that cannot be a variable's name.
    let named = !name.is_empty() && !name.contains(['=', '\0']);
    named.then(|| std::env::var(name).ok()).flatten()
}

/// Parses a time like `30s` or `12h`.
///
/// # Errors
/// [`Rule::Duration`].
pub fn duration(text: &str) -> Result<Duration, Rule> {
    value::duration(text)
}

/// Parses the MAC address of one station, like `02:00:00:00:00:01`.
///
/// # Errors
/// [`Rule::Mac`].
pub fn mac(text: &str) -> Result<Mac, Rule> {
    value::mac(text)
}

/// Reads and checks the configuration in a file.
///
/// # Errors
/// If the configuration breaks a rule: the first one, with file, line, key and value.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    load_with(path, &process)
}

/// A valid configuration, and what may still be wrong with it.
#[derive(Debug)]
pub struct Reviewed {
    /// The configuration.
    pub config: Config,
    /// Warnings about the gateway's own certificates, which time alone can bring.
    pub certificates: Vec<Warning>,
    /// Other warnings about the configuration and its files.
    pub file: Vec<Warning>,
    /// Warnings about running it on this machine.
    pub machine: Vec<Warning>,
}

/// Reads and checks the configuration in a file, and looks for what is probably not meant.
///
/// # Errors
/// As [`load`].
pub fn review(path: &Path) -> Result<Reviewed, ConfigError> {
    let text = read(path, &process)?;
    let source = Source { file: path, text: &text, environment: &process };
    let raw = source.read()?;
    let config = check::config(&source, &raw)?;
    let certificates = warning::of_certificates(&source, &raw, &config);
    let file = warning::of_file(&source, &raw, &config);
    let machine = warning::of_machine(&source, &raw, &config);
    Ok(Reviewed { config, certificates, file, machine })
}

/// Does the same as [`load`], with another source of environment variables.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, environment: Environment<'_>) -> Result<Config, ConfigError> {
    parse_with(&read(path, environment)?, path, environment)
}

/// Returns the text of a file, which must not be too long.
fn read(path: &Path, environment: Environment<'_>) -> Result<String, ConfigError> {
    let unreadable =
        |why| Source { file: path, text: "", environment }.error("", None, Rule::Unreadable(why));
    let mut text = String::new();
    let file = File::open(path).map_err(|e| unreadable(e.kind()))?;
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(|e| unreadable(e.kind()))?;
    if text.len() as u64 > LONGEST {
        return Err(unreadable(ErrorKind::FileTooLarge));
    }
    Ok(text)
}

/// Checks the configuration in `text`. Errors call the file `path`, and the names of other files
/// are relative to its folder.
///
/// # Errors
/// If the configuration breaks a rule: the first one, with file, line, key and value.
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    parse_with(text, path, &process)
}

fn parse_with(text: &str, path: &Path, environment: Environment<'_>) -> Result<Config, ConfigError> {
    let source = Source { file: path, text, environment };
    check::config(&source, &source.read()?)
}
