//! Reads capture files and pipes, as far as they have come.

use super::{link_type::LinkType, report::Skip};
use crate::port::{PortError, sys};
use pcap_file::{
    PcapError, TsResolution,
    pcap::PcapParser,
    pcapng::{
        Block, PcapNgParser,
        blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
    },
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    ops::Range,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// First bytes of a pcapng file, the same in both byte orders (draft-ietf-opsawg-pcapng §4.1).
pub(super) const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// First bytes of a file that gzip has compressed (RFC 1952 §2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The number of bytes read at once.
const PIECE: u64 = 64 << 10;
/// The longest record, in bytes, that is not taken for a broken one.
const LONGEST: usize = 8 << 20;
/// The descriptions of interfaces, in bytes, that one section of a pcapng file may have: all of them are
/// kept.
const INTERFACES: usize = 1 << 20;

const NS_PER_S: u64 = 1_000_000_000;

/// An input, read in pieces.
pub(super) struct Reader {
    path: PathBuf,
    file: File,
    /// `true` if reading must not wait for the other end.
    is_pipe: bool,
    /// The format; `None` until the header has come.
    format: Option<Format>,
    /// The bytes that were read, of which the first `at` are done with.
    buffer: Vec<u8>,
    at: usize,
}

enum Format {
    Pcap(PcapParser),
    /// The number is the length of the section's descriptions of interfaces so far, in bytes.
    PcapNg(PcapNgParser, usize),
}

/// A packet of a capture.
pub(super) struct Record<'a> {
    /// The number of its link type.
    pub link_type: u16,
    /// When it was captured, in nanoseconds since 1970, if the capture says so.
    pub time: Option<u64>,
    /// `true` if the capture has only the first bytes of it.
    pub is_cut: bool,
    pub data: &'a [u8],
}

/// What comes next in an input.
pub(super) enum Next<'a> {
    Record(Record<'a>),
    /// A record that cannot be read; those behind it can.
    Skip(Skip),
    /// Something that is neither a packet nor its loss, such as a comment.
    Other,
    /// Nothing for now, because the other end of the pipe has not sent more.
    Wait,
    /// Nothing any more, and the reason if the last record cannot be read.
    End(Option<Skip>),
}

/// A record without its bytes: these are a range of the bytes that were parsed.
struct Found {
    link_type: u16,
    time: Option<u64>,
    is_cut: bool,
    data: Range<usize>,
}

enum Filled {
    More,
    Wait,
    End,
    /// The bytes that are there would have to be one record.
    Full,
}

