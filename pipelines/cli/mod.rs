//! The command line.
//!
//! Exit codes: 0, all went well; 1, it failed while it ran; 2, the command line or the configuration is wrong.

mod arguments;
#[cfg(feature = "bench")]
mod bench;
#[cfg(feature = "bench")]
mod demo;
mod failure;
mod log;
mod ports;
mod relevant;
mod show;
mod table;

use arguments::{Arguments, Command, LogLevel, PeerCommand, SaCommand};
use clap::Parser;
use failure::Failure;
use std::{
    fmt::Display,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};
use wayfarer::{
    barrier,
    config::{self, model::Config},
    control::{client, protocol},
    launch,
};

/// Does what the command line says.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let usual = match arguments.command {
        #[cfg(feature = "bench")]
        Command::Bench { .. } => LogLevel::Warn,
        _ => LogLevel::Info,
    };
    log::start(arguments.log.unwrap_or(usual));
    match dispatch(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has enough.
        Err(Failure::Output(why)) if why.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Output(why)) => complain(1, &why),
        Err(Failure::Config(why)) => complain(2, &why),
        Err(Failure::Control(why)) => complain(1, &why),
        Err(Failure::Gateway(why)) => complain(1, &why),
    }
}

fn complain(code: u8, why: &dyn Display) -> ExitCode {
    // Where standard error is closed too, the exit code has to do.
    let _ = writeln!(io::stderr(), "{why}");
    code.into()
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Gateway { config } => gateway(&config::load(&config)?),
        #[cfg(feature = "bench")]
        Command::Demo(options) => demo::run(&options),
        #[cfg(feature = "bench")]
        Command::Bench { what } => bench::run(&what),
        Command::Check { file } => check(&file),
        Command::OpenHost { devices } => open_host(&devices),
        Command::Show { view, json, all, counters, socket } => {
            let what = view.into();
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
        Command::Peer { command } => Ok(peer(command)?),
    }
}

/// Has something done with a peer.
fn peer(command: PeerCommand) -> Result<(), client::ClientError> {
    let (socket, command) = match command {
        PeerCommand::Down { which } => (which.socket, protocol::Command::PeerDown { peer: which.peer }),
        PeerCommand::Rekey { which, ike } => {
            (which.socket, protocol::Command::PeerRekey { peer: which.peer, ike })
        }
        PeerCommand::Move { which, local } => {
            (which.socket, protocol::Command::PeerMove { peer: which.peer, local })
        }
    };
    client::ask(&socket.path, command).map(drop)
}

/// Runs a gateway until it is told to stop.
fn gateway(config: &Config) -> Result<(), Failure> {
    launch::run(config).map_err(|why| Failure::Gateway(why.to_string()))
}

/// Ends what an earlier gateway keeps the host from, and says where.
fn open_host(devices: &[String]) -> Result<(), Failure> {
    let opened = barrier::open_host(devices).map_err(|why| Failure::Gateway(why.to_string()))?;
    let mut out = io::stdout().lock();
    for device in &opened {
        writeln!(out, "{device}: the host forwards again, in clear")?;
    }
    if opened.is_empty() {
        writeln!(out, "nothing is closed")?;
    }
    Ok(())
}

fn check(file: &Path) -> Result<(), Failure> {
    let config = config::load(file)?;
    writeln!(
        io::stdout(),
        "{}: fine: {}, {}, {}, {}, {}",
        file.display(),
        some(config.ports.len(), "port"),
        some(config.routes.len(), "route"),
        some(config.tunnels.len(), "tunnel"),
        some(config.ike.connections.len(), "connection"),
        some(config.policies.len(), "policy rule"),
    )?;
    Ok(())
}

/// `1 port`, `2 ports`.
fn some(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
