//! The command line.
//!
//! Exit codes: 0 for success, 1 for a failure while running, 2 for a wrong command line or
//! configuration.

mod arguments;
#[cfg(feature = "bench")]
mod bench;
#[cfg(feature = "bench")]
mod demo;
mod failure;
mod home_agents;
mod log;
mod nat;
mod neighbours;
mod pki;
mod ports;
mod profile;
mod relevant;
mod show;
mod table;

use arguments::{Arguments, Command, LogFormat, LogLevel, PeerCommand, SaCommand};
use clap::Parser;
use failure::Failure;
use std::{
    fmt::Display,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};
use wayfarer::{
    barrier, config,
    control::{client, protocol},
    launch,
};

/// Runs the command line and returns the exit code.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let usual = match arguments.command {
        #[cfg(feature = "bench")]
        Command::Bench { .. } | Command::Demo(_) => LogLevel::Warn,
        _ => LogLevel::Info,
    };
    let format = arguments.log_format;
    log::start(arguments.log.unwrap_or(usual), format);
    match dispatch(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has stopped reading, as `head` does.
        Err(Failure::Output(why)) if why.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(why)) => complain(format, 1, &why),
        Err(Failure::Config(why)) => complain(format, 2, &why),
        Err(Failure::Control(why)) => complain(format, 1, &why),
        Err(Failure::Gateway(why)) => complain(format, 1, &why),
        Err(Failure::Pki(why)) => complain(format, 1, &why),
        Err(Failure::Profile(why)) => complain(format, 2, &why),
    }
}

fn complain(format: LogFormat, code: u8, why: &dyn Display) -> ExitCode {
    match format {
        // If standard error is closed too, the exit code must suffice.
        LogFormat::Text => drop(writeln!(io::stderr(), "{why}")),
        LogFormat::Json => tracing::error!(name: "failed", "{why}"),
    }
    code.into()
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Gateway { config } => gateway(&config),
        #[cfg(feature = "bench")]
        Command::Demo(options) => demo::run(&options),
        #[cfg(feature = "bench")]
        Command::Bench { what } => bench::run(&what),
        Command::Check { file } => check(&file),
        Command::Pki { command } => pki::run(&command),
        Command::Profile(options) => profile::run(&options),
        Command::OpenHost { devices } => open_host(&devices),
        Command::Show { view, json, all, counters, failed, socket } => {
            let what = match view.into() {
                protocol::View::Peers if failed => protocol::View::FailedPeers,
                what => what,
            };
            let reply = client::ask(&socket.path, protocol::Command::Show { what })?;
            let (reply, mut out) = (relevant::relevant(reply, all || json), io::stdout().lock());
            match &reply {
                protocol::Reply::Ports(all) if counters && !json => ports::write_counters(&mut out, all)?,
                _ => show::write(&mut out, &reply, json)?,
            }
            Ok(())
        }
        Command::Sa { command: SaCommand::Move { tunnel, remote, socket } } => {
            let arguments::Destination { address, udp_port } = remote;
            client::ask(&socket.path, protocol::Command::SaMove { tunnel, remote: address, port: udp_port })?;
            Ok(())
        }
        Command::Peer { command } => peer(command),
        Command::Reload { socket } => {
            client::ask(&socket.path, protocol::Command::Reload)?;
            Ok(())
        }
    }
}

/// Sends a command about a peer to the gateway.
fn peer(command: PeerCommand) -> Result<(), Failure> {
    let is_move = matches!(command, PeerCommand::Move { .. });
    let (socket, command) = match command {
        PeerCommand::Down { target, bar } => {
            let bar_ms = bar.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            (target.socket, protocol::Command::PeerDown { peer: target.peer, bar_ms })
        }
        PeerCommand::Unbar { identity, socket } => (socket, protocol::Command::PeerUnbar { identity }),
        PeerCommand::Rekey { target, ike } => {
            (target.socket, protocol::Command::PeerRekey { peer: target.peer, ike })
        }
        PeerCommand::Move { target, local } => {
            (target.socket, protocol::Command::PeerMove { peer: target.peer, local })
        }
    };
    client::ask(&socket.path, command)?;
    // The peer has answered.
    if is_move {
        writeln!(io::stdout(), "moved")?;
    }
    Ok(())
}

/// Runs a gateway until a signal stops it.
fn gateway(file: &Path) -> Result<(), Failure> {
    let reviewed = config::review(file)?;
    reviewed.certificates.iter().for_each(|warning| tracing::warn!("{warning}"));
    launch::run(file, reviewed.config).map_err(|why| Failure::Gateway(why.to_string()))
}

/// Removes what an earlier gateway left to close the host, and prints the devices.
fn open_host(devices: &[String]) -> Result<(), Failure> {
    let opened = barrier::open_host(devices).map_err(|why| Failure::Gateway(why.to_string()))?;
    let mut out = io::stdout().lock();
    for device in &opened {
        writeln!(out, "{device}: the host may forward in clear again")?;
    }
    if opened.is_empty() {
        writeln!(out, "no device is closed")?;
    }
    Ok(())
}

/// Checks a configuration. Prints the warnings, then what it has.
fn check(file: &Path) -> Result<(), Failure> {
    let reviewed = config::review(file)?;
    let mut warnings = [reviewed.certificates, reviewed.file, reviewed.machine].concat();
    warnings.sort_by_key(|warning| warning.line);
    let config = reviewed.config;
    let mut out = io::stdout().lock();
    for config::Warning { file, line, key, text } in &warnings {
        writeln!(out, "{}:{line}: warning: {key}: {text}", file.display())?;
    }
    let with = match warnings.len() {
        0 => String::new(),
        count => format!(", with {}", some(count, "warning")),
    };
    writeln!(
        out,
        "{}: valid{with}: {}, {}, {}, {}, {}",
        file.display(),
        some(config.ports.len(), "port"),
        some(config.routes.len(), "route"),
        some(config.tunnels.len(), "tunnel"),
        some(config.ike.connections.len(), "connection"),
        some(config.policies.len(), "policy rule"),
    )?;
    Ok(())
}

/// Returns a count with its noun: `1 port`, `2 ports`.
fn some(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
