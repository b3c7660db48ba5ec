//! `wayfarer demo`.

use super::failure::Failure;
use clap::Args;
use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};
use wayfarer::demo::{self, Options};

/// Options of the demonstration.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Demo {
    /// How long to run, in seconds.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Number of terminals.
    #[arg(long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(Options::MOST)))]
    pub terminals: u32,
    /// How often each terminal moves, in milliseconds on average, at least 10.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..))]
    pub move_every: u64,
    /// Length of an inner packet, in bytes, 64 to 1400.
    #[arg(long, value_name = "BYTES", default_value_t = 512, value_parser = clap::value_parser!(u16).range(64..=1400))]
    pub size: u16,
    /// How long a packet may be in flight to a terminal's previous address, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pub in_flight: u64,
    /// Prints one JSON object instead of progress and a table.
    #[arg(long)]
    pub json: bool,
}

/// Runs the demonstration. Shows progress on standard error if that is a terminal.
pub(super) fn run(options: &Demo) -> Result<(), Failure> {
    let watched = !options.json && io::stderr().is_terminal();
    let what = Options {
        duration: Duration::from_secs(options.seconds),
        terminals: options.terminals,
        move_every: Duration::from_millis(options.move_every),
        size: usize::from(options.size),
        in_flight: Duration::from_millis(options.in_flight),
    };
    let report = demo::run(&what, |so_far| {
        if watched {
            // An error of the progress display does not end the run.
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
