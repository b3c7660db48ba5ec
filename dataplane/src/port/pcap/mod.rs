//! Capture files as a port: pcap and pcapng, read and written.
//!
//! The format of the input is recognised by its first bytes; that of the output is chosen by its
//! name (`.pcapng`, otherwise pcap). Packets of other link types than Ethernet get an Ethernet header.
//!
//! Unlike the other ports, this one allocates and waits for the file system. It does not wait for the
//! other end of a FIFO: it reads what has come, and if an output takes less than it is given, all
//! capture ports of the gateway stop reading until it has caught up.
//!
//! A packet keeps the time of its record until it is written. One that has none, because the gateway
//! made it, is written with the time of the last record read by any capture port, or the present
//! time if there was none. So a run over files can be repeated. pcap has nanoseconds if an input may
//! have them.

mod captures;
mod link_type;
mod reader;
mod report;
#[cfg(test)]
mod tests;
mod writer;

use super::{Mac, Port, PortError, PortStats};
use crate::{
    packet::{Burst, Packet},
    pool::{HEADROOM, Pool},
    wire::ethernet::{self, Ethernet},
};
use link_type::LinkType;
use reader::{Next, Reader, Record};
use std::{io, os::unix::fs::MetadataExt, path::Path, sync::Arc};
use writer::Output;

pub use captures::Captures;
pub use report::{CaptureReport, Skip, Skipped};

/// Receives the packets of one capture file, and writes those that it sends to another.
pub struct PcapPort {
    input: Option<Reader>,
    output: Option<Output>,
    mac: Mac,
    captures: Arc<Captures>,
    report: Arc<CaptureReport>,
    stats: PortStats,
}

impl PcapPort {
    /// Opens the files. With no input the port is exhausted at once. With no output it counts
    /// packets and frees them. Packets without an Ethernet header are received as sent to `mac`.
    /// `captures` belongs to all capture ports of a gateway.
    ///
    /// # Errors
    /// [`PortError::File`] if a file cannot be opened or is both input and output;
    /// [`PortError::Format`] if the input is not a capture that can be read. An error of a FIFO is
    /// known only later, in the [`report`](Self::report).
    pub fn open(
        input: Option<&Path>,
        output: Option<&Path>,
        mac: Mac,
        captures: &Arc<Captures>,
    ) -> Result<Self, PortError> {
        if let (Some(from), Some(to)) = (input, output)
            && let (Ok(a), Ok(b)) = (from.metadata(), to.metadata())
            && (a.dev(), a.ino()) == (b.dev(), b.ino())
        {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is the input as well");
            return Err(PortError::File { path: to.to_owned(), action: "write", source });
        }
        let input = input.map(|path| Reader::open(path, false)).transpose()?;
        if input.as_ref().is_some_and(Reader::may_have_nanoseconds) {
            captures.expect_nanoseconds();
        }
        Ok(Self {
            input,
            output: output.map(|path| Output::create(path, captures.clone())).transpose()?,
            mac,
            captures: captures.clone(),
            report: Arc::default(),
            stats: PortStats::default(),
        })
    }

    /// Returns the account of skipped records and of errors, which goes on while the port runs.
    pub fn report(&self) -> Arc<CaptureReport> {
        self.report.clone()
    }
}

/// Returns all frames of a capture file, for a [`Generator`](super::generator::Generator), and the
/// numbers of records that are skipped. Packets without an Ethernet header get one to `mac`.
///
/// # Errors
/// [`PortError::File`] if it cannot be read, [`PortError::Format`] if it is not a capture or if a
/// record is broken.
pub fn read(path: &Path, mac: Mac) -> Result<(Vec<Vec<u8>>, Skipped), PortError> {
    let (mut reader, mut frames, mut skipped) = (Reader::open(path, true)?, Vec::new(), Skipped::new());
    let mut skip = |reason| *skipped.entry(reason).or_default() += 1;
    loop {
        match reader.next()? {
            Next::Record(record) => match frame(&record, mac) {
                Ok((header, rest)) => {
                    let mut frame = vec![0; header.map_or(0, |_| ethernet::HEADER)];
                    if let Some(header) = header {
                        header.emit(&mut frame);
                    }
                    frame.extend(rest);
                    frames.push(frame);
                }
                Err(reason) => skip(reason),
            },
            Next::Skip(reason) => skip(reason),
            Next::End(Some(Skip::Broken)) => {
                return Err(PortError::Format { path: path.into(), reason: "a record is broken".into() });
            }
            Next::Wait | Next::Other => {}
            Next::End(reason) => {
                reason.into_iter().for_each(skip);
                return Ok((frames, skipped));
            }
        }
    }
}

