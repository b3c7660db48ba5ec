//! The command line.
//!
//! Exit codes: 0, all went well; 1, it failed while it ran; 2, the command line or the configuration is wrong.

mod arguments;
mod bench;
mod log;
mod ports;
mod relevant;
mod show;
mod table;

use arguments::{Arguments, Command, LogLevel, PeerCommand, SaCommand};
use clap::Parser;
use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};
use wayfarer::{
    barrier,
    config::{self, ConfigError, model::Config},
    control::{client, protocol},
    demo, launch,
};

/// Why a command failed.
enum Failure {
    /// The configuration is wrong.
    Config(ConfigError),
    /// A running gateway did not do what was asked.
    Control(client::ClientError),
    /// The gateway failed.
    Gateway(String),
    /// Standard output failed.
    Output(io::Error),
}

impl From<ConfigError> for Failure {
    fn from(why: ConfigError) -> Self {
        Self::Config(why)
    }
}

impl From<client::ClientError> for Failure {
    fn from(why: client::ClientError) -> Self {
        Self::Control(why)
    }
}

impl From<io::Error> for Failure {
    fn from(why: io::Error) -> Self {
        Self::Output(why)
    }
}

/// Does what the command line says.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let usual =
        if matches!(arguments.command, Command::Bench { .. }) { LogLevel::Warn } else { LogLevel::Info };
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
        Command::Demo(options) => demo(&options),
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

/// Runs the demonstration, with progress on standard error where somebody watches.
fn demo(options: &arguments::Demo) -> Result<(), Failure> {
    let watched = !options.json && io::stderr().is_terminal();
    let what = demo::Options {
        duration: Duration::from_secs(options.seconds),
        terminals: options.terminals,
        move_every: Duration::from_millis(options.move_every),
        size: usize::from(options.size),
        in_flight: Duration::from_millis(options.in_flight),
    };
    let report = demo::run(&what, |so_far| {
        if watched {
            // Progress that cannot be shown is not worth ending the run.
            let _ = write!(
                io::stderr(),
                "\r{:5.1} s  {:7.3} Mpps  {:6} moves  {} packets lost to them \x1b[K",
                so_far.seconds,
                so_far.mpps,
                so_far.moves,
                so_far.lost_to_moves
            );
        }
    });
    if watched {
        let _ = writeln!(io::stderr());
    }
    let report = report.map_err(|why| Failure::Gateway(why.to_string()))?;
    let mut out = io::stdout().lock();
    if options.json {
        serde_json::to_writer(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{report}")?;
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
