//! The grammar of the command line.

#[cfg(feature = "bench")]
use super::{bench::arguments::Bench, demo::Demo};
use super::{pki::Pki, profile::Profile};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    sync::LazyLock,
    time::Duration,
};
use wayfarer::{
    config,
    control::{SOCKET, protocol::View},
};
use wayfarer_dataplane::port::dpdk::Eal;

/// The examples that need a build with the feature `bench`.
const BENCH_EXAMPLES: &str =
    if cfg!(feature = "bench") { "\n  wayfarer demo\n  wayfarer bench esp" } else { "" };

/// A security gateway for mobile terminals: IPsec ESP links that survive any change of address.
#[derive(Debug, Parser)]
#[command(
    version = version(),
    after_help = format!("\
Examples:{BENCH_EXAMPLES}
  wayfarer check conf/gateway.toml
  wayfarer gateway --config conf/gateway.toml
  wayfarer pki gateway vpn.example.org 203.0.113.1
  wayfarer profile --for apple --config gateway.toml
  wayfarer show sa
  wayfarer sa move alice 192.0.2.7:4500
  wayfarer peer down alice
  wayfarer reload
  wayfarer open-host

Exit codes: 0 success, 1 failure while running, 2 wrong command line or configuration.")
)]
pub(super) struct Arguments {
    /// How much to log on standard error [default: info; warn for commands that measure].
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<LogLevel>,
    /// The form of the log: text for people, or JSON for programs, one object a line.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    #[command(subcommand)]
    pub command: Command,
}

/// Returns the version of the program, with the version of DPDK that it was built with.
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

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Runs a gateway until SIGINT or SIGTERM.
    #[command(after_help = "\
A gateway that stops deletes the IKE SAs of all peers, and waits up to a second for their answers.

Network devices need root, or CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF. AF_XDP also needs CAP_IPC_LOCK or a larger memlock
limit. A TAP device needs CAP_NET_ADMIN. Files need no rights. DPDK's NICs need root, a driver that DPDK knows, hugepages
(scripts/dpdk-setup), and a program that was built with DPDK: `wayfarer --version` says whether it was.

The host stays reachable on the kernel's NICs: only ESP, ESP in UDP and packets to be forwarded go to the gateway. A NIC
that DPDK takes is gone from the kernel; `exception` names a device that stands for it there.

From the gateway's start on, the host's kernel does not forward by these devices what the gateway would forward or what
policy protects. This also holds after the gateway has ended, crashed or failed to start, and for a device that is made
again under the same name. `wayfarer open-host` ends it.

SIGHUP has the gateway read its configuration again, as `wayfarer reload` does; the log has the result.

