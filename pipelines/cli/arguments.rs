//! What may be written on the command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};
use wayfarer::{
    bench::{
        crypto::Operation,
        esp::{self, Direction, Size},
        rate,
    },
    control::{SOCKET, protocol::View},
};
use wayfarer_dataplane::{
    crypto::{Suite, UnknownSuite},
    port::{Mac, open::Kind},
};

/// A security gateway for mobile terminals: IPsec ESP links that survive any change of address.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  wayfarer demo
  wayfarer bench esp
  wayfarer check conf/gateway.toml
  wayfarer gateway --config conf/gateway.toml
  wayfarer show sa
  wayfarer sa move alice 192.0.2.7:4500

Exit codes: 0 fine, 1 failed while running, 2 wrong command line or configuration."
)]
pub(super) struct Arguments {
    /// How much to say on standard error.
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info")]
    pub log: LogLevel,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Runs a gateway until SIGINT or SIGTERM.
    #[command(after_help = "\
Network devices need root, or CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF; AF_XDP also CAP_IPC_LOCK or a larger memlock
limit; a TAP device CAP_NET_ADMIN. Files need nothing.

The host stays reachable on the same NICs: only ESP, ESP in UDP and what is to be forwarded goes to the gateway.

Example:
  wayfarer gateway --config conf/gateway.toml")]
    Gateway {
        /// The configuration, in TOML.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Shows the whole gateway at work in this one process: no root, no NIC, no configuration.
    #[command(after_help = "\
A real gateway, one worker, runs on ports in memory. A simulated fleet sends real ESP through it to an echo server,
from behind simulated NATs, and every terminal keeps changing address, port and encapsulation.

A packet that arrives where a terminal was until --in-flight before counts as in flight: most were sent before the
gateway could know of the move. One that arrives there later is lost to the move.

Examples:
  wayfarer demo
  wayfarer demo --seconds 5 --terminals 1000 --json")]
    Demo(Demo),
    /// Measures how fast the gateway, its cryptography or a device under test is.
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Says whether a configuration is right, and if not, where it is wrong; starts nothing.
    #[command(after_help = "\
Key files are read too. The first error is shown in one line, with file, line, key and value; the exit code is then 2.

Example:
  wayfarer check conf/gateway.toml")]
    Check {
        /// The configuration, in TOML.
        file: PathBuf,
    },
    /// Shows what a running gateway is doing.
    #[command(after_help = "\
Examples:
  wayfarer show sa                     tunnels: where each peer is, what passed, what was refused
  wayfarer show drops                  packets dropped, by reason
  wayfarer show workers --json         the same as a program reads it")]
    Show {
        /// What to show.
        view: Shown,
        /// Prints JSON instead of a table.
        #[arg(long)]
        json: bool,
        /// With drops: shows the reasons too for which nothing was dropped.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        socket: Socket,
    },
    /// Changes the security associations of a running gateway.
    Sa {
        #[command(subcommand)]
        command: SaCommand,
    },
}

/// What to demonstrate.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Demo {
    /// How long, in seconds.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// How many terminals.
    #[arg(long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(wayfarer::demo::Options::MOST)))]
    pub terminals: u32,
    /// How often each terminal moves, in milliseconds on average.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..))]
    pub move_every: u64,
    /// Bytes of an inner packet.
    #[arg(long, value_name = "BYTES", default_value_t = 512, value_parser = clap::value_parser!(u16).range(64..=1400))]
    pub size: u16,
    /// How long a packet may be in flight, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pub in_flight: u64,
    /// Prints one JSON object instead of progress and a table.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Bench {
    /// Measures the whole way of a packet through the gateway.
    #[command(after_help = "\
Lists are separated by commas; every combination is a row.

The gateway is a real one: its workers, tables, SAs and slow path, on ports of memory. Each packet is of a tunnel picked
at random, has a fresh sequence number, and is copied whole into a fresh frame first. Samples of what comes out are
opened by another implementation and compared with what went in.

NS/PACKET is the workers' processor time; MPPS and GBIT/S (inner bytes) follow from it, for all workers together. The
columns behind INSTR (instructions a packet, where the machine counts them) are nanoseconds a packet by stage, of a run of
their own with a stopwatch.

Examples:
  wayfarer bench esp
  wayfarer bench esp --direction out,in --size 64,1420,imix --sas 1,1000,1000000 --json")]
    Esp(BenchEsp),
    /// Measures seal and open alone, against the libraries that others build on.
    #[command(after_help = "\
All implementations take turns over the same packets, in bursts of 32 of 64 SAs at random. Each must make of them what
the others make. A library that does not have an algorithm has no row.

Example:
  wayfarer bench crypto --size 64,512,1420 --cipher aes128gcm,aes256gcm,chacha20poly1305")]
    Crypto(BenchCrypto),
    /// Searches for the highest rate that passes a device under test without loss, on real ports.
    #[command(after_help = "\
Numbered, time-stamped UDP frames go out by --port and must come back by --peer-port; the rate is halved and raised until
the highest one without loss is found (RFC 2544 section 26.1). Latencies are those at that rate. RFC 2544 asks for
trials of 60 seconds.

Needs what a gateway needs on network devices. The kernel keeps the devices' addresses and answers ARP for them; the
destination of the frames must be none of its own. A router under test needs a route and a neighbour for it:

