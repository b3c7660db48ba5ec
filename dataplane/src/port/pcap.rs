//! Capture files as a port: pcap and pcapng, read and written.
//!
//! The format of the input is recognised by its first bytes; that of the output is chosen by its
//! name (`.pcapng`, otherwise pcap). Unlike the other ports, this one allocates and waits for the
//! file system.

use super::{Port, PortError, PortStats};
use crate::{
    packet::Burst,
    pool::{HEADROOM, Pool},
};
use pcap_file::{
    DataLink, PcapError,
    pcap::{PcapPacket, PcapReader, PcapWriter},
    pcapng::{
        Block, PcapNgReader, PcapNgWriter,
        blocks::{
            enhanced_packet::EnhancedPacketBlock,
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};
use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufWriter, Read, Seek, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// First bytes of a pcapng file, the same in both byte orders (draft-ietf-opsawg-pcapng §4.1).
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Receives the packets of one capture file, and writes those that it sends to another.
pub struct PcapPort {
    input: Option<Input>,
    output: Option<Output>,
    stats: PortStats,
}

impl PcapPort {
    /// Opens the files. With no input the port is exhausted at once. With no output it counts
    /// packets and frees them.
    ///
    /// # Errors
    /// [`PortError::File`] if a file cannot be opened or is both input and output;
    /// [`PortError::Format`] if the input is not a capture of Ethernet frames.
    pub fn open(input: Option<&Path>, output: Option<&Path>) -> Result<Self, PortError> {
        if let (Some(from), Some(to)) = (input, output)
            && let (Ok(a), Ok(b)) = (from.metadata(), to.metadata())
            && (a.dev(), a.ino()) == (b.dev(), b.ino())
        {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is the input as well");
            return Err(PortError::File { path: to.to_owned(), action: "write", source });
        }
        Ok(Self {
            input: input.map(Input::open).transpose()?,
            output: output.map(Output::create).transpose()?,
            stats: PortStats::default(),
        })
    }
}

/// Returns all frames of a capture file, for a [`Generator`](super::generator::Generator).
///
/// # Errors
/// Those of [`PcapPort::open`], and [`PortError::Format`] if a record is broken.
pub fn read(path: &Path) -> Result<Vec<Vec<u8>>, PortError> {
    let mut input = Input::open(path)?;
    let mut frames = Vec::new();
    while let Some(frame) = input.next(|frame| {
        frames.push(frame.to_vec());
        Some(())
    }) {
        frame.map_err(|e| PortError::Format { path: path.into(), reason: format!("broken record: {e}") })?;
    }
    Ok(frames)
}

impl Port for PcapPort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        while burst.room() > 0 {
            let Some(input) = &mut self.input else { return };
            let Some(mut packet) = pool.take() else { return };
            let mut fits = true;
            let mut take = |frame: &[u8]| {
                let filled = packet.fill(HEADROOM, frame);
                fits = filled.is_some();
                filled
            };
            match input.next(&mut take) {
                Some(Ok(Some(()))) => {
                    self.stats.received(&packet);
                    burst.push(packet);
                    continue;
                }
                Some(Ok(None)) if !fits => self.stats.rx_oversize += 1,
                Some(Ok(None)) => self.stats.rx_errors += 1,
                // The records behind a broken one cannot be found.
                Some(Err(_)) => {
                    self.stats.rx_errors += 1;
                    self.input = None;
                }
                None => self.input = None,
            }
            pool.give(packet);
        }
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        if let Some(output) = &mut self.output
            && !burst.is_empty()
        {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            for packet in burst.iter() {
                match output.write(now, packet.data()) {
                    Ok(()) => self.stats.sent(packet),
                    Err(_) => self.stats.tx_errors += 1,
                }
            }
        } else {
            burst.iter().for_each(|packet| self.stats.sent(packet));
        }
        pool.give_all(burst);
    }

    fn flush(&mut self, _pool: &mut Pool) {
        if let Some(output) = &mut self.output
            && output.file.flush().is_err()
        {
            self.stats.tx_errors += 1;
        }
    }

    fn is_exhausted(&self) -> bool {
        self.input.is_none()
    }

    fn refused(&self) -> u64 {
        self.stats.tx_errors
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}

enum Input {
    Pcap(PcapReader<File>),
    PcapNg(PcapNgReader<File>),
}

impl Input {
    fn open(path: &Path) -> Result<Self, PortError> {
        let failed = |source| PortError::File { path: path.to_owned(), action: "read", source };
        let strange = |reason: String| PortError::Format { path: path.to_owned(), reason };
        let corrupt = |error| match error {
            PcapError::IoError(e) if e.kind() != io::ErrorKind::UnexpectedEof => failed(e),
            PcapError::IoError(_) => strange("not a capture: too short".into()),
            other => strange(format!("not a capture: {other}")),
        };
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = [0; 4];
        match file.read_exact(&mut magic) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(strange("not a capture: too short".into()));
            }
            other => other.map_err(failed)?,
        }
        file.rewind().map_err(failed)?;
        let (input, link) = if magic == PCAPNG_MAGIC {
            let mut reader = PcapNgReader::new(file).map_err(corrupt)?;
            // Reads blocks up to the first interface; a packet cannot come before it.
            while reader.interfaces().is_empty() {
                match reader.next_block() {
                    Some(Ok(Block::EnhancedPacket(_) | Block::SimplePacket(_) | Block::Packet(_))) => {
                        return Err(strange("a packet before any interface".into()));
                    }
                    Some(block) => drop(block.map_err(corrupt)?),
                    None => break,
                }
            }
            let link = reader.interfaces().first().map_or(DataLink::ETHERNET, |i| i.linktype);
            (Self::PcapNg(reader), link)
        } else {
            let reader = PcapReader::new(file).map_err(corrupt)?;
            let link = reader.header().datalink;
            (Self::Pcap(reader), link)
        };
        if link != DataLink::ETHERNET {
            return Err(strange(format!("link type {link:?}, but only Ethernet can be read")));
        }
        Ok(input)
    }

    /// Passes the next frame to `take`, which returns `None` if it cannot use the frame.
    fn next(&mut self, take: impl FnOnce(&[u8]) -> Option<()>) -> Option<Result<Option<()>, PcapError>> {
        match self {
            // The raw record, because the library refuses records beyond a snapshot length that
            // many writers get wrong.
            Self::Pcap(reader) => Some(
                reader
                    .next_raw_packet()?
                    .map(|record| if record.incl_len < record.orig_len { None } else { take(&record.data) }),
            ),
            Self::PcapNg(reader) => loop {
                let (interface, len, data) = match reader.next_block()? {
                    Err(e) => return Some(Err(e)),
                    Ok(Block::EnhancedPacket(p)) => (p.interface_id, p.original_len, p.data.into_owned()),
                    Ok(Block::Packet(p)) => (p.interface_id.into(), p.original_len, p.data.into_owned()),
                    Ok(Block::SimplePacket(p)) => {
                        // The data of the block still has its padding.
                        let mut data = p.data.into_owned();
                        data.truncate(p.original_len as usize);
                        (0, p.original_len, data)
                    }
                    Ok(_) => continue,
                };
                let Some(interface) = reader.interfaces().get(interface as usize) else {
                    return Some(Err(PcapError::InvalidInterfaceId(interface)));
                };
                let usable = interface.linktype == DataLink::ETHERNET && data.len() >= len as usize;
                return Some(Ok(if usable { take(&data) } else { None }));
            },
        }
    }
}

