//! Compares sealing and opening of ESP with the libraries that other programs use, in one run.
//!
//! All implementations take turns over the same packets: bursts of 32, of 64 SAs at random, ESP as
//! it stands in a frame (RFC 4106, RFC 7634, RFC 4868). Their results are compared byte for byte.

mod cbc_hmac;
mod library;

pub use library::Library;

use super::esp::Size;
use library::{LibraryKey, SALT};
use serde::Serialize;
use std::{
    error, fmt,
    str::FromStr,
    time::{Duration, Instant},
};
use wayfarer_dataplane::{
    clock::ticks,
    crypto::{self, Backend, BackendError, HEADER, OpenJob, SealJob, Suite},
    wire::{
        esp, ethernet,
        ip::{self, protocol},
    },
};

/// Packets in a burst.
const BURST: usize = 32;
/// Packets in a pass.
const PACKETS: usize = 4 * BURST;
/// SAs that the packets belong to.
const SAS: usize = 64;
/// Passes in a turn of one implementation, after one to warm up.
const PASSES: usize = 8;
/// Minimum turns of each implementation.
const TURNS: usize = 5;
/// Bytes before a packet in its frame: Ethernet and IP headers, so that it is as unaligned as on a
/// wire.
const LEAD: usize = ethernet::HEADER + ip::V4_HEADER;

/// The operations, sizes and algorithms to compare: every combination is a group of rows.
#[derive(Clone, Debug)]
pub struct Options {
    /// Operations on packets.
    pub operations: Vec<Operation>,
    /// Sizes of inner packets, which are encrypted with padding and trailer.
    pub sizes: Vec<Size>,
    /// Algorithms that another library has too.
    pub ciphers: Vec<Suite>,
    /// Time for each group.
    pub duration: Duration,
}

/// An operation on packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Encrypts packets and writes their ICVs.
    Seal,
    /// Verifies and decrypts packets.
    Open,
}

/// The figures of one implementation.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The measured operation.
    pub operation: Operation,
    /// Bytes of the inner packet.
    pub size: Size,
    /// The algorithms' name.
    pub cipher: String,
    /// The measured implementation.
    pub library: Library,
    /// Nanoseconds per packet: the median of all passes.
    pub ns_per_packet: f64,
    /// Nanoseconds per packet in the quickest pass.
    pub ns_min: f64,
    /// Inner bits per second, in units of 10⁹.
    pub gbps: f64,
    /// Packets in all passes.
    pub packets: u64,
}

/// A text that names no operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownOperation;

impl fmt::Display for UnknownOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be seal or open")
    }
}

impl error::Error for UnknownOperation {}

impl FromStr for Operation {
    type Err = UnknownOperation;

    fn from_str(text: &str) -> Result<Self, UnknownOperation> {
        match text {
            "seal" => Ok(Self::Seal),
            "open" => Ok(Self::Open),
            _ => Err(UnknownOperation),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Seal => "seal",
            Self::Open => "open",
        })
    }
}

/// The reason why there is no figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CryptoError {
    /// No other library has the suite, or a key was refused.
    Suite(Suite),
    /// An implementation's result differs from the others'.
    Differs(Library),
    /// A thread could not be started.
    Thread,
    /// The environment asks for code that this processor cannot run.
    Backend(BackendError),
}

impl fmt::Display for CryptoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suite(suite) => write!(f, "no other library has {suite}, to be compared with"),
            Self::Thread => f.write_str("cannot start a thread"),
            Self::Backend(why) => why.fmt(f),
            Self::Differs(library) => {
                write!(f, "no figure: the result of {library} differs from the others'")
            }
        }
    }
}

impl error::Error for CryptoError {}

/// Compares every combination, and calls `each` with each row as soon as it is measured.
///
/// # Errors
/// See [`CryptoError`].
pub fn run(options: &Options, mut each: impl FnMut(&Row) + Send) -> Result<(), CryptoError> {
    super::run_on_core(super::core_of(0), || compare_all(options, &mut each))
        .map_err(|_| CryptoError::Thread)?
}

