//! `wayfarer bench`.

use super::{
    Failure,
    arguments::{Bench, BenchEsp},
};
use std::io::{self, Write};
use wayfarer::bench::esp::{self, Row};

pub(super) fn run(what: &Bench) -> Result<(), Failure> {
    match what {
        Bench::Esp(options) => esp(options),
    }
}

fn esp(options: &BenchEsp) -> Result<(), Failure> {
    let BenchEsp { direction, size, sas, cipher, workers, seconds, window, json } = options.clone();
    let what = esp::Options {
        directions: direction,
        sizes: size,
        sas,
        ciphers: cipher,
        workers: usize::from(workers),
        duration: seconds,
        window,
    };
    let mut out = io::stdout().lock();
    if !json {
        writeln!(out, "{}", Row::titles())?;
    }
    let mut written = Ok(());
    let done = esp::run(&what, |row| {
        let line = if json { serde_json::to_string(row).map_err(io::Error::from) } else { Ok(row.line()) };
        // What was measured is shown at once; where nobody reads, the first failure is kept.
        let shown = line.and_then(|line| writeln!(out, "{line}"));
        written = std::mem::replace(&mut written, Ok(())).and(shown);
    });
    written?;
    done.map_err(|why| Failure::Gateway(why.to_string()))
}
