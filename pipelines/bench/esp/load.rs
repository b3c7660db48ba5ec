//! What the gateway is to carry, and whether it did: terminals that seal, a server, and the check
//! of what came out.

use super::{
    options::{INNER_HEADERS, SHORTEST, Size},
    port::Batch,
    world::{KEYS, key_seed, spi_in, terminal_of},
};
use crate::sim::{
    addresses,
    esp::{Layout, open},
    fixtures::{GATEWAY, GATEWAY_MAC, INSIDE, OUTSIDE, SERVER, STATION_MAC, material},
    frames::{emit_ethernet, emit_udp},
    random::Random,
};
use arrayvec::ArrayVec;
use std::{collections::HashSet, fmt, net::IpAddr};
use wayfarer_dataplane::{
    crypto::{self, Backend, Key, KeyError, SealJob, Suite},
    wire::{
        esp,
        ethernet::{self, Ethernet},
        ip::{self, IpHeader, protocol},
    },
};

/// Frames sealed at once.
const GROUP: usize = 64;
/// Bytes of the payloads: any stretch of this.
static PATTERN: [u8; 9216] = {
    let mut bytes = [0; 9216];
    let mut i = 0;
    while i < bytes.len() {
        bytes[i] = (i * 167 + i / 251) as u8;
        i += 1;
    }
    bytes
};

/// What was wrong with a packet that the gateway sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is no packet of the kind that this port should send.
    Kind,
    /// It went to another address than its terminal's.
    Destination,
    /// It does not authenticate.
    Forged,
    /// The inner packet is not the one that was sent.
    Inner,
    /// It came before, or its SA's number did.
    Again,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind => "a packet of the wrong kind",
            Self::Again => "a packet or a sequence number for the second time",
            Self::Destination => "a packet to the wrong address",
            Self::Forged => "an ESP packet that does not authenticate",
            Self::Inner => "an inner packet that is not the one that was sent",
        })
    }
}

/// All terminals and the server.
pub(super) struct Load {
    suite: Suite,
    /// Keys of packets to the gateway, [`KEYS`] of them.
    seal: Vec<Key>,
    /// Keys of packets from the gateway, of the other implementation.
    open: Vec<Key>,
    /// The last sequence number that each terminal used.
    sent: Vec<u32>,
    /// How often each terminal moved, and all of them together.
    moves: Vec<u8>,
    moved: u64,
    random: Random,
    /// Number of the next inner packet.
    serial: u64,
    /// What was checked so far: serial numbers, and SPIs with sequence numbers.
    seen: HashSet<u64>,
    numbers: HashSet<(u32, u32)>,
    scratch: Vec<u8>,
}

impl Load {
    /// `terminals` terminals that sent nothing yet.
    pub(super) fn new(terminals: u32, suite: Suite) -> Result<Self, KeyError> {
        let keys = |inbound, backend| -> Result<Vec<Key>, KeyError> {
            (0..KEYS).map(|i| Key::new(suite, &material(suite, key_seed(i, inbound)), backend)).collect()
        };
        Ok(Self {
            suite,
            seal: keys(true, Backend::detect())?,
            open: keys(false, Backend::Portable)?,
            sent: vec![0; terminals as usize],
            moves: vec![0; terminals as usize],
            moved: 0,
            random: Random(0x9e37_79b9_7f4a_7c15),
            serial: 0,
            seen: HashSet::new(),
            numbers: HashSet::new(),
            scratch: Vec::new(),
        })
    }

    /// Bytes of the frame by which an inner packet of `inner` bytes comes to `port`.
    pub(super) fn frame_len(&self, port: usize, inner: usize) -> usize {
        let ip = if port == OUTSIDE { ip::V4_HEADER + Layout::new(self.suite, inner).len } else { inner };
        ethernet::HEADER + ip
    }

    /// Moves some terminal; answers which, and where it is now.
    pub(super) fn move_one(&mut self) -> (u32, IpAddr) {
        let index = self.random.index(self.sent.len()) as u32;
        let moves = &mut self.moves[index as usize];
        *moves = moves.wrapping_add(1);
        self.moved += 1;
        (index, addresses::outer(index, (*moves).into()))
    }

    /// Where terminal `index` is now.
    pub(super) fn place(&self, index: u32) -> IpAddr {
        addresses::outer(index, self.moves[index as usize].into())
    }

    /// Moves of all terminals so far.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Fills `batch` with fresh packets for `port`, each of a terminal picked at random. Of those
    /// that come from terminals, `moves` are the first from another address.
    pub(super) fn fill(&mut self, batch: &mut Batch, port: usize, size: Size, moves: u32) {
        if port == OUTSIDE { self.fill_sealed(batch, size, moves) } else { self.fill_clear(batch, size) }
    }

    fn fill_clear(&mut self, batch: &mut Batch, size: Size) {
        let stride = batch.stride();
        for (frames, lengths) in batch.refill(GROUP) {
            for (frame, length) in frames.chunks_mut(stride).zip(lengths) {
                let inner = size.pick(self.random.next() >> 32);
                let index = self.random.index(self.sent.len()) as u32;
                self.serial += 1;
                emit_ethernet(frame, INSIDE);
                emit_inner(&mut frame[ethernet::HEADER..][..inner], INSIDE, index, self.serial);
                *length = (ethernet::HEADER + inner) as u16;
            }
        }
    }

