//! The command line of `wayfarer bench`.

use super::rate_arguments::BenchRate;
use clap::{Args, Subcommand};
use std::{path::PathBuf, time::Duration};
use wayfarer::bench::{
    crypto::Operation,
    esp::{self, Direction, Size},
    ike::{self, Mode},
};
use wayfarer_dataplane::crypto::{Suite, UnknownSuite};

/// The benchmark to run.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Bench {
    /// Measures a packet's whole way through the gateway.
    #[command(after_help = "\
Lists are separated by commas. Every combination is one row.

The gateway is a real one: its workers, tables, SAs and slow path, on ports in memory. Each packet belongs to a tunnel
picked at random, has a fresh sequence number, and is first copied whole into a fresh frame. Another implementation opens
samples of the output and compares them with the input.

NS/PACKET is the workers' processor time. MPPS and GBIT/S (inner bytes) follow from it, for all workers together. INSTR
is instructions a packet, if the machine counts them. The columns after it are nanoseconds a packet by stage, from a run of
their own with a stopwatch.

Examples:
  wayfarer bench esp
  wayfarer bench esp --direction out,in --size 64,1420,imix --sas 1,1000,1000000 --json")]
    Esp(BenchEsp),
    /// Measures encryption and decryption alone, and compares with other libraries.
    #[command(after_help = "\
All implementations take turns over the same packets, in bursts of 32 of 64 SAs at random. Their results must agree. A
library without an algorithm has no row for it.

Example:
  wayfarer bench crypto --size 64,512,1420 --cipher aes128gcm,chacha20poly1305,aes128-sha256")]
    Crypto(BenchCrypto),
    /// Measures IKE and mobility: peers that connect and move, their memory, their effect on
    /// traffic.
    #[command(after_help = "\
Peers are simulated in the same process; their time is not counted.

  connect   IKE SAs with a child SA that one core makes in a second, with X25519 and AES-256-GCM, by certificates (ECDSA
            P-256 on both sides) and by shared keys
  move      moves (MOBIKE) that one core handles in a second: the protocol alone, then the whole slow path with its tables
  idle      memory of --peers connected peers, half of them watched: the protocol alone, then the whole gateway
  latency   time from a move's message at the port to the first packet on the new path, while a worker forwards at full
            rate
  rekey     packets lost by rekeys and moves at full rate, except those in flight
  flood     forwarding rate and latency of moves under 20000 first messages a second from unauthenticated
            senders

Examples:
  wayfarer bench ike
  wayfarer bench ike --only idle --peers 10000 --json")]
    Ike(BenchIke),
    /// Measures the ports of a configuration alone: packets from one go out by the next, unread.
    #[command(after_help = "\
One worker runs on the first core that the configuration names. NS/PACKET is its processor time for a packet received
and sent, the median of five rounds. Polls that find nothing count as well, so there should always be something to
receive: from a generator, DPDK's net_null, or net_pcap with infinite_rx=1.

The time that a gateway takes beyond this is its own. Frames are sent on as they came: do not run this on a network that
others use.

Example, with a build that has DPDK:
  wayfarer bench ports conf/bench-ports.toml")]
    Ports(BenchPorts),
    /// Measures a device under test on real ports: rates, latencies, losses, bursts (RFC 2544).
    #[command(after_help = "\
Numbered, time-stamped UDP frames go out by --port and must come back by --peer-port, through a device under test or a
cable; --direction reverses that. Each combination of direction, size and test is a row. Rates are those of all
directions and threads together. Only frames that the devices really took count as offered.

  throughput    the highest rate without loss: the interval between a rate that passes and one that does not is halved
                (RFC 2544 section 26.1)
  latency       at the throughput, or at --rate: streams of two --trial each, of whose second half frames count
                (section 26.2; RFC 8219 sections 7.2 and 7.3.1)
  loss          at 100 %, 90 %, 80 % ... of the highest rate, until two in a row lose nothing (section 26.3)
  back-to-back  the longest burst without loss, up to two seconds (section 26.4)
  rate          loss and latencies at --rate

With --esp, frames are in ESP on --port and in clear on --peer-port, and --size is that in clear. FILE is the
configuration of the far end of the device's tunnels, with a fixed remote. Its ports are not opened. A device refuses
sequence numbers that it knows, and goes on from its own: the next run needs the last ones of both directions, which are
on standard error and in the report, as `sequence` of `outbound` and `inbound` in FILE.

It needs the same rights as a gateway on network devices. The kernel keeps the devices' addresses and answers ARP for
them; --dst must not be one of the kernel's own addresses. A router under test needs a route and a neighbour for it:

  ip route add 198.19.0.0/16 dev OUT && ip neigh add 198.19.0.1 lladdr PEER-PORT'S-MAC dev OUT