fn compare_all(options: &Options, each: &mut impl FnMut(&Row)) -> Result<(), CryptoError> {
    Backend::from_env().map_err(CryptoError::Backend)?;
    for &cipher in &options.ciphers {
        for &operation in &options.operations {
            for &size in &options.sizes {
                compare(operation, size, cipher, options.duration)?.iter().for_each(&mut *each);
            }
        }
    }
    Ok(())
}

fn compare(
    operation: Operation,
    size: Size,
    suite: Suite,
    duration: Duration,
) -> Result<Vec<Row>, CryptoError> {
    let mut entries: Vec<Entry> =
        Library::ALL.into_iter().filter_map(|library| Entry::new(library, suite)).collect();
    if entries.len() < 2 {
        return Err(CryptoError::Suite(suite));
    }
    let (clear, sealed) = packets(&entries, size, suite)?;
    let (from, to) = match operation {
        Operation::Seal => (&clear, &sealed),
        Operation::Open => (&sealed, &clear),
    };
    let mut work = from.clone();
    let start = Instant::now();
    let (first, mut turns) = (ticks(), 0);
    while turns < TURNS || start.elapsed() < duration {
        turns += 1;
        for entry in &mut entries {
            for pass in 0..=PASSES {
                work.receive(from);
                let took = entry.work(operation, &mut work).filter(|_| work.agree(to, operation));
                let took = took.ok_or(CryptoError::Differs(entry.library))?;
                // The first pass warms the caches up after the other implementations' turns.
                entry.passes.extend((pass > 0).then_some(took));
            }
        }
    }
    let tick = start.elapsed().as_nanos() as f64 / (ticks() - first) as f64;
    Ok(entries.into_iter().map(|entry| entry.row(operation, size, suite, tick)).collect())
}

/// Makes packets, and seals them with all implementations. They have their IVs already.
fn packets(entries: &[Entry], size: Size, suite: Suite) -> Result<(Packets, Packets), CryptoError> {
    let mut clear = Packets::new(size, suite);
    let own = seal_with_all(&entries[..1], &clear)?;
    // With CBC, our own implementation makes them.
    clear.copy_ivs(&own, suite.iv_len());
    let sealed = seal_with_all(entries, &clear)?;
    Ok((clear, sealed))
}

/// Seals `clear` with all implementations, and returns the packets if all agree.
fn seal_with_all(entries: &[Entry], clear: &Packets) -> Result<Packets, CryptoError> {
    let mut all = entries.iter().map(|entry| {
        let mut packets = clear.clone();
        entry.work(Operation::Seal, &mut packets).map(|_| packets).ok_or(CryptoError::Differs(entry.library))
    });
    let first = all.next().ok_or(CryptoError::Differs(Library::Wayfarer))??;
    for (other, entry) in all.zip(&entries[1..]) {
        if other?.bytes != first.bytes {
            return Err(CryptoError::Differs(entry.library));
        }
    }
    Ok(first)
}

/// One implementation with its keys.
struct Entry {
    library: Library,
    keys: Vec<LibraryKey>,
    salts: Vec<[u8; SALT]>,
    /// Ticks of each pass.
    passes: Vec<u64>,
}

impl Entry {
    fn new(library: Library, suite: Suite) -> Option<Self> {
        let material =
            |sa: usize| -> Vec<u8> { (0..suite.key_len()).map(|i| (sa * 41 + i * 13 + 7) as u8).collect() };
        let keys =
            (0..SAS).map(|sa| LibraryKey::new(library, suite, &material(sa))).collect::<Option<_>>()?;
        let salts = (0..SAS).map(|sa| material(sa).last_chunk().copied()).collect::<Option<_>>()?;
        Some(Self { library, keys, salts, passes: Vec::new() })
    }