  ip route add 198.19.0.0/16 dev OUT && ip neigh add 198.19.0.1 lladdr PEER-PORT'S-MAC dev OUT

Examples:
  wayfarer bench rate --port eth1 --peer-port eth2                       a cable from one to the other
  wayfarer bench rate --port eth1 --peer-port eth2 --dst-mac 02:00:00:00:00:01 --size 64,512,1518 --seconds 60")]
    Rate(BenchRate),
}

/// What to search for.
#[derive(Clone, Debug, Args)]
pub(super) struct BenchRate {
    /// The device that frames go out by.
    #[arg(long, value_name = "DEVICE")]
    pub port: String,
    /// The device that they come back by; without it, the same.
    #[arg(long, value_name = "DEVICE")]
    pub peer_port: Option<String>,
    /// How devices are opened.
    #[arg(long, value_name = "KIND", default_value = "auto")]
    pub kind: PortKind,
    /// Bytes of a frame, with its check sequence (RFC 2544 section 9).
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "64,128,256,512,1024,1280,1518",
        value_parser = clap::value_parser!(u16).range(i64::from(*rate::Options::SIZES.start())..=i64::from(*rate::Options::SIZES.end())))]
    pub size: Vec<u16>,
    /// Seconds for which each trial sends.
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    pub seconds: Duration,
    /// Frames a second to begin with; without it, as many as can be sent.
    #[arg(long, value_name = "RATE", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_rate: Option<u32>,
    /// How close the search comes, in percent of the rate.
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent)]
    pub resolution: f64,
    /// Loss that is tolerated, in percent of the frames.
    #[arg(long, value_name = "PERCENT", default_value = "0", value_parser = percent)]
    pub loss: f64,
    /// MAC address that frames go to; without it, that of the device they come back by.
    #[arg(long, value_name = "MAC", value_parser = mac)]
    pub dst_mac: Option<Mac>,
    /// Source address of the packets.
    #[arg(long, value_name = "IPV4", default_value = "198.18.0.1")]
    pub src: Ipv4Addr,
    /// Destination address of the packets.
    #[arg(long, value_name = "IPV4", default_value = "198.19.0.1")]
    pub dst: Ipv4Addr,
    /// Prints one JSON object for each size instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// How a device is opened.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum PortKind {
    /// AF_XDP, else AF_PACKET.
    Auto,
    /// AF_XDP.
    #[value(name = "af_xdp")]
    AfXdp,
    /// AF_PACKET.
    #[value(name = "af_packet")]
    AfPacket,
}

impl From<PortKind> for Kind {
    fn from(kind: PortKind) -> Self {
        match kind {
            PortKind::Auto => Self::Auto,
            PortKind::AfXdp => Self::AfXdp,
            PortKind::AfPacket => Self::AfPacket,
        }
    }
}

/// A part of a whole, given in percent.
fn percent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percent @ 0.0..=100.0) => Ok(percent / 100.0),
        _ => Err("must be 0 to 100".to_owned()),
    }
}

fn mac(text: &str) -> Result<Mac, String> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| "must be like 02:00:00:00:00:01".to_owned())
}

