//! Log messages on standard error.

use super::arguments::LogLevel;
use std::io::{self, IsTerminal};
use tracing::Level;

/// Logs everything from `level` up, in colours if standard error is a terminal.
pub(super) fn start(level: LogLevel) {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .log_internal_errors(false)
        .with_writer(io::stderr)
        .init();
}