    /// Works on all packets, and returns the ticks that it took; `None` if a packet failed.
    fn work(&self, operation: Operation, packets: &mut Packets) -> Option<u64> {
        match (self.library, operation) {
            (Library::Wayfarer, Operation::Seal) => self.seal_bursts(packets),
            (Library::Wayfarer, Operation::Open) => self.open_bursts(packets),
            (_, Operation::Seal) => self.each(packets, LibraryKey::seal),
            (_, Operation::Open) => self.each(packets, LibraryKey::open),
        }
    }

    fn key(&self, sa: usize) -> Option<&crypto::Key> {
        match &self.keys[sa] {
            LibraryKey::Wayfarer(key) => Some(key),
            _ => None,
        }
    }

    fn seal_bursts(&self, packets: &mut Packets) -> Option<u64> {
        let job = |(sa, seq, esp)| Some(SealJob { key: self.key(sa)?, seq, iv: seq, esn: false, esp });
        let mut jobs: Vec<SealJob<'_>> = packets.iter().map(job).collect::<Option<_>>()?;
        let before = ticks();
        jobs.chunks_mut(BURST).for_each(crypto::seal);
        Some(ticks() - before)
    }

    fn open_bursts(&self, packets: &mut Packets) -> Option<u64> {
        let job =
            |(sa, seq, esp)| Some(OpenJob { key: self.key(sa)?, seq, esn: false, esp, authentic: false });
        let mut jobs: Vec<OpenJob<'_>> = packets.iter().map(job).collect::<Option<_>>()?;
        let before = ticks();
        jobs.chunks_mut(BURST).for_each(crypto::open);
        let took = ticks() - before;
        jobs.iter().all(|job| job.authentic).then_some(took)
    }

    /// Calls `work` for each packet, with its key and salt; returns the ticks that it took, `None` if a
    /// packet failed.
    fn each(
        &self,
        packets: &mut Packets,
        work: impl Fn(&LibraryKey, [u8; SALT], &mut [u8]) -> bool,
    ) -> Option<u64> {
        let mut all: Vec<_> = packets.iter().collect();
        let before = ticks();
        let done = all
            .iter_mut()
            .fold(true, |done, (sa, _, esp)| done & work(&self.keys[*sa], self.salts[*sa], esp));
        let took = ticks() - before;
        done.then_some(took)
    }

    fn row(mut self, operation: Operation, size: Size, suite: Suite, tick: f64) -> Row {
        self.passes.sort_unstable();
        let ns = |ticks: u64| ticks as f64 * tick / PACKETS as f64;
        let median = ns(self.passes[self.passes.len() / 2]);
        Row {
            operation,
            size,
            cipher: suite.to_string(),
            library: self.library,
            ns_per_packet: median,
            ns_min: ns(self.passes[0]),
            gbps: size.mean(|size| size) as f64 * 8.0 / median,
            packets: (self.passes.len() * PACKETS) as u64,
        }
    }
}

/// ESP packets, in one stretch of memory as frames are.
#[derive(Clone)]
struct Packets {
    bytes: Vec<u8>,
    stride: usize,
    icv_len: usize,
    /// SA and length of each packet.
    shapes: Vec<(usize, usize)>,
}

impl Packets {
    /// Makes packets that are not yet sealed.
    fn new(size: Size, suite: Suite) -> Self {
        let (start, icv_len) = (HEADER + suite.iv_len(), suite.icv_len());
        let length =
            |inner: usize| start + inner + esp::padding(inner, suite.align()) + esp::TRAILER + icv_len;
        let stride = (LEAD + length(size.largest())).next_multiple_of(64) + 64;
        let mut this = Self { bytes: vec![0; stride * PACKETS], stride, icv_len, shapes: Vec::new() };
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for (number, packet) in this.bytes.chunks_mut(stride).enumerate() {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let (sa, inner) = ((random >> 58) as usize % SAS, size.pick(random >> 33));
            let packet = &mut packet[LEAD..][..length(inner)];
            esp::emit_header(packet, 0x1000 + sa as u32, number as u64 + 1);
            // An AEAD's IV.
            packet[HEADER..HEADER + 8].copy_from_slice(&(number as u64 + 1).to_be_bytes());
            packet[start..start + inner]
                .iter_mut()
                .zip((0..=u8::MAX).cycle())
                .for_each(|(byte, i)| *byte = i);
            let end = packet.len() - icv_len;
            esp::emit_trailer(&mut packet[start + inner..end], protocol::IPV4);
            this.shapes.push((sa, packet.len()));
        }
        this
    }

