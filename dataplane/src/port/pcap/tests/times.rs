//! The times of packets, and what goes wrong with files.

use super::*;
use std::process::Command;

/// Writes a capture with a record for each of these times.
fn write_times(path: &Path, resolution: TsResolution, times: &[Duration]) {
    let header = PcapHeader { ts_resolution: resolution, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(File::create(path).unwrap(), header).unwrap();
    for (index, timestamp) in times.iter().enumerate() {
        let data = Cow::Owned(vec![index as u8; 60]);
        writer.write_packet(&PcapPacket { timestamp: *timestamp, orig_len: 60, data }).unwrap();
    }
}

/// Carries all packets of a capture with these records, in bursts, to a second port, after each
/// burst a packet that the gateway made. Returns the file that is written.
fn carry(folder: &Folder, resolution: TsResolution, times: &[Duration], output: &str) -> Vec<u8> {
    let (input, output) = (folder.file("in.pcap"), folder.file(output));
    write_times(&input, resolution, times);
    let (captures, mut pool) = (Arc::default(), Pool::new(80, 2048).unwrap());
    let mut from = PcapPort::open(Some(&input), None, MAC, &captures).unwrap();
    let mut to = PcapPort::open(None, Some(&output), MAC, &captures).unwrap();
    while !from.is_exhausted() {
        let mut burst = Burst::new();
        from.rx(&mut pool, &mut burst);
        to.tx(&mut pool, &mut burst);
        let mut own = pool.take().unwrap();
        own.fill(HEADROOM, &[0xff; 60]).unwrap();
        burst.push(own);
        to.tx(&mut pool, &mut burst);
        to.flush(&mut pool);
    }
    std::fs::read(output).unwrap()
}

#[test]
fn packets_keep_their_time_and_own_ones_get_the_last_that_was_read() {
    let folder = Folder::new("time");
    let times: Vec<_> = (0..70).map(|i| Duration::new(1_700_000_000 + i, 123_456_789)).collect();
    for (resolution, output) in [
        (TsResolution::NanoSecond, "o.pcapng"),
        (TsResolution::NanoSecond, "o.pcap"),
        (TsResolution::MicroSecond, "o.pcapng"),
        (TsResolution::MicroSecond, "o.pcap"),
    ] {
        let bytes = carry(&folder, resolution, &times, output);
        assert_eq!(bytes, carry(&folder, resolution, &times, output), "the same file each time");
        let unit = if resolution == TsResolution::MicroSecond { 1000 } else { 1 };
        let nanoseconds = |time: &Duration| time.as_nanos() as u64 / unit * unit;
        let mut expected: Vec<_> =
            (0..).zip(&times).map(|(index, time)| (Some(nanoseconds(time)), vec![index; 60])).collect();
        // After the first burst and after the second, in which the end is seen.
        for at in [64, 71] {
            expected.insert(at, (Some(nanoseconds(&times[at.min(70) - 1])), vec![0xff; 60]));
        }
        assert_eq!(receive_all(&folder.file(output)).0, expected, "{output}");
    }
}

#[test]
fn pcap_has_nanoseconds_if_an_input_may_have_them() {
    const MICROSECONDS: u32 = 0xa1b2_c3d4;
    const NANOSECONDS: u32 = 0xa1b2_3c4d;
    let folder = Folder::new("resolution");
    let [micro, nano, ng, fifo] = ["micro", "nano", "ng", "fifo"].map(|name| folder.file(name));
    write_times(&micro, TsResolution::MicroSecond, &[]);
    write_times(&nano, TsResolution::NanoSecond, &[]);
    write_pcapng(&ng, &[], &[]);
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (input, expected) in [
        (None, MICROSECONDS),
        (Some(&micro), MICROSECONDS),
        (Some(&nano), NANOSECONDS),
        (Some(&ng), NANOSECONDS),
        (Some(&fifo), NANOSECONDS),
    ] {
        // Outputs are opened before inputs of later ports.
        let (output, captures) = (folder.file("o.pcap"), Arc::default());
        let mut to = PcapPort::open(None, Some(&output), MAC, &captures).unwrap();
        let _from = PcapPort::open(input.map(PathBuf::as_path), None, MAC, &captures).unwrap();
        assert!(!to.is_drained(), "the header is missing");
        to.flush(&mut Pool::new(64, 2048).unwrap());
        let bytes = std::fs::read(output).unwrap();
        assert_eq!((to.is_drained(), &bytes[..4]), (true, &expected.to_ne_bytes()[..]), "{input:?}");
    }
}

#[test]
fn packets_get_the_present_time_if_no_capture_is_read() {
    let folder = Folder::new("present");
    let path = folder.file("a.pcap");
    let seconds = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let before = seconds();
    write(&path, &samples()[..1]);
    let found = receive_all(&path).0[0].0.unwrap() / 1_000_000_000;
    assert!((before..=seconds()).contains(&found), "{found}");
}

#[test]
fn errors_say_which_file_and_why() {
    let folder = Folder::new("errors");
    let path = folder.file("radio.pcap");
    write_link_type(&path, 105, &[]);
    let text = |input: &Path, output: Option<&Path>| {
        open(Some(input), output).err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert!(text(&path, None).ends_with("radio.pcap: link type 105 (IEEE802_11) is not supported"));
    assert!(text(&folder.file("none"), None).contains("cannot read"));
    std::fs::write(&path, b"no capture at all, and long enough").unwrap();
    assert!(text(&path, None).contains("not a capture"));
    std::fs::write(&path, [0x1f, 0x8b, 8, 0]).unwrap();
    assert!(text(&path, None).ends_with("not a capture: it is compressed by gzip"));
    std::fs::write(&path, b"").unwrap();
    assert!(text(&path, None).ends_with("not a capture: too short"));
    write(&path, &samples()[..1]);
    assert!(text(&path, Some(&path)).contains("it is the input as well"));
    assert_eq!(read(&path).0.len(), 1);
    assert!(open(None, Some(&folder.file("no/such/folder"))).is_err());
}
