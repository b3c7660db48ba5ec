//! `wayfarer bench`.

pub(super) mod arguments;
mod rate_arguments;
mod report_files;

use super::failure::Failure;
use arguments::{Bench, BenchCrypto, BenchEsp, BenchIke, BenchPorts};
use rate_arguments::BenchRate;
use report_files::ReportFiles;
use serde::Serialize;
use std::{
    env,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process,
    time::{SystemTime, UNIX_EPOCH},
};
use wayfarer::{
    bench::{
        crypto, esp, ike, ports,
        rate::{self, Interrupt, RateError, Report, Traffic},
    },
    config,
};
use wayfarer_dataplane::table::Prefix;

pub(super) fn run(what: &Bench) -> Result<(), Failure> {
    match what {
        Bench::Esp(options) => esp(options),
        Bench::Crypto(options) => crypto(options),
        Bench::Ike(options) => ike(options),
        Bench::Ports(options) => ports(options),
        Bench::Rate(options) => rate(options),
    }
}

fn esp(options: &BenchEsp) -> Result<(), Failure> {
    esp::check_cores(usize::from(options.workers)).map_err(|why| Failure::Gateway(why.to_string()))?;
    if !options.json && !options.no_titles {
        writeln!(io::stdout(), "{}", esp::Row::titles())?;
    }
    if options.sas.len() * options.cipher.len() > 1 {
        return apart(options);
    }
    let what = esp::Options {
        directions: options.direction.clone(),
        sizes: options.size.clone(),
        sas: options.sas.clone(),
        ciphers: options.cipher.clone(),
        workers: usize::from(options.workers),
        duration: options.seconds,
        window: options.window,
        roam: options.roam,
        churn: options.churn,
        flow_cache: options.flow_cache,
        fragments: esp::Fragments { together: options.fragments.unwrap_or(0), flood: options.flood },
    };
    let mut rows = Rows::new(options.json);
    let done = esp::run(&what, |row| rows.show(row, esp::Row::line));
    rows.written?;
    done.map_err(|why| Failure::Gateway(why.to_string()))
}

fn crypto(options: &BenchCrypto) -> Result<(), Failure> {
    let BenchCrypto { operation, size, cipher, seconds, json } = options.clone();
    let what = crypto::Options { operations: operation, sizes: size, ciphers: cipher, duration: seconds };
    if !json {
        writeln!(io::stdout(), "{}", crypto::Row::titles())?;
    }
    let mut rows = Rows::new(json);
    let done = crypto::run(&what, |row| rows.show(row, crypto::Row::line));
    rows.written?;
    done.map_err(|why| Failure::Gateway(why.to_string()))
}

fn ike(options: &BenchIke) -> Result<(), Failure> {
    let BenchIke { only, peers, seconds, json } = options.clone();
    if !json {
        writeln!(io::stdout(), "{}", ike::Row::titles())?;
    }
    let mut rows = Rows::new(json);
    let done = ike::run(&ike::Options { modes: only, peers, duration: seconds }, |row| {
        rows.show(row, ike::Row::line);
    });
    rows.written?;
    done.map_err(|why| Failure::Gateway(why.to_string()))
}

fn ports(options: &BenchPorts) -> Result<(), Failure> {
    let config = config::load(&options.config)?;
    let row = ports::run(config, options.seconds).map_err(|why| Failure::Gateway(why.to_string()))?;
    if !options.json {
        writeln!(io::stdout(), "{}", ports::Row::titles())?;
    }
    let mut rows = Rows::new(options.json);
    rows.show(&row, ports::Row::line);
    Ok(rows.written?)
}

fn rate(options: &BenchRate) -> Result<(), Failure> {
    let what = rate_options(options)?;
    let arguments = env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let interrupt = Interrupt::by_signals()
        .map_err(|why| Failure::Gateway(format!("cannot watch for signals: {why}")))?;
    // Made before anything is measured, which may take hours.
    let files = ReportFiles::new(&options.report).map_err(Failure::Gateway)?;
    if !options.json {
        writeln!(io::stdout(), "{}", rate::Row::titles())?;
    }
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let (mut rows, mut all) = (Rows::new(options.json), Vec::new());
    let (numbers, done) = rate::run(&what, &interrupt, |row| {
        rows.show(row, rate::Row::line);
        all.push(row.clone());
    });
    // First of all: without these, the next run with the same keys fails. Nobody may be reading, but then
    // there are still the files.
    for rate::LastNumber { tunnel, number, received } in &numbers {
        let _ = writeln!(
            io::stderr(),
            "tunnel {tunnel}: last sequence numbers {number} sent, {received} received"
        );
    }
    if let Some(row) = all.first().filter(|row: &&rate::Row| row.left_out > 0) {
        let _ = writeln!(io::stderr(), "{} records of the capture were not sent", row.left_out);
    }
    let report = Report {
        program: format!("wayfarer {}", env!("CARGO_PKG_VERSION")),
        started,
        arguments,
        rows: all,
        numbers,
        interrupted: matches!(done, Err(RateError::Interrupted(_))),
        error: done.err().map(|why| why.to_string()),
    };
    let mut failures = files.write(&report);
    failures.extend(report.error);
    if let Some(signal) = interrupt.signal() {
        // Everything is written and closed, so the process may end here, as no `Failure` would have it end.
        failures.iter().for_each(|why| tracing::error!(name: "failed", "{why}"));
        signal.end_process();
    }
    if !failures.is_empty() {
        return Err(Failure::Gateway(failures.join("\n")));
    }
    Ok(rows.written?)
}