    /// Copies the IVs of `other`, of this length.
    fn copy_ivs(&mut self, other: &Self, length: usize) {
        let packets = self.bytes.chunks_mut(self.stride).zip(other.bytes.chunks(self.stride));
        for (to, from) in packets {
            let iv = LEAD + HEADER..LEAD + HEADER + length;
            to[iv.clone()].copy_from_slice(&from[iv]);
        }
    }

    /// Copies the packets of `other` one by one, as a receiver does: one large copy could bypass
    /// the caches.
    fn receive(&mut self, other: &Self) {
        let packets = self.bytes.chunks_mut(self.stride).zip(other.bytes.chunks(self.stride));
        for ((to, from), (_, length)) in packets.zip(&self.shapes) {
            to[..LEAD + length].copy_from_slice(&from[..LEAD + length]);
        }
    }

    /// Iterates over SA, sequence number and bytes of each packet.
    fn iter(&mut self) -> impl Iterator<Item = (usize, u64, &mut [u8])> {
        let packets = self.bytes.chunks_mut(self.stride).zip(&self.shapes).zip(1..);
        packets.map(|((packet, &(sa, length)), seq)| (sa, seq, &mut packet[LEAD..][..length]))
    }

    /// Returns whether the packets equal those of `other`. Opened packets are compared without
    /// their ICVs.
    fn agree(&self, other: &Self, operation: Operation) -> bool {
        let end = match operation {
            Operation::Seal => 0,
            Operation::Open => self.icv_len,
        };
        let packets = self.bytes.chunks(self.stride).zip(other.bytes.chunks(self.stride));
        packets
            .zip(&self.shapes)
            .all(|((a, b), (_, length))| a[..LEAD + length - end] == b[..LEAD + length - end])
    }
}

impl Row {
    /// Returns the titles of the columns of [`Row::line`].
    pub fn titles() -> String {
        format!(
            "{:9} {:>5} {:18} {:12} {:>9} {:>9} {:>8}",
            "OPERATION", "SIZE", "CIPHER", "BY", "NS/PACKET", "NS MIN", "GBIT/S"
        )
    }

    /// Returns the row as a line of a table.
    pub fn line(&self) -> String {
        let Self { operation, size, cipher, library, ns_per_packet, ns_min, gbps, .. } = self;
        format!(
            "{operation:9} {size:>5} {cipher:18} {library:12} {ns_per_packet:>9.1} {ns_min:>9.1} {gbps:>8.2}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn implementations_agree_and_refuse_a_changed_packet() {
        for suite in
            ["aes128gcm16", "aes192gcm16", "aes256gcm16", "chacha20poly1305", "aes128-sha1", "aes256-sha384"]
        {
            let suite: Suite = suite.parse().unwrap();
            let rows = compare(Operation::Open, Size::Imix, suite, Duration::ZERO).unwrap();
            assert!(rows.iter().all(|row| row.packets >= (TURNS * PASSES * PACKETS) as u64), "{suite}");
            let entries: Vec<_> = Library::ALL.into_iter().filter_map(|l| Entry::new(l, suite)).collect();
            let (_, mut sealed) = packets(&entries, Size::Imix, suite).unwrap();
            sealed.bytes[LEAD + HEADER + suite.iv_len()] ^= 1;
            for entry in &entries {
                assert!(
                    entry.work(Operation::Open, &mut sealed.clone()).is_none(),
                    "{suite} {}",
                    entry.library
                );
            }
        }
        assert!(
            compare(Operation::Seal, Size::Fixed(64), "null-sha256".parse().unwrap(), Duration::ZERO)
                .is_err()
        );
    }
}