impl Reader {
    /// Opens a capture. If it is a FIFO and `wait` is `false`, neither this nor reading waits for the
    /// other end; otherwise the header is checked at once.
    ///
    /// # Errors
    /// [`PortError::File`] if it cannot be read, [`PortError::Format`] if it is not a capture whose
    /// packets can be read.
    pub(super) fn open(path: &Path, wait: bool) -> Result<Self, PortError> {
        let failed = |source| PortError::File { path: path.to_owned(), action: "read", source };
        let is_pipe = !wait && path.metadata().map_err(failed)?.file_type().is_fifo();
        let flags = if is_pipe { libc::O_NONBLOCK } else { 0 };
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed)?;
        let (path, buffer) = (path.to_owned(), Vec::new());
        let mut reader = Self { path, file, is_pipe, format: None, buffer, at: 0 };
        if !is_pipe {
            reader.start()?;
        }
        Ok(reader)
    }

    /// Returns whether times may be in nanoseconds. Nobody knows of a FIFO before its header comes, and in
    /// pcapng each interface has its own resolution.
    pub(super) fn may_have_nanoseconds(&self) -> bool {
        match &self.format {
            Some(Format::Pcap(parser)) => parser.header().ts_resolution == TsResolution::NanoSecond,
            Some(Format::PcapNg(..)) | None => true,
        }
    }

    /// Returns what comes next.
    ///
    /// # Errors
    /// Those of [`Reader::open`]. The input has ended then.
    pub(super) fn next(&mut self) -> Result<Next<'_>, PortError> {
        if !self.start()? {
            return Ok(Next::Wait);
        }
        let found = loop {
            match self.parse() {
                Ok(Some(Ok(found))) => break found,
                Ok(Some(Err(skip))) => return Ok(Next::Skip(skip)),
                Ok(None) => return Ok(Next::Other),
                Err(PcapError::IncompleteBuffer) => match self.fill()? {
                    Filled::More => {}
                    Filled::Wait => return Ok(Next::Wait),
                    Filled::End => {
                        return Ok(Next::End((!self.buffer.is_empty()).then_some(Skip::Truncated)));
                    }
                    Filled::Full => return Ok(Next::End(Some(Skip::Broken))),
                },
                Err(_) => return Ok(Next::End(Some(Skip::Broken))),
            }
        };
        let Found { link_type, time, is_cut, data } = found;
        Ok(Next::Record(Record { link_type, time, is_cut, data: &self.buffer[data] }))
    }

    /// Reads the header unless that is done. Returns `false` if it has not come yet.
    fn start(&mut self) -> Result<bool, PortError> {
        while self.format.is_none() {
            let not_a_capture = match Format::parse(&self.buffer) {
                _ if self.buffer.starts_with(&GZIP_MAGIC) => "it is compressed by gzip".to_owned(),
                Ok((length, format)) => {
                    format.check().map_err(|reason| self.strange(reason))?;
                    (self.at, self.format) = (length, Some(format));
                    break;
                }
                Err(PcapError::IncompleteBuffer) => match self.fill()? {
                    Filled::More => continue,
                    Filled::Wait => return Ok(false),
                    Filled::End => "too short".to_owned(),
                    Filled::Full => "its header is too long".to_owned(),
                },
                Err(why) => why.to_string(),
            };
            return Err(self.strange(format!("not a capture: {not_a_capture}")));
        }
        Ok(true)
    }

    fn strange(&self, reason: String) -> PortError {
        PortError::Format { path: self.path.clone(), reason }
    }

    /// Reads on. The bytes that are done with go.
    fn fill(&mut self) -> Result<Filled, PortError> {
        self.buffer.drain(..std::mem::take(&mut self.at));
        if self.buffer.len() >= LONGEST {
            return Ok(Filled::Full);
        }
        let failed = |source| PortError::File { path: self.path.clone(), action: "read", source };
        // Asked before reading: whatever the other end wrote before it left is there then.
        let may_go_on = self.is_pipe && !sys::is_hung_up(&self.file).map_err(failed)?;
        let before = self.buffer.len();
        match (&self.file).take(PIECE).read_to_end(&mut self.buffer) {
            _ if self.buffer.len() > before => Ok(Filled::More),
            Ok(_) if may_go_on => Ok(Filled::Wait),
            Ok(_) => Ok(Filled::End),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => Ok(Filled::Wait),
            Err(why) => Err(failed(why)),
        }
    }

    /// Parses the next record or block: a packet, the reason why it cannot be read, or `None` if it
    /// is something else.
    fn parse(&mut self) -> Result<Option<Result<Found, Skip>>, PcapError> {
        let bytes = &self.buffer[self.at..];
        let Some(format) = &mut self.format else { return Err(PcapError::IncompleteBuffer) };
        let (rest, found) = match format {
            Format::Pcap(parser) => parse_pcap(parser, bytes)?,
            Format::PcapNg(parser, interfaces) => parse_pcapng(parser, interfaces, bytes)?,
        };
        let start = self.at;
        self.at = self.buffer.len() - rest;
        let place = |found: Found| Found { data: start + found.data.start..start + found.data.end, ..found };
        Ok(found.map(|found| found.map(place)))
    }
}

impl Format {
    /// Parses the header. Returns its length too.
    fn parse(bytes: &[u8]) -> Result<(usize, Self), PcapError> {
        let (rest, format) = if bytes.starts_with(&PCAPNG_MAGIC) {
            let (rest, parser) = PcapNgParser::new(bytes)?;
            (rest, Self::PcapNg(parser, 0))
        } else {
            let (rest, parser) = PcapParser::new(bytes)?;
            (rest, Self::Pcap(parser))
        };
        Ok((bytes.len() - rest.len(), format))
    }

    /// Returns the reason why no packet of the capture can be read, if its header shows one. In
    /// pcapng each packet may have a link type of its own.
    fn check(&self) -> Result<(), String> {
        match self {
            Self::Pcap(parser) if LinkType::new(link_type(parser)).is_none() => {
                Err(Skip::LinkType(link_type(parser)).to_string())
            }
            _ => Ok(()),
        }
    }
}

