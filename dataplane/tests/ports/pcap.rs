//! Captures through FIFOs: nothing waits for the other end.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
};
use wayfarer_dataplane::{
    packet::Burst,
    pool::Pool,
    port::{
        Port, PortError,
        pcap::{Captures, PcapPort, Skip, Skipped},
    },
};

/// Bytes before the first record of a pcap file, and before each record's data.
const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// A folder with a FIFO, removed when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wayfarer-fifo-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        assert!(Command::new("mkfifo").arg(path.join("fifo")).status().unwrap().success());
        Self(path)
    }

    fn fifo(&self) -> PathBuf {
        self.0.join("fifo")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns a capture of `count` frames of `length` bytes, a second apart.
fn capture(count: u32, length: u32) -> Vec<u8> {
    let word = |word: u32| word.to_le_bytes();
    let mut bytes = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1].map(word).concat();
    for number in 0..count {
        bytes.extend([1_700_000_000 + number, 0, length, length].map(word).concat());
        bytes.extend(vec![number as u8; length as usize]);
    }
    bytes
}

fn open(input: Option<&Path>, output: Option<&Path>, captures: &Arc<Captures>) -> PcapPort {
    PcapPort::open(input, output, [2; 6], captures).unwrap()
}

/// Returns how many packets the port receives in one turn.
fn received(port: &mut PcapPort, pool: &mut Pool) -> usize {
    let mut burst = Burst::new();
    port.rx(pool, &mut burst);
    let count = burst.len();
    pool.give_all(&mut burst);
    count
}

#[test]
fn reads_what_has_come_and_ends_when_the_writer_leaves() {
    let (folder, mut pool) = (Folder::new("input"), Pool::new(64, 2048).unwrap());
    let mut port = open(Some(&folder.fifo()), None, &Arc::default());
    let mut turn = |port: &mut PcapPort| (received(port, &mut pool), port.is_exhausted());
    assert_eq!(turn(&mut port), (0, false), "nobody writes yet");
    let mut writer = OpenOptions::new().write(true).open(folder.fifo()).unwrap();
    assert_eq!(turn(&mut port), (0, false), "nothing written yet");
    let capture = capture(3, 100);
    let (first, rest) = capture.split_at(FILE_HEADER - 1);
    writer.write_all(first).unwrap();
    assert_eq!(turn(&mut port), (0, false), "half a header");
    let (second, rest) = rest.split_at(1 + 2 * (RECORD_HEADER + 100) + 50);
    writer.write_all(second).unwrap();
    assert_eq!(turn(&mut port), (2, false), "two records and a half");
    assert_eq!(turn(&mut port), (0, false));
    writer.write_all(rest).unwrap();
    drop(writer);
    assert_eq!(turn(&mut port), (1, true));
    assert!(port.report().skipped().is_empty() && port.report().take_failure().is_none());
}

#[test]
fn a_writer_that_stops_within_a_record_is_told_of() {
    let (folder, mut pool) = (Folder::new("cut"), Pool::new(64, 2048).unwrap());
    let mut port = open(Some(&folder.fifo()), None, &Arc::default());
    let capture = capture(2, 100);
    OpenOptions::new().write(true).open(folder.fifo()).unwrap().write_all(&capture[..200]).unwrap();
    assert_eq!((received(&mut port, &mut pool), port.is_exhausted()), (1, true));
    assert_eq!(port.report().skipped(), Skipped::from([(Skip::Truncated, 1)]));
}

#[test]
fn what_is_no_capture_is_known_when_it_comes() {
    let (folder, mut pool) = (Folder::new("strange"), Pool::new(64, 2048).unwrap());
    for (bytes, why) in [
        (&b""[..], "not a capture: too short"),
        (&[0x1f, 0x8b, 8, 0], "not a capture: it is compressed by gzip"),
        (&[7; 100], "not a capture: Invalid field value: PcapHeader: wrong magic number"),
    ] {
        let mut port = open(Some(&folder.fifo()), None, &Arc::default());
        OpenOptions::new().write(true).open(folder.fifo()).unwrap().write_all(bytes).unwrap();
        assert_eq!((received(&mut port, &mut pool), port.is_exhausted()), (0, true));
        let failure = port.report().take_failure().map(|failure| failure.to_string());
        assert_eq!(failure, Some(format!("{}: {why}", folder.fifo().display())));
    }
}

#[test]
fn inputs_wait_until_a_slow_reader_has_everything() {
    const COUNT: u32 = 3000;
    let (folder, mut pool) = (Folder::new("output"), Pool::new(64, 2048).unwrap());
    let file = folder.0.join("in.pcap");
    let whole = capture(COUNT, 1000);
    fs::write(&file, &whole).unwrap();
    let captures = Arc::default();
    let mut from = open(Some(&file), None, &captures);
    let mut to = open(None, Some(&folder.fifo()), &captures);
    let mut turn = |from: &mut PcapPort, to: &mut PcapPort| {
        let mut burst = Burst::new();
        from.rx(&mut pool, &mut burst);
        let count = burst.len();
        to.tx(&mut pool, &mut burst);
        assert!(burst.is_empty(), "nothing is lost");
        to.flush(&mut pool);
        count
    };
    while turn(&mut from, &mut to) > 0 {}
    assert!(from.stats().rx_packets < u64::from(COUNT) && !from.is_exhausted(), "the reader is waited for");
    let fifo = folder.fifo();
    let reader = thread::spawn(move || {
        let mut found = Vec::new();
        File::open(fifo).unwrap().read_to_end(&mut found).unwrap();
        found
    });
    while !(from.is_exhausted() && to.is_exhausted()) {
        turn(&mut from, &mut to);
        thread::yield_now();
    }
    assert!(to.is_drained());
    drop(to);
    assert!(reader.join().unwrap() == whole, "the same capture");
}

#[test]
fn a_reader_that_leaves_ends_the_output_only() {
    let (folder, mut pool) = (Folder::new("gone"), Pool::new(64, 2048).unwrap());
    let file = folder.0.join("in.pcap");
    fs::write(&file, capture(130, 100)).unwrap();
    let captures = Arc::default();
    let mut from = open(Some(&file), None, &captures);
    let mut to = open(None, Some(&folder.fifo()), &captures);
    let reader = OpenOptions::new().read(true).write(true).open(folder.fifo()).unwrap();
    to.flush(&mut pool);
    assert!(to.is_drained(), "the pipe has the header");
    drop(reader);
    // A program that another test starts at this moment has the reader too until it runs.
    let without_waiting =
        || OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(folder.fifo());
    while without_waiting().is_ok() {
        thread::yield_now();
    }
    while !(from.is_exhausted() && to.is_exhausted()) {
        let mut burst = Burst::new();
        from.rx(&mut pool, &mut burst);
        to.tx(&mut pool, &mut burst);
        assert!(burst.is_empty());
        to.flush(&mut pool);
    }
    assert_eq!((from.stats().rx_packets, pool.available()), (130, 64));
    // The first burst was taken before the pipe broke, which is one more error.
    assert_eq!((to.stats().tx_packets, to.stats().tx_errors), (64, 67));
    assert!(matches!(to.report().take_failure(), Some(PortError::File { action: "write", .. })));
}