/// What to compare.
#[derive(Clone, Debug, Args)]
pub(super) struct BenchCrypto {
    /// seal, open.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "seal,open")]
    pub operation: Vec<Operation>,
    /// Bytes of an inner packet, IP header included; or imix: 64, 576 and 1420 as 7 : 4 : 1.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "64,512,1420")]
    pub size: Vec<Size>,
    /// AEADs, as in a configuration.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "aes128gcm16", value_parser = cipher)]
    pub cipher: Vec<Suite>,
    /// Seconds for each operation, size and algorithm.
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    pub seconds: Duration,
    /// Prints one JSON object for each row instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// What to measure.
#[derive(Clone, Debug, Args)]
pub(super) struct BenchEsp {
    /// Which way packets go: out (sealed), in (opened), or both at once.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "out,in,both")]
    pub direction: Vec<Direction>,
    /// Bytes of an inner packet, IP header included; or imix: 64, 576 and 1420 as 7 : 4 : 1.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "64")]
    pub size: Vec<Size>,
    /// Numbers of tunnels, each with an SA either way.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1000",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(esp::Options::MOST)))]
    pub sas: Vec<u32>,
    /// Algorithms, as in a configuration.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "aes128gcm16", value_parser = cipher)]
    pub cipher: Vec<Suite>,
    /// Workers at once, each on a core of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// Seconds of processor time to measure for each row.
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    pub seconds: Duration,
    /// Numbers in the anti-replay window.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=65536))]
    pub window: u32,
    /// Terminals that move to another address in a second while packets flow.
    #[arg(long, value_name = "RATE", default_value_t = 0)]
    pub roam: u32,
    /// Tunnels that are added or removed in a second while packets flow, beside those that carry them.
    #[arg(long, value_name = "RATE", default_value_t = 0)]
    pub churn: u32,
    /// Leaves out the titles of the table.
    #[arg(long, hide = true)]
    pub no_titles: bool,
    /// Prints one JSON object for each row instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// A suite by its name; of an AEAD without the length of its ICV too.
fn cipher(name: &str) -> Result<Suite, UnknownSuite> {
    name.parse().or_else(|why| format!("{name}16").parse().map_err(|_: UnknownSuite| why))
}

/// Seconds that a benchmark may take.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 0.01..=60.0) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("must be 0.01 to 60".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum SaCommand {
    /// Sends a tunnel's traffic to another address from now on.
    #[command(after_help = "\
Keys, sequence numbers and counters stay as they are.

Examples:
  wayfarer sa move alice 192.0.2.7             the UDP port stays as it is
  wayfarer sa move alice 192.0.2.7:4500
  wayfarer sa move alice [2001:db8::7]:4500")]
    Move {
        /// The tunnel's name.
        tunnel: String,
        /// Where the peer is now.
        #[arg(value_name = "ADDRESS[:PORT]")]
        remote: Destination,
        #[command(flatten)]
        socket: Socket,
    },
}

#[derive(Clone, Debug, Args)]
pub(super) struct Socket {
    /// The gateway's control socket.
    #[arg(long = "socket", value_name = "PATH", default_value = SOCKET)]
    pub path: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Shown {
    /// Tunnels and their security associations.
    Sa,
    /// Ports and their counters.
    Ports,
    /// Workers and their counters.
    Workers,
    /// Dropped packets by reason.
    Drops,
}

impl From<Shown> for View {
    fn from(shown: Shown) -> Self {
        match shown {
            Shown::Sa => Self::Sa,
            Shown::Ports => Self::Ports,
            Shown::Workers => Self::Workers,
            Shown::Drops => Self::Drops,
        }
    }
}

/// An address, perhaps with a port.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Destination {
    pub address: IpAddr,
    pub port: Option<u16>,
}

/// A text that is no [`Destination`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct NoDestination;

impl fmt::Display for NoDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be an address like 192.0.2.7, 192.0.2.7:4500, 2001:db8::7 or [2001:db8::7]:4500")
    }
}

impl std::error::Error for NoDestination {}

impl FromStr for Destination {
    type Err = NoDestination;

    fn from_str(text: &str) -> Result<Self, NoDestination> {
        if let Ok(address) = text.parse() {
            return Ok(Self { address, port: None });
        }
        match text.parse::<SocketAddr>() {
            Ok(socket) if socket.port() != 0 => Ok(Self { address: socket.ip(), port: Some(socket.port()) }),
            _ => Err(NoDestination),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_have_an_address_and_perhaps_a_port() {
        let parse = |text: &str| text.parse::<Destination>().map(|d| (d.address.to_string(), d.port));
        assert_eq!(parse("192.0.2.7"), Ok(("192.0.2.7".to_owned(), None)));
        assert_eq!(parse("192.0.2.7:4501"), Ok(("192.0.2.7".to_owned(), Some(4501))));
        assert_eq!(parse("2001:db8::7"), Ok(("2001:db8::7".to_owned(), None)));
        assert_eq!(parse("[2001:db8::7]:9"), Ok(("2001:db8::7".to_owned(), Some(9))));
        for wrong in ["", "alice", "192.0.2.7:0", "192.0.2.7:65536", "192.0.2.7:", "192.0.2"] {
            assert_eq!(parse(wrong), Err(NoDestination), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
