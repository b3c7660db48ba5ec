//! What may be written on the command line.

use super::bench::arguments::Bench;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    sync::LazyLock,
};
use wayfarer::control::{SOCKET, protocol::View};
use wayfarer_dataplane::port::dpdk::Eal;

/// A security gateway for mobile terminals: IPsec ESP links that survive any change of address.
#[derive(Debug, Parser)]
#[command(
    version = version(),
    after_help = "\
Examples:
  wayfarer demo
  wayfarer bench esp
  wayfarer check conf/gateway.toml
  wayfarer gateway --config conf/gateway.toml
  wayfarer show sa
  wayfarer sa move alice 192.0.2.7:4500
  wayfarer peer down alice
  wayfarer open-host

Exit codes: 0 fine, 1 failed while running, 2 wrong command line or configuration."
)]
pub(super) struct Arguments {
    /// How much to say on standard error; without it, info, and warn of a benchmark.
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<LogLevel>,
    #[command(subcommand)]
    pub command: Command,
}

/// Version, and the DPDK that this program was built with.
fn version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let dpdk =
            Eal::VERSION.map_or_else(|| "without DPDK".to_owned(), |version| format!("DPDK {version}"));
        format!("{} ({dpdk})", env!("CARGO_PKG_VERSION"))
    });
    &TEXT
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
limit; a TAP device CAP_NET_ADMIN. Files need nothing. DPDK's NICs need root, a driver that DPDK knows and hugepages
(scripts/dpdk-setup), and a program that was built with it: `wayfarer --version` says so.

The host stays reachable on the kernel's NICs: only ESP, ESP in UDP and what is to be forwarded goes to the gateway. A NIC of DPDK's
is gone from the kernel; `exception` names a device that stands for it there.

From its start on, the host's kernel does not forward by these devices what is the gateway's or what policy protects: not
when the gateway has ended, crashed or failed to start either, nor by a device that is made again under the same name.
`wayfarer open-host` ends that. SIGHUP is logged and changes nothing.

Example:
  wayfarer gateway --config conf/gateway.toml
  wayfarer gateway --config conf/dpdk-lab.toml")]
    Gateway {
        /// The configuration, in TOML.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Shows the whole gateway at work in this one process: no root, no NIC, no configuration.
    #[command(after_help = "\
A real gateway with one worker runs on ports in memory. A simulated fleet sends real ESP through it to an echo server,
from behind simulated NATs, and every terminal keeps changing address, port and encapsulation.

The simulated fleet shares the machine with the gateway and limits the rates shown: `wayfarer bench esp` measures the
gateway.

A packet that arrives at a terminal's previous address at most --in-flight after the terminal left counts as in flight:
most of these were sent before the gateway could know of the move. One that arrives there later is lost to the move.

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
    /// Has the host's kernel forward again what a gateway that ran here protected.
    #[command(after_help = "\
A gateway that has ended leaves the host closed: its kernel drops what comes in by the gateway's devices to be forwarded, and what
it would forward there from or to addresses that policy protects. This command removes that, by devices named or by all, and
prints which they were. All of it is then forwarded in clear where net.ipv4.ip_forward or its like for IPv6 says so.
It needs CAP_NET_ADMIN, and that no gateway runs on the device. (What it removes are tables of nftables, wayfarer-DEVICE.)

Examples:
  wayfarer open-host
  wayfarer open-host eth0")]
    OpenHost {
        /// Devices, as the kernel calls them; without any, all.
        #[arg(value_name = "DEVICE")]
        devices: Vec<String>,
    },
    /// Shows what a running gateway is doing.
    #[command(after_help = "\
Examples:
  wayfarer show sa                     tunnels: where each peer is, what passed, what was refused
  wayfarer show peers                  who is connected by IKE, from where, and what for
  wayfarer show drops                  packets dropped, by reason
  wayfarer show ports                  devices, MAC addresses, MTUs, packets received and sent
  wayfarer show ports --counters       what each device counts by itself, in its own words
  wayfarer show workers --json         the same as a program reads it")]
    Show {
        /// What to show.
        view: Shown,
        /// Prints JSON instead of a table.
        #[arg(long)]
        json: bool,
        /// With drops and ports: shows counts of zero too. They are in JSON anyway.
        #[arg(long)]
        all: bool,
        /// With ports: shows what each device counts by itself (DPDK's xstats). They are in JSON anyway.
        #[arg(long)]
        counters: bool,
        #[command(flatten)]
        socket: Socket,
    },
    /// Changes the security associations of a running gateway.
    Sa {
        #[command(subcommand)]
        command: SaCommand,
    },
    /// Tells a running gateway what to do with a peer of IKE.
    Peer {
        #[command(subcommand)]
        command: PeerCommand,
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

#[derive(Debug, Subcommand)]
pub(super) enum PeerCommand {
    /// Ends a connection; the peer is told.
    #[command(after_help = "\
Examples:
  wayfarer peer down alice
  wayfarer peer down 17                number, as `wayfarer show peers` has it")]
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// Changes keys before it is time to; nothing is lost.
    #[command(after_help = "\
Examples:
  wayfarer peer rekey alice            the keys of its child SAs
  wayfarer peer rekey alice --ike      the keys of its IKE SA")]
    Rekey {
        #[command(flatten)]
        which: Which,
        /// Those of the IKE SA instead of those of its child SAs.
        #[arg(long)]
        ike: bool,
    },
    /// Reaches a peer from another address of ours from now on (MOBIKE).
    #[command(after_help = "\
Example:
  wayfarer peer move office --local 198.51.100.2")]
    Move {
        #[command(flatten)]
        which: Which,
        /// Our address.
        #[arg(long, value_name = "ADDRESS")]
        local: IpAddr,
    },
}

/// One peer of a running gateway.
#[derive(Clone, Debug, Args)]
pub(super) struct Which {
    /// Its number, its identity, or the name of its connection.
    #[arg(value_name = "NAME|NUMBER")]
    pub peer: String,
    #[command(flatten)]
    pub socket: Socket,
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
    /// Peers connected by IKE, and their child SAs.
    Peers,
    /// What IKE counts.
    Ike,
}

impl From<Shown> for View {
    fn from(shown: Shown) -> Self {
        match shown {
            Shown::Sa => Self::Sa,
            Shown::Ports => Self::Ports,
            Shown::Workers => Self::Workers,
            Shown::Drops => Self::Drops,
            Shown::Peers => Self::Peers,
            Shown::Ike => Self::Ike,
        }
    }
}

/// An address, perhaps with a UDP port.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Destination {
    pub address: IpAddr,
    pub udp_port: Option<u16>,
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
            return Ok(Self { address, udp_port: None });
        }
        match text.parse::<SocketAddr>() {
            Ok(socket) if socket.port() != 0 => {
                Ok(Self { address: socket.ip(), udp_port: Some(socket.port()) })
            }
            _ => Err(NoDestination),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_have_an_address_and_perhaps_a_port() {
        let parse = |text: &str| text.parse::<Destination>().map(|d| (d.address.to_string(), d.udp_port));
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
