//! Writes capture files and pipes, as fast as these take it.

use super::captures::Captures;
use crate::port::PortError;
use pcap_file::{
    DataLink, Endianness, PcapError, TsResolution,
    pcap::PcapHeader,
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::EnhancedPacketBlock,
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};
use std::{
    borrow::Cow,
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// The backlog of a pipe, in bytes, beyond which no input is read.
const CONGESTED: usize = 1 << 20;
/// The backlog of a pipe, in bytes, beyond which it takes no packets.
const FULL: usize = 16 << 20;

/// An output, and what it has not taken yet.
pub(super) struct Output {
    path: PathBuf,
    sink: Sink,
    format: Format,
    backlog: VecDeque<u8>,
    is_congested: bool,
    captures: Arc<Captures>,
}

enum Sink {
    File(File),
    /// A FIFO, never waited for; `None` as long as nobody reads it.
    Pipe(Option<File>),
    /// An output that failed.
    Closed,
}

enum Format {
    /// The resolution of times; `None` until the header is written.
    Pcap(Option<TsResolution>),
    PcapNg(PcapNgWriter<Vec<u8>>),
}

impl Output {
    /// Makes a file, or takes a FIFO that exists, without waiting for its reader. The format is
    /// pcapng if the name says so, otherwise pcap.
    ///
    /// # Errors
    /// [`PortError::File`] if the file cannot be written.
    pub(super) fn create(path: &Path, captures: Arc<Captures>) -> Result<Self, PortError> {
        let failed = |source| PortError::File { path: path.to_owned(), action: "write", source };
        let is_pipe = path.metadata().is_ok_and(|found| found.file_type().is_fifo());
        let sink = if is_pipe { Sink::Pipe(None) } else { Sink::File(File::create(path).map_err(failed)?) };
        let is_pcapng = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("pcapng"));
        let (format, header) = match is_pcapng {
            true => Format::pcapng().map_err(|why| failed(io::Error::other(why)))?,
            false => (Format::Pcap(None), Vec::new()),
        };
        let path = path.to_owned();
        Ok(Self { path, sink, format, backlog: header.into(), is_congested: false, captures })
    }

    /// Returns whether so much waits for the reader of the pipe that it must not become more.
    pub(super) fn is_full(&self) -> bool {
        self.backlog.len() > FULL
    }

    /// Returns whether everything is written.
    pub(super) fn is_drained(&self) -> bool {
        self.backlog.is_empty() && !matches!(self.format, Format::Pcap(None))
    }

    /// Appends the header of pcap unless that is done. All inputs are open by now.
    fn begin(&mut self) -> io::Result<()> {
        if let Format::Pcap(resolution @ None) = &mut self.format {
            let ts_resolution = match self.captures.has_nanoseconds() {
                true => TsResolution::NanoSecond,
                false => TsResolution::MicroSecond,
            };
            *resolution = Some(ts_resolution);
            let header =
                PcapHeader { ts_resolution, endianness: Endianness::native(), ..PcapHeader::default() };
            header.write_to(&mut self.backlog).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Appends a frame that passed at `time`, in nanoseconds since 1970. Returns whether that is
    /// possible.
    pub(super) fn write(&mut self, time: u64, frame: &[u8]) -> bool {
        if matches!(self.sink, Sink::Closed) || self.begin().is_err() {
            return false;
        }
        let (timestamp, original_len) = (Duration::from_nanos(time), frame.len() as u32);
        match &mut self.format {
            Format::Pcap(resolution) => {
                let seconds = timestamp.as_secs().try_into().unwrap_or(u32::MAX);
                let fraction = match resolution {
                    Some(TsResolution::NanoSecond) => timestamp.subsec_nanos(),
                    _ => timestamp.subsec_micros(),
                };
                for word in [seconds, fraction, original_len, original_len] {
                    self.backlog.extend(word.to_ne_bytes());
                }
                self.backlog.extend(frame);
            }
            Format::PcapNg(writer) => {
                let data = Cow::Borrowed(frame);
                let block =
                    EnhancedPacketBlock { interface_id: 0, timestamp, original_len, data, options: vec![] };
                if writer.write_pcapng_block(block).is_err() {
                    return false;
                }
                self.backlog.extend(writer.get_mut().drain(..));
            }
        }
        true
    }

    /// Writes the backlog, or as much of it as a pipe takes.
    ///
    /// # Errors
    /// [`PortError::File`], once. From then on the output takes nothing.
    pub(super) fn flush(&mut self) -> Result<(), PortError> {
        let begun = self.begin();
        let written =
            begun.and_then(|()| if self.backlog.is_empty() { Ok(()) } else { self.write_backlog() });
        if written.is_err() {
            self.sink = Sink::Closed;
            self.backlog.clear();
        }
        let is_congested = !matches!(self.sink, Sink::File(_)) && self.backlog.len() > CONGESTED;
        if is_congested != self.is_congested {
            self.is_congested = is_congested;
            self.captures.set_congested(is_congested);
        }
        written.map_err(|source| PortError::File { path: self.path.clone(), action: "write", source })
    }

    fn write_backlog(&mut self) -> io::Result<()> {
        let file = match &mut self.sink {
            Sink::File(file) => file,
            Sink::Pipe(Some(file)) => file,
            Sink::Pipe(pipe) => {
                let options = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&self.path);
                match options {
                    Ok(file) => pipe.insert(file),
                    // Nobody reads yet (fifo(7)).
                    Err(why) if why.raw_os_error() == Some(libc::ENXIO) => return Ok(()),
                    Err(why) => return Err(why),
                }
            }
            Sink::Closed => return Ok(()),
        };
        while !self.backlog.is_empty() {
            match file.write(self.backlog.as_slices().0) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.backlog.drain(..written)),
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => break,
                Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }
}

impl Format {
    /// Returns pcapng and the blocks before its packets.
    fn pcapng() -> Result<(Self, Vec<u8>), PcapError> {
        let mut writer = PcapNgWriter::new(Vec::new())?;
        writer.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            // The library writes nanoseconds; the format's default would be microseconds.
            options: vec![InterfaceDescriptionOption::IfTsResol(9)],
        })?;
        let header = std::mem::take(writer.get_mut());
        Ok((Self::PcapNg(writer), header))
    }
}