Examples:
  wayfarer bench rate --port eth1 --peer-port eth2                       a cable from one to the other
  wayfarer bench rate --port eth1 --peer-port eth2 --dst-mac 02:00:00:00:00:01 --flows 256 \\
    --test throughput,latency,loss,back-to-back --report run.json,run.csv,run.html
  wayfarer bench rate --port eth1 --peer-port eth2 --dst-mac 02:00:00:00:00:01 --esp conf/bench-rate.toml --size 64,imix
  wayfarer bench rate --port eth1 --peer-port eth2 --replay traffic.pcap --test rate --rate 200000 --trial 10")]
    Rate(Box<BenchRate>),
}

/// Options of `wayfarer bench ike`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct BenchIke {
    /// Figures to measure, in this order [default: all].
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = Mode::ALL, hide_default_value = true)]
    pub only: Vec<Mode>,
    /// Number of connected peers; figures other than idle take 10000 at most.
    #[arg(long, value_name = "N", default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(ike::Options::MOST)))]
    pub peers: u32,
    /// Seconds to measure for each figure, 0.01 to 60.
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    pub seconds: Duration,
    /// Prints one JSON object for each row instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Options of `wayfarer bench ports`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct BenchPorts {
    /// The configuration with the ports.
    #[arg(value_name = "FILE")]
    pub config: PathBuf,
    /// Seconds to measure, 0.01 to 60.
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    pub seconds: Duration,
    /// Prints a JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Options of `wayfarer bench crypto`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct BenchCrypto {
    /// Operations: seal, open.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "seal,open")]
    pub operation: Vec<Operation>,
    /// Lengths of an inner packet, in bytes with its IP header; or imix: 64, 576 and 1420 as 7 : 4
    /// : 1.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "64,512,1420")]
    pub size: Vec<Size>,
    /// Algorithms, by their names in a configuration.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "aes128gcm16", value_parser = cipher)]
    pub cipher: Vec<Suite>,
    /// Seconds for each operation, size and algorithm, 0.01 to 60.
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    pub seconds: Duration,
    /// Prints one JSON object for each row instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Options of `wayfarer bench esp`.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct BenchEsp {
    /// Directions of packets: out (sealed), in (opened), or both at once.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "out,in,both")]
    pub direction: Vec<Direction>,
    /// Lengths of an inner packet, in bytes with its IP header; or imix: 64, 576 and 1420 as 7 : 4
    /// : 1.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "64")]
    pub size: Vec<Size>,
    /// Numbers of tunnels, each with an SA in either direction.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1000",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(esp::Options::MOST)))]
    pub sas: Vec<u32>,
    /// Algorithms, by their names in a configuration.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "aes128gcm16", value_parser = cipher)]
    pub cipher: Vec<Suite>,
    /// Number of workers, each on a core of its own: no more than there are cores.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub workers: u16,
    /// Seconds of processor time to measure for each row, 0.01 to 60.
    #[arg(long, value_name = "S", default_value = "3", value_parser = seconds)]
    pub seconds: Duration,
    /// Size of the anti-replay window, in packets, 64 to 65536.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(64..=65536))]
    pub window: u32,
    /// Rate of moves to another address while packets flow, in terminals a second.
    #[arg(long, value_name = "RATE", default_value_t = 0)]
    pub roam: u32,
    /// Rate of tunnels added or removed beside those that carry packets, in tunnels a second.
    #[arg(long, value_name = "RATE", default_value_t = 0)]
    pub churn: u32,
    /// Flows that each worker remembers, 0 to 16777216, as `flow_cache` of a configuration.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1 << 24))]
    pub flow_cache: Option<u32>,
    /// Has each packet of a terminal come in two IP fragments, to one worker. Those of N packets, 1 to 32, come
    /// together: the first ones of all, then the last ones.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "1", conflicts_with = "workers",
        value_parser = clap::value_parser!(u32).range(1..=32))]
    pub fragments: Option<u32>,
    /// Fragments of strangers, which never get complete, for every hundred packets of terminals.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub flood: u32,
    /// Leaves out the header of the table.
    #[arg(long, hide = true)]
    pub no_titles: bool,
    /// Prints one JSON object for each row instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Parses the name of a suite. The ICV length in an AEAD's name is optional.
fn cipher(name: &str) -> Result<Suite, UnknownSuite> {
    name.parse().or_else(|why| format!("{name}16").parse().map_err(|_: UnknownSuite| why))
}

/// Parses the duration of a benchmark, in seconds.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 0.01..=60.0) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("must be from 0.01 to 60".to_owned()),
    }
}
