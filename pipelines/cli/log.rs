//! Log messages on standard error.

use super::arguments::{LogFormat, LogLevel};
use std::io::{self, IsTerminal};
use tracing::{Level, dispatcher};
use wayfarer::log::{Format, dispatch};

/// Logs everything from `level` up; text is in colours if standard error is a terminal.
pub(super) fn start(level: LogLevel, format: LogFormat) {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let format = match format {
        LogFormat::Text => Format::Text(io::stderr().is_terminal()),
        LogFormat::Json => Format::Json,
    };
    // It is the first one, so it is set.
    let _ = dispatcher::set_global_default(dispatch(level, format, io::stderr));
}