/// Returns the link type of all records. The upper bits of the field are about the frame check
/// sequence (draft-ietf-opsawg-pcap §4).
fn link_type(parser: &PcapParser) -> u16 {
    u32::from(parser.header().datalink) as u16
}

/// What a parser found at the start of some bytes, and how many bytes are behind that.
type Parsed = Result<(usize, Option<Result<Found, Skip>>), PcapError>;

fn parse_pcap(parser: &PcapParser, bytes: &[u8]) -> Parsed {
    // The raw record, because the library refuses records beyond a snapshot length that many
    // writers get wrong.
    let (rest, record) = parser.next_raw_packet(bytes)?;
    let unit = match parser.header().ts_resolution {
        TsResolution::MicroSecond => 1000,
        TsResolution::NanoSecond => 1,
    };
    let found = Found {
        link_type: link_type(parser),
        time: Some(u64::from(record.ts_sec) * NS_PER_S + u64::from(record.ts_frac) * unit),
        is_cut: record.incl_len < record.orig_len,
        data: range(&record.data, bytes),
    };
    Ok((rest.len(), Some(Ok(found))))
}

fn parse_pcapng(parser: &mut PcapNgParser, interfaces: &mut usize, bytes: &[u8]) -> Parsed {
    let (rest, block) = parser.next_block(bytes)?;
    match &block {
        // With a section, its own interfaces begin.
        Block::SectionHeader(_) => *interfaces = 0,
        Block::InterfaceDescription(_) => *interfaces += bytes.len() - rest.len(),
        _ => {}
    }
    if *interfaces > INTERFACES {
        return Err(PcapError::InvalidField("too many interfaces"));
    }
    let (index, ticks, length, data) = match &block {
        Block::EnhancedPacket(p) => {
            // The library takes the units for nanoseconds, whatever the interface says.
            let ticks = p.timestamp.as_nanos() as u64;
            (p.interface_id, Some(ticks), p.original_len, &p.data[..])
        }
        Block::Packet(p) => {
            // The library reads one number, but it is two halves, the upper one first.
            let is_swapped = parser.section().endianness.is_little();
            let ticks = if is_swapped { p.timestamp.rotate_left(32) } else { p.timestamp };
            (p.interface_id.into(), Some(ticks), p.original_len, &p.data[..])
        }
        Block::SimplePacket(p) => (0, None, p.original_len, &p.data[..]),
        _ => return Ok((rest.len(), None)),
    };
    let Some(interface) = parser.interfaces().get(index as usize) else {
        return Ok((rest.len(), Some(Err(Skip::NoInterface))));
    };
    let mut data = range(data, bytes);
    if matches!(block, Block::SimplePacket(_)) {
        // The data of such a block still has its padding.
        let limit = if interface.snaplen == 0 { length } else { length.min(interface.snaplen) };
        data.end = data.end.min(data.start + limit as usize);
    }
    let found = Found {
        link_type: u32::from(interface.linktype) as u16,
        time: ticks.map(|ticks| nanoseconds(ticks, interface)),
        is_cut: data.len() < length as usize,
        data,
    };
    Ok((rest.len(), Some(Ok(found))))
}

/// Returns where `part` lies in `whole`.
fn range(part: &[u8], whole: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// Converts a time in the units of an interface (draft-ietf-opsawg-pcapng §4.2, if_tsresol and
/// if_tsoffset) to nanoseconds since 1970.
fn nanoseconds(ticks: u64, interface: &InterfaceDescriptionBlock<'_>) -> u64 {
    let (mut resolution, mut offset) = (6, 0);
    for option in &interface.options {
        match option {
            InterfaceDescriptionOption::IfTsResol(value) => resolution = *value,
            InterfaceDescriptionOption::IfTsOffset(seconds) => offset = *seconds as i64,
            _ => {}
        }
    }
    let ticks = u128::from(ticks) * u128::from(NS_PER_S);
    let exponent = u32::from(resolution & 0x7f);
    let since = match resolution & 0x80 {
        0 => 10u128.checked_pow(exponent).map_or(0, |units| ticks / units),
        _ => ticks >> exponent,
    };
    let all =
        i128::try_from(since).unwrap_or(i128::MAX).saturating_add(i128::from(offset) * i128::from(NS_PER_S));
    all.clamp(0, i128::from(u64::MAX)) as u64
}