/// Returns the Ethernet header that a record lacks, if it lacks one, and what follows it in the frame.
fn frame<'a>(record: &Record<'a>, mac: Mac) -> Result<(Option<Ethernet>, &'a [u8]), Skip> {
    let link_type = LinkType::new(record.link_type).ok_or(Skip::LinkType(record.link_type))?;
    if record.is_cut { Err(Skip::CutShort) } else { link_type.ethernet(record.data, mac) }
}

/// Puts a record into `packet` as an Ethernet frame, with its time.
fn receive(record: &Record<'_>, mac: Mac, packet: &mut Packet) -> Result<(), Skip> {
    let (header, rest) = frame(record, mac)?;
    let length = header.map_or(0, |_| ethernet::HEADER);
    packet.fill(HEADROOM + length, rest).ok_or(Skip::TooLong)?;
    packet.push_front(length).ok_or(Skip::TooLong)?;
    if let Some(header) = header {
        header.emit(packet.data_mut());
    }
    if let Some(time) = record.time {
        packet.set_time(time);
    }
    Ok(())
}

impl Port for PcapPort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        // Whatever is no packet counts as well, so that a worker's turn ends although nothing comes.
        for _ in 0..burst.room() {
            let Some(input) = self.input.as_mut().filter(|_| !self.captures.is_congested()) else { return };
            let Some(mut packet) = pool.take() else { return };
            let skip = match input.next() {
                Ok(Next::Record(record)) => match receive(&record, self.mac, &mut packet) {
                    Ok(()) => {
                        if let Some(time) = record.time {
                            self.captures.set_time(time);
                        }
                        self.stats.received(&packet);
                        burst.push(packet);
                        continue;
                    }
                    Err(skip) => Some(skip),
                },
                Ok(Next::Skip(skip)) => Some(skip),
                Ok(Next::Other) => None,
                Ok(Next::Wait) => return pool.give(packet),
                Ok(Next::End(skip)) => {
                    self.input = None;
                    skip
                }
                Err(why) => {
                    self.input = None;
                    self.stats.rx_errors += 1;
                    self.report.fail(why);
                    None
                }
            };
            pool.give(packet);
            match skip {
                Some(Skip::TooLong) => self.stats.rx_oversize += 1,
                Some(_) => self.stats.rx_errors += 1,
                None => {}
            }
            if let Some(skip) = skip {
                self.report.skip(skip);
            }
        }
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        let Some(output) = &mut self.output else {
            burst.iter().for_each(|packet| self.stats.sent(packet));
            return pool.give_all(burst);
        };
        if output.is_full() {
            return;
        }
        for packet in burst.iter() {
            if output.write(packet.time().unwrap_or_else(|| self.captures.now()), packet.data()) {
                self.stats.sent(packet);
            } else {
                self.stats.tx_errors += 1;
            }
        }
        pool.give_all(burst);
    }

    fn flush(&mut self, _pool: &mut Pool) {
        if let Some(Err(why)) = self.output.as_mut().map(Output::flush) {
            self.stats.tx_errors += 1;
            self.report.fail(why);
        }
    }

    /// Returns whether the input has ended and the reader of the output has everything.
    fn is_exhausted(&self) -> bool {
        self.input.is_none() && self.is_drained()
    }

    fn is_drained(&self) -> bool {
        self.output.as_ref().is_none_or(Output::is_drained)
    }

    fn refused(&self) -> u64 {
        self.stats.tx_errors
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}
