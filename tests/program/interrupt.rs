//! Signals to `wayfarer bench rate`. Those that interrupt a measurement need devices: see the live tests.

use crate::cli::wayfarer;
use nix::{fcntl::OFlag, sys::stat::Mode, unistd::mkfifo};
use std::{
    fs::File,
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::{fs::OpenOptionsExt, process::ExitStatusExt},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How long a test waits for an expected event.
const PATIENCE: Duration = Duration::from_secs(20);
/// Signals within this time after the first one are the same one.
const DOUBLED: Duration = Duration::from_millis(100);

/// A run that hangs as it writes its report outlives the first signal, even if that comes several times at
/// once, and ends by a later one.
#[test]
fn second_signal_ends_a_run_that_does_not_stop() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("run.html");
    let part = folder.path().join("run.html.part");
    mkfifo(&part, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mut options = File::options();
    let mut full = options.read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&part).unwrap();
    let why = loop {
        match full.write(&[0; 4096]) {
            Ok(written) => assert!(written > 0),
            Err(why) => break why,
        }
    };
    assert_eq!(why.kind(), ErrorKind::WouldBlock);

    // It is refused before any device is opened, and the report says so.
    let arguments = ["bench", "rate", "--port", "lo", "--test", "latency", "--replay", "in.pcap", "--report"];
    let mut run = wayfarer(&arguments).arg(&report).stdout(Stdio::piped()).spawn().unwrap();
    let mut titles = String::new();
    // From then on it watches for signals.
    BufReader::new(run.stdout.take().unwrap()).read_line(&mut titles).unwrap();
    assert!(titles.starts_with("TEST "), "{titles}");
    let (process, start) = (run.id().to_string(), Instant::now());
    let status = loop {
        assert!(Command::new("kill").args(["-INT", &process]).status().unwrap().success());
        if let Some(status) = run.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < PATIENCE, "the run goes on");
    };
    assert!(start.elapsed() >= DOUBLED, "{:?}", start.elapsed());
    assert_eq!(status.signal(), Some(2), "{status}");
    assert!(!report.exists());
}
