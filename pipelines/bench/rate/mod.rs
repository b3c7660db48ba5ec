//! Measures a device under test, or a cable, as RFC 2544 says: throughput, latency, loss and
//! back-to-back frames, with many flows, in both directions, by several threads.
//!
//! ```text
//! this program ═ --port ══► device under test, or a cable ══► --peer-port ═ this program
//!                 (ESP)                                        (in clear)
//! ```
//!
//! Frames are numbered and time-stamped UDP datagrams, also inside ESP, or those of a capture. Only
//! frames that a device took count as offered.
//!
//! | module | contents |
//! |---|---|
//! | `options`, `error`, [`Row`] | what is asked for, why there is no figure, the figures |
//! | `check` | what is refused before any device is opened |
//! | `sizes`, `flows`, `stamp`, `source` | frames: lengths, headers, marks, and the bursts made of them |
//! | `tunnels` | the other ends of the device's tunnels |
//! | `traffic`, `devices` | the options as sources of frames; open devices |
//! | `schedule` | when frames are due |
//! | `thread`, `tester`, `tally` | threads that send and receive, trials of all of them, their counts |
//! | [`Interrupt`] | ends a run before its time |
//! | `search`, `procedure`, `figures` | the tests, over any device |
//! | [`report`] | JSON, CSV and a page with plots |

mod check;
mod devices;
mod error;
mod figures;
mod flows;
mod interrupt;
mod options;
mod procedure;
pub mod report;
mod row;
mod schedule;
mod search;
mod sizes;
mod source;
mod stamp;
mod tally;
mod tester;
mod thread;
mod traffic;
mod tunnels;

pub use error::RateError;
pub use figures::{
    BackToBack, Curve, Figures, FixedRate, Latencies, Latency, Limit, Spread, Step, Throughput, TrialSummary,
};
pub use interrupt::{Interrupt, Signal};
pub use options::{Direction, Options, Size, Test, Traffic, Unknown};
pub use report::{LastNumber, Report};
pub use row::Row;

use super::Machine;
use check::check;
use core_affinity::CoreId;
use devices::Devices;
use procedure::{Procedure, TestRun};
use tester::Tester;
use thread::Equipment;
use traffic::Load;
use tunnels::Numbers;

/// Runs all tests until `interrupt` ends the run, and calls `each` with each row as soon as it is measured.
/// Returns the last sequence numbers of all tunnels, also after an error: with the same keys, the device
/// takes only higher ones. There are none if no device was opened.
pub fn run(
    options: &Options,
    interrupt: &Interrupt,
    mut each: impl FnMut(&Row),
) -> (Vec<LastNumber>, Result<(), RateError>) {
    let prepared = check(options).and_then(|cores| {
        let found = devices::find(options)?;
        let load = Load::new(options, &found)?;
        let devices = devices::open(&found, options.kind, &load.udp_ports, options.threads)?;
        Ok((cores, load, devices))
    });
    let (cores, mut load, devices) = match prepared {
        Ok(prepared) => prepared,
        Err(why) => return (Vec::new(), Err(why)),
    };
    let result = measure(options, interrupt, &cores, &mut load, devices, &mut each);
    let last = |numbers: &Numbers| LastNumber {
        tunnel: numbers.tunnel.clone(),
        number: numbers.sent(),
        received: numbers.received(),
    };
    (load.numbers.iter().map(last).collect(), result)
}

fn measure(
    options: &Options,
    interrupt: &Interrupt,
    cores: &[CoreId],
    load: &mut Load,
    devices: Devices,
    each: &mut impl FnMut(&Row),
) -> Result<(), RateError> {
    let Devices { lanes, drivers, speed, keep } = devices;
    let is_capture = matches!(options.traffic, Traffic::Capture(_));
    let sources = std::mem::take(&mut load.sources);
    let equipment = lanes.into_iter().zip(sources).map(|((ports, pool), sources)| Equipment {
        ports,
        pool,
        sources,
        openers: load.openers.clone(),
        is_capture,
    });
    let equipment = equipment.collect();
    let tunnels = load.numbers.iter().map(|numbers| numbers.tunnel.clone()).collect();
    let mut tester = Tester::start(equipment, cores, options.settle, interrupt.clone(), tunnels, Some(keep))?;
    for &direction in &options.directions {
        for &size in &load.sizes {
            tester.learn(direction, load.limits.packets(size), load.flows)?;
            let procedure = Procedure {
                trial: options.trial,
                max_rate: options.max_rate.map(f64::from),
                resolution: options.resolution,
                loss: options.loss,
                repeat: options.repeat,
                frame: load.mean(size),
            };
            let mut tests = TestRun::default();
            for &test in &options.tests {
                let machine = Machine::now();
                let figures = tests.run(test, options.rate.map(f64::from), &procedure, &mut tester)?;
                each(&Row {
                    figures,
                    direction,
                    size,
                    mean_size: procedure.frame,
                    ip: if load.ipv6 { 6 } else { 4 },
                    ciphers: load.ciphers.clone(),
                    tunnels: load.numbers.len(),
                    flows: load.flows,
                    left_out: load.left_out,
                    threads: options.threads,
                    drivers: drivers.clone(),
                    link_mbps: speed,
                    machine,
                });
            }
        }
    }
    Ok(())
}