fn rate_options(options: &BenchRate) -> Result<rate::Options, Failure> {
    let traffic = match (&options.esp, &options.replay) {
        (Some(file), _) => {
            let tunnels = config::load(file)?.tunnels;
            if tunnels.is_empty() {
                return Err(Failure::Gateway(format!("{}: has no [[tunnel]]", file.display())));
            }
            Traffic::Esp { tunnels, ipv6: options.ipv6, flows: options.flows }
        }
        (None, Some(file)) => Traffic::Capture(file.clone()),
        (None, None) => {
            // Networks for benchmarks (RFC 2544 appendix C, RFC 5180 §8).
            let usual: [IpAddr; 2] = match options.ipv6 {
                false => [[198, 18, 0, 1], [198, 19, 0, 1]].map(|octets| Ipv4Addr::from(octets).into()),
                true => [[0x2001, 2, 0, 0, 0, 0, 0, 1], [0x2001, 2, 0, 0x8000, 0, 0, 0, 1]]
                    .map(|segments: [u16; 8]| Ipv6Addr::from(segments).into()),
            };
            let [src, dst] = usual.map(Prefix::host);
            Traffic::Clear {
                src: options.src.unwrap_or(src),
                dst: options.dst.unwrap_or(dst),
                flows: options.flows.unwrap_or(1),
            }
        }
    };
    Ok(rate::Options {
        port: options.port.clone(),
        peer_port: options.peer_port.clone(),
        kind: options.kind.into(),
        tests: options.test.clone(),
        directions: options.direction.clone(),
        traffic,
        sizes: options.size.clone(),
        threads: if options.cores.is_empty() { options.threads.into() } else { options.cores.len() },
        cores: options.cores.clone(),
        trial: options.trial,
        settle: options.settle,
        rate: options.rate,
        max_rate: options.max_rate,
        resolution: options.resolution,
        loss: options.loss,
        repeat: options.repeat,
        dst_macs: [options.dst_mac, options.peer_dst_mac],
    })
}

/// Writes rows to standard output, each as soon as it is measured.
struct Rows {
    json: bool,
    /// The first error of standard output, after which nothing more is written.
    written: io::Result<()>,
}

impl Rows {
    fn new(json: bool) -> Self {
        Self { json, written: Ok(()) }
    }

    fn show<R: Serialize>(&mut self, row: &R, line: impl Fn(&R) -> String) {
        if self.written.is_ok() {
            let line =
                if self.json { serde_json::to_string(row).map_err(io::Error::from) } else { Ok(line(row)) };
            self.written = line.and_then(|line| writeln!(io::stdout(), "{line}"));
        }
    }
}

/// Measures each gateway in its own process, so that no gateway reuses the memory of an earlier
/// one.
fn apart(options: &BenchEsp) -> Result<(), Failure> {
    let program = env::current_exe()?;
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(",");
    let directions = list(&mut options.direction.iter().map(ToString::to_string));
    let sizes = list(&mut options.size.iter().map(ToString::to_string));
    for cipher in &options.cipher {
        for sas in &options.sas {
            let mut child = process::Command::new(&program);
            child.args(["bench", "esp", "--no-titles", "--direction", &directions, "--size", &sizes]);
            child.args(["--cipher", &cipher.to_string(), "--sas", &sas.to_string()]);
            for (name, value) in [
                ("--window", u64::from(options.window)),
                ("--roam", u64::from(options.roam)),
                ("--churn", u64::from(options.churn)),
                ("--flood", u64::from(options.flood)),
            ] {
                child.args([name, &value.to_string()]);
            }
            child.args(["--seconds", &options.seconds.as_secs_f64().to_string()]);
            for (name, value) in [
                ("--workers", (options.workers > 1).then(|| options.workers.into())),
                ("--fragments", options.fragments),
                ("--flow-cache", options.flow_cache),
            ] {
                child.args(value.map(|value| format!("{name}={value}")));
            }
            child.args(options.json.then_some("--json"));
            // The process has reported the reason on standard error.
            if !child.status()?.success() {
                return Err(Failure::Gateway(format!("nothing measured with {sas} SAs of {cipher}")));
            }
        }
    }
    Ok(())
}