Examples:
  wayfarer gateway --config conf/gateway.toml
  wayfarer gateway --config conf/dpdk-lab.toml")]
    Gateway {
        /// The configuration file, in TOML.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    #[cfg(feature = "bench")]
    /// Runs a whole gateway with a simulated fleet in this process: no root, no NIC, no
    /// configuration.
    #[command(after_help = "\
A real gateway with one worker runs on ports in memory. Simulated terminals behind simulated NATs send real ESP through
it to an echo server. Every terminal keeps changing its address, port and encapsulation.

The simulated fleet shares the machine with the gateway and limits the rates shown: `wayfarer bench esp` measures the
gateway.

A packet that arrives at a terminal's previous address at most --in-flight after the terminal left counts as in flight:
most of these packets left before the gateway could know of the move. A packet that arrives there later, or after another
one has reached the terminal at its new address, is lost. A terminal moves on only after it has been reached.

Examples:
  wayfarer demo
  wayfarer demo --seconds 5 --terminals 1000 --json")]
    Demo(Demo),
    #[cfg(feature = "bench")]
    /// Measures the gateway, its cryptography or a device under test.
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Checks a configuration and says where it is wrong; starts nothing.
    #[command(after_help = "\
Key files are read too. The first error is shown in one line, with file, line, key and value, and the exit code is 2.

Warnings are about what is valid but probably not meant: overlapping tunnels, a key that two SAs have, a certificate that
expires or that clients refuse, secrets of the examples, and devices, cores and UDP ports of this machine. Each has a line
and says what to do. The exit code is 0.

Example:
  wayfarer check conf/gateway.toml")]
    Check {
        /// The configuration file, in TOML.
        file: PathBuf,
    },
    /// Makes certificates that all IKEv2 clients accept: an authority, gateways, users.
    Pki {
        #[command(subcommand)]
        command: Pki,
    },
    /// Prints a profile by which a client connects to the gateway of a configuration.
    Profile(Profile),
    /// Reopens a host that a gateway left closed: its kernel forwards in clear again.
    #[command(after_help = "\
A gateway that has ended leaves the host closed: the kernel drops packets that come in by the gateway's devices to be
forwarded, packets that it would forward by them from or to addresses that policy protects, and packets between the host
itself and the far sides of tunnels. This command removes that barrier (the nftables tables wayfarer-DEVICE) for the
devices named, or for all, and prints which they were. The kernel then sends and takes such packets in clear, and forwards
them if net.ipv4.ip_forward or its IPv6 counterpart is on.

It needs CAP_NET_ADMIN, and no gateway may run on the devices.

Examples:
  wayfarer open-host
  wayfarer open-host eth0")]
    OpenHost {
        /// Devices, by their kernel names [default: all].
        #[arg(value_name = "DEVICE")]
        devices: Vec<String>,
    },
    /// Shows the state and counters of a running gateway.
    #[command(after_help = "\
Examples:
  wayfarer show sa                     tunnels: where each peer is, what passed, what was refused
  wayfarer show peers                  peers connected by IKE: path, NAT, last move, rekeys, child SAs
  wayfarer show peers --failed         the last peers that did not connect or got no child SA, and why
  wayfarer show bars                   identities that `wayfarer peer down --bar` refuses
  wayfarer show drops                  packets dropped, by reason
  wayfarer show ike                    IKE's counters: what was refused, repeated or asked for a cookie
  wayfarer show nat                    mappings by inner address, free ports, what was refused
  wayfarer show ports                  state, MAC addresses, MTUs, packets received and sent
  wayfarer show ports --counters       each device's own counters, by its own names
  wayfarer show neighbours             stations with their MAC addresses: static ones and learned ones
  wayfarer show workers                what became of all packets: the counters of each worker add up
  wayfarer show slow-path              what became of the packets that workers did not handle themselves
  wayfarer show workers --json         JSON, for programs")]
    Show {
        /// The part to show.
        view: ViewName,
        /// Prints JSON instead of a table.
        #[arg(long)]
        json: bool,
        /// With drops and ports: also shows counts of zero, which JSON always has.
        #[arg(long)]
        all: bool,
        /// With ports: shows each device's own counters (DPDK's xstats), which JSON always has.
        #[arg(long)]
        counters: bool,
        /// With peers: shows the last hundred that did not connect or got no child SA, and why.
        #[arg(long)]
        failed: bool,
        #[command(flatten)]
        socket: Socket,
    },
    /// Changes the security associations of a running gateway.
    Sa {
        #[command(subcommand)]
        command: SaCommand,
    },
    /// Has a running gateway read its configuration again, or says why nothing has changed.
    #[command(after_help = "\
What can change while a gateway runs: [[connection]] with all credentials (keys, certificates, users, revocation lists,
RADIUS servers), [[pool]], the limits of [ike], and [[neighbour]]. Connected peers stay, with what they agreed to and
with their addresses, even if their connection or pool is gone; `wayfarer peer down` ends one. Whoever connects from then
on, or connects again, gets the new connections. A new connection with `remote` is made at once.

If the file is wrong, or anything else in it has changed, nothing changes: the reason is printed and logged, and the exit
code is 1. `wayfarer check` checks a file without a gateway.

SIGHUP does the same.

Example:
  wayfarer reload")]
    Reload {
        #[command(flatten)]
        socket: Socket,
    },
    /// Ends, bars, rekeys or moves the connection of an IKE peer of a running gateway.
    Peer {
        #[command(subcommand)]
        command: PeerCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SaCommand {
    /// Sends a tunnel's traffic to another address from now on.
    #[command(after_help = "\
Keys, sequence numbers and counters stay as they are. IKE itself decides where its peers are, so
only tunnels with keys from files can be moved.

Examples:
  wayfarer sa move alice 192.0.2.7             the UDP port stays as it is
  wayfarer sa move alice 192.0.2.7:4500
  wayfarer sa move alice [2001:db8::7]:4500")]
    Move {
        /// Name of the tunnel.
        tunnel: String,
        /// The peer's new address; without a port, its UDP port stays.
        #[arg(value_name = "ADDRESS[:PORT]")]
        remote: Destination,
        #[command(flatten)]
        socket: Socket,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PeerCommand {
    /// Ends a peer's connection, and tells the peer.
    #[command(after_help = "\
The peer may connect again at once. With --bar, the identity that it proved is refused for a time, by whichever connection
it comes, and all its links end. Bars outlive a reload, but not the gateway. `wayfarer show bars` lists them.

Examples:
  wayfarer peer down alice
  wayfarer peer down 17                by its number in `wayfarer show peers`
  wayfarer peer down alice --bar 12h")]
    Down {
        #[command(flatten)]
        target: PeerArguments,
        /// Refuses the peer's identity for so long.
        #[arg(long, value_name = "TIME", value_parser = time)]
        bar: Option<Duration>,
    },
    /// Lifts the bar of an identity before its time is over.
    #[command(after_help = "\
Example:
  wayfarer peer unbar alice")]
    Unbar {
        /// The identity, as in `wayfarer show bars`.
        identity: String,
        #[command(flatten)]
        socket: Socket,
    },
    /// Changes a peer's keys early; no packet is lost.
    #[command(after_help = "\
Examples:
  wayfarer peer rekey alice            the keys of its child SAs
  wayfarer peer rekey alice --ike      the keys of its IKE SA")]
    Rekey {
        #[command(flatten)]
        target: PeerArguments,
        /// Changes the keys of the IKE SA instead of those of its child SAs.
        #[arg(long)]
        ike: bool,
    },
    /// Moves our end of a peer's connection to another of our addresses (MOBIKE).
    #[command(after_help = "\
Only a link that this gateway began can be moved, and only if both sides support MOBIKE. The address must be one of a
port's, and in the connection's `local`. The command waits up to 30 seconds for the peer. If the peer refuses the address
or does not answer, it says so, and the exit code is 1; the gateway goes on trying.

Example:
  wayfarer peer move office --local 198.51.100.2")]
    Move {
        #[command(flatten)]
        target: PeerArguments,
        /// The address to use from now on.
        #[arg(long, value_name = "ADDRESS")]
        local: IpAddr,
    },
}

/// One peer of a running gateway.
#[derive(Clone, Debug, Args)]
pub(super) struct PeerArguments {
    /// The peer: its number, its identity, or the name of its connection.
    #[arg(value_name = "NAME|NUMBER")]
    pub peer: String,
    #[command(flatten)]
    pub socket: Socket,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Socket {
    /// Path of the gateway's control socket.
    #[arg(long = "socket", value_name = "PATH", default_value = SOCKET)]
    pub path: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ViewName {
    /// Tunnels and their security associations.
    Sa,
    /// Ports and their counters.
    Ports,
    /// Neighbours and their MAC addresses.
    Neighbours,
    /// Workers and their counters.
    Workers,
    /// The slow path's counters.
    SlowPath,
    /// Dropped packets by reason.
    Drops,
    /// IKE peers and their child SAs.
    Peers,
    /// Barred identities.
    Bars,
    /// IKE's counters.
    Ike,
    /// NATs and the inner addresses that use them.
    Nat,
    /// Home agents whose updates move links, and these links.
    HomeAgents,
    /// Where the terminals of the gateway's own home agent are.
    Bindings,
}

impl From<ViewName> for View {
    fn from(name: ViewName) -> Self {
        match name {
            ViewName::Sa => Self::Sa,
            ViewName::Ports => Self::Ports,
            ViewName::Neighbours => Self::Neighbours,
            ViewName::Workers => Self::Workers,
            ViewName::SlowPath => Self::SlowPath,
            ViewName::Drops => Self::Drops,
            ViewName::Peers => Self::Peers,
            ViewName::Bars => Self::Bars,
            ViewName::Ike => Self::Ike,
            ViewName::Nat => Self::Nat,
            ViewName::HomeAgents => Self::HomeAgents,
            ViewName::Bindings => Self::Bindings,
        }
    }
}

/// Parses a time as configurations write it.
fn time(text: &str) -> Result<Duration, String> {
    config::duration(text).map_err(|why| why.to_string())
}

/// An address, with an optional UDP port.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Destination {
    pub address: IpAddr,
    pub udp_port: Option<u16>,
}

/// A text that is not a [`Destination`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct DestinationError;

impl fmt::Display for DestinationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "must be an IP address with or without a UDP port, \
             like 192.0.2.7, 192.0.2.7:4500, 2001:db8::7 or [2001:db8::7]:4500",
        )
    }
}

impl std::error::Error for DestinationError {}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if let Ok(address) = text.parse() {
            return Ok(Self { address, udp_port: None });
        }
        match text.parse::<SocketAddr>() {
            Ok(socket) if socket.port() != 0 => {
                Ok(Self { address: socket.ip(), udp_port: Some(socket.port()) })
            }
            _ => Err(DestinationError),
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
            assert_eq!(parse(wrong), Err(DestinationError), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