    // Not by a `Terminal` each: sealed one by one, the load would take longer than what is measured.
    fn fill_sealed(&mut self, batch: &mut Batch, size: Size, mut moves: u32) {
        let stride = batch.stride();
        let mut left = batch.len() as u64;
        for (frames, lengths) in batch.refill(GROUP) {
            let mut jobs: ArrayVec<SealJob<'_>, GROUP> = ArrayVec::new();
            for (frame, length) in frames.chunks_mut(stride).zip(lengths) {
                let inner = size.pick(self.random.next() >> 32);
                let index = self.random.index(self.sent.len()) as u32;
                // Just so many of them, spread over the whole batch.
                if self.random.below(left) < u64::from(moves) {
                    moves -= 1;
                    let count = &mut self.moves[index as usize];
                    *count = count.wrapping_add(1);
                    self.moved += 1;
                }
                left -= 1;
                let sent = &mut self.sent[index as usize];
                *sent += 1;
                let seq = u64::from(*sent);
                self.serial += 1;
                emit_ethernet(frame, OUTSIDE);
                let source = addresses::outer(index, self.moves[index as usize].into());
                let layout = Layout::new(self.suite, inner);
                let packet = &mut frame[ethernet::HEADER..][..ip::V4_HEADER + layout.len];
                ip::emit(packet, source, GATEWAY, protocol::ESP, layout.len);
                *length = (ethernet::HEADER + packet.len()) as u16;
                let esp = &mut packet[ip::V4_HEADER..];
                layout.emit(esp, spi_in(index), seq, protocol::IPV4);
                emit_inner(&mut esp[layout.payload], OUTSIDE, index, self.serial);
                let key = &self.seal[(index % KEYS) as usize];
                jobs.push(SealJob { key, seq, iv: seq, esn: false, esp });
            }
            crypto::seal(&mut jobs);
        }
    }

    /// Whether `frame`, which the gateway sent by `port`, is what it should have made of some
    /// packet of this load.
    pub(super) fn check(&mut self, port: usize, frame: &[u8], size: Size) -> Result<(), Wrong> {
        let mut ethernet = [0; ethernet::HEADER];
        let (dst, src) = (STATION_MAC[port], GATEWAY_MAC[port]);
        Ethernet { dst, src, ethertype: ethernet::IPV4 }.emit(&mut ethernet);
        let packet = frame.strip_prefix(&ethernet).ok_or(Wrong::Kind)?;
        if port == OUTSIDE {
            self.check_sealed(packet, size)
        } else {
            self.check_clear(packet, OUTSIDE, size)
        }
    }

    fn check_sealed(&mut self, packet: &[u8], size: Size) -> Result<(), Wrong> {
        let outer = IpHeader::parse(packet).map_err(|_| Wrong::Kind)?;
        if outer.protocol != protocol::ESP || outer.src != GATEWAY {
            return Err(Wrong::Kind);
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.extend_from_slice(outer.payload(packet));
        let (spi, low) = esp::header(&bytes).ok_or(Wrong::Kind)?;
        if !self.numbers.insert((spi, low)) {
            return Err(Wrong::Again);
        }
        let index = terminal_of(spi).filter(|i| (*i as usize) < self.sent.len()).ok_or(Wrong::Kind)?;
        // Where it was lately is not wrong: the packet may have left before the move.
        let was = |places: u32| (0..places).any(|place| outer.dst == addresses::outer(index, place));
        if !was(if self.moved > 0 { 4 } else { 1 }) {
            return Err(Wrong::Destination);
        }
        let key = &self.open[(index % KEYS) as usize];
        let plain = open(key, false, &mut bytes).ok_or(Wrong::Forged)?;
        let plain = &bytes[plain];
        let (length, next_header) = esp::trailer(plain).ok_or(Wrong::Inner)?;
        let inner = plain.get(..length).filter(|_| next_header == protocol::IPV4).ok_or(Wrong::Inner)?;
        if addresses::at_inner(IpHeader::parse(inner).map_err(|_| Wrong::Inner)?.dst.into()) != Some(index) {
            return Err(Wrong::Inner);
        }
        let result = self.check_clear(inner, INSIDE, size);
        self.scratch = bytes;
        result
    }

    /// Whether `packet` is one that came by `port`, one hop further.
    fn check_clear(&mut self, packet: &[u8], port: usize, size: Size) -> Result<(), Wrong> {
        let header = IpHeader::parse(packet).map_err(|_| Wrong::Inner)?;
        if !size.has(header.total_len()) {
            return Err(Wrong::Inner);
        }
        let terminal = if port == OUTSIDE { header.src } else { header.dst };
        let index = addresses::at_inner(terminal.into()).ok_or(Wrong::Inner)?;
        let serial = packet.get(INNER_HEADERS..SHORTEST).and_then(|bytes| bytes.first_chunk());
        let serial = u64::from_be_bytes(*serial.ok_or(Wrong::Inner)?);
        let mut expected = vec![0; header.total_len()];
        emit_inner(&mut expected, port, index, serial);
        ip::decrement_hop_limit(&mut expected);
        if serial > self.serial || packet != expected {
            return Err(Wrong::Inner);
        }
        if self.seen.insert(serial) { Ok(()) } else { Err(Wrong::Again) }
    }
}

/// Inner packet number `serial`: from terminal `index` where it comes by `OUTSIDE`, else to it.
fn emit_inner(packet: &mut [u8], port: usize, index: u32, serial: u64) {
    let terminal = addresses::inner(index);
    let (src, dst) = if port == OUTSIDE { (terminal, SERVER) } else { (SERVER, terminal) };
    emit_udp(packet, src, dst);
    packet[INNER_HEADERS..SHORTEST].copy_from_slice(&serial.to_be_bytes());
    let from = serial as usize % 64;
    let rest = packet.len() - SHORTEST;
    packet[SHORTEST..].copy_from_slice(&PATTERN[from..from + rest]);
}