/// A file that can be flushed from outside, because the library's writers do not give access to
/// theirs.
#[derive(Clone)]
struct SharedFile(Arc<Mutex<BufWriter<File>>>);

impl Write for SharedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

enum Format {
    Pcap(PcapWriter<SharedFile>),
    PcapNg(PcapNgWriter<SharedFile>),
}

struct Output {
    format: Format,
    file: SharedFile,
}

impl Output {
    fn create(path: &Path) -> Result<Self, PortError> {
        let failed = |source| PortError::File { path: path.to_owned(), action: "write", source };
        let file = SharedFile(Arc::new(Mutex::new(BufWriter::new(File::create(path).map_err(failed)?))));
        let format = if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("pcapng")) {
            PcapNgWriter::new(file.clone()).and_then(|mut writer| {
                writer.write_pcapng_block(InterfaceDescriptionBlock {
                    linktype: DataLink::ETHERNET,
                    snaplen: 0,
                    // The library writes nanoseconds; the format's default would be microseconds.
                    options: vec![InterfaceDescriptionOption::IfTsResol(9)],
                })?;
                Ok(Format::PcapNg(writer))
            })
        } else {
            PcapWriter::new(file.clone()).map(Format::Pcap)
        };
        let format = format.map_err(|e| failed(io::Error::other(e)))?;
        Ok(Self { format, file })
    }

    fn write(&mut self, timestamp: Duration, frame: &[u8]) -> Result<(), PcapError> {
        let (data, original_len) = (Cow::Borrowed(frame), frame.len() as u32);
        match &mut self.format {
            Format::Pcap(writer) => {
                writer.write_packet(&PcapPacket { timestamp, orig_len: original_len, data })
            }
            Format::PcapNg(writer) => writer.write_pcapng_block(EnhancedPacketBlock {
                interface_id: 0,
                timestamp,
                original_len,
                data,
                options: vec![],
            }),
        }
        .map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcap::PcapHeader;
    use proptest::prelude::*;
    use std::path::PathBuf;

    /// The folder of one test, removed when the test ends.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("wayfarer-pcap-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn write(path: &Path, frames: &[Vec<u8>]) {
        let mut pool = Pool::new(64, 2048).unwrap();
        let mut port = PcapPort::open(None, Some(path)).unwrap();
        for frame in frames {
            let (mut burst, mut packet) = (Burst::new(), pool.take().unwrap());
            packet.fill(HEADROOM, frame).unwrap();
            burst.push(packet);
            port.tx(&mut pool, &mut burst);
            assert!(burst.is_empty());
        }
        port.flush(&mut pool);
        assert_eq!(port.stats().tx_packets, frames.len() as u64);
        assert_eq!(pool.available(), 64);
    }

    fn read(path: &Path) -> (Vec<Vec<u8>>, PortStats) {
        let mut pool = Pool::new(64, 2048).unwrap();
        let mut port = PcapPort::open(Some(path), None).unwrap();
        let mut frames = Vec::new();
        while !port.is_exhausted() {
            let mut burst = Burst::new();
            port.rx(&mut pool, &mut burst);
            frames.extend(burst.iter().map(|p| p.data().to_vec()));
            pool.give_all(&mut burst);
        }
        assert_eq!(pool.available(), 64);
        (frames, port.stats())
    }

    fn samples() -> Vec<Vec<u8>> {
        (0..150).map(|i| (0..60 + i * 11).map(|b| (b * 7 + i) as u8).collect()).collect()
    }

    #[test]
    fn both_formats_return_the_written_frames() {
        let folder = Folder::new("both");
        for name in ["a.pcap", "a.pcapng", "A.PCAPNG", "plain"] {
            write(&folder.file(name), &samples());
            let is_ng = std::fs::read(folder.file(name)).unwrap()[..4] == PCAPNG_MAGIC;
            assert_eq!(is_ng, name.to_lowercase().ends_with("ng"), "{name}");
            let (frames, stats) = read(&folder.file(name));
            assert_eq!(frames, samples(), "{name}");
            assert_eq!((stats.rx_packets, stats.rx_errors), (150, 0));
        }
    }

    #[test]
    fn every_truncation_ends_without_a_panic() {
        let folder = Folder::new("cut");
        for name in ["a.pcap", "a.pcapng"] {
            let (whole, cut) = (folder.file(name), folder.file("cut"));
            write(&whole, &samples()[..2]);
            let bytes = std::fs::read(&whole).unwrap();
            for len in 0..bytes.len() {
                std::fs::write(&cut, &bytes[..len]).unwrap();
                let Ok(_) = PcapPort::open(Some(&cut), None) else { continue };
                let (frames, stats) = read(&cut);
                assert!(frames.len() < 2 && stats.rx_errors <= 1, "{name} cut to {len}");
                assert_eq!(frames[..], samples()[..frames.len()]);
            }
        }
    }

    #[test]
    fn every_flipped_byte_ends_without_a_panic() {
        let folder = Folder::new("flip");
        for name in ["a.pcap", "a.pcapng"] {
            let (whole, flipped) = (folder.file(name), folder.file("flipped"));
            write(&whole, &[vec![1; 60], vec![2; 61]]);
            let bytes = std::fs::read(&whole).unwrap();
            for at in 0..bytes.len() {
                let mut bytes = bytes.clone();
                bytes[at] ^= 0xff;
                std::fs::write(&flipped, &bytes).unwrap();
                if PcapPort::open(Some(&flipped), None).is_ok() {
                    assert!(read(&flipped).0.len() <= 2);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_bytes_behind_a_header_end_without_a_panic(
            rest in proptest::collection::vec(any::<u8>(), 0..200),
            blocks in proptest::collection::vec((0u32..12, 12u32..64), 0..4),
        ) {
            let folder = Folder::new("any");
            for name in ["a.pcap", "a.pcapng"] {
                let path = folder.file(name);
                write(&path, &[vec![1; 60]]);
                let mut bytes = std::fs::read(&path).unwrap();
                // Blocks with correct type and lengths, so that their content is read.
                for (kind, len) in &blocks {
                    let (kind, len) = (kind.to_ne_bytes(), len.next_multiple_of(4));
                    let body: Vec<_> = rest.iter().copied().chain([0; 64]).take(len as usize - 12).collect();
                    bytes.extend([&kind[..], &len.to_ne_bytes(), &body, &len.to_ne_bytes()].concat());
                }
                bytes.extend(&rest);
                std::fs::write(&path, &bytes).unwrap();
                let (frames, _) = read(&path);
                prop_assert_eq!(&frames[0], &vec![1; 60]);
            }
        }
    }

    #[test]
    fn counts_frames_that_are_too_long_or_truncated() {
        let folder = Folder::new("long");
        let path = folder.file("a.pcap");
        let mut writer = PcapWriter::new(File::create(&path).unwrap()).unwrap();
        for (len, orig_len) in [(60, 60), (3000, 3000), (60, 1500), (70, 70)] {
            let data = Cow::Owned(vec![7; len]);
            writer.write_packet(&PcapPacket { timestamp: Duration::ZERO, orig_len, data }).unwrap();
        }
        drop(writer);
        let (frames, stats) = read(&path);
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [60, 70]);
        assert_eq!((stats.rx_packets, stats.rx_oversize, stats.rx_errors), (2, 1, 1));
    }

    #[test]
    fn errors_say_which_file_and_why() {
        let folder = Folder::new("errors");
        let path = folder.file("raw.pcap");
        let header = PcapHeader { datalink: DataLink::RAW, ..PcapHeader::default() };
        PcapWriter::with_header(File::create(&path).unwrap(), header).unwrap();
        let text = |input: &Path, output: Option<&Path>| {
            PcapPort::open(Some(input), output).err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert!(text(&path, None).ends_with("raw.pcap: link type RAW, but only Ethernet can be read"));
        assert!(text(&folder.file("none"), None).contains("cannot read"));
        std::fs::write(&path, b"no capture at all, and long enough").unwrap();
        assert!(text(&path, None).contains("not a capture"));
        write(&path, &samples()[..1]);
        assert!(text(&path, Some(&path)).contains("it is the input as well"));
        assert_eq!(read(&path).0.len(), 1);
        assert!(PcapPort::open(None, Some(&folder.file("no/such/folder"))).is_err());
    }
}
