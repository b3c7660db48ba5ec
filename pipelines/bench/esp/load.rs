//! The simulated terminals and server: they make the packets that the gateway carries, and check
//! those that it sends.

use super::{
    options::{Fragments, INNER_HEADERS, SHORTEST, Size},
    port::Batch,
    world::{KEYS, key_seed, spi_in, terminal_of},
};
use crate::sim::{
    addresses,
    esp::{Layout, open},
    fixtures::{GATEWAY, GATEWAY_MAC, INSIDE, OUTSIDE, SERVER, STATION_MAC, material},
    frames::{emit_ethernet, emit_udp},
    networks::Networks,
    random::Random,
};
use arrayvec::ArrayVec;
use std::{collections::HashSet, fmt, net::IpAddr};
use wayfarer_dataplane::{
    crypto::{self, Backend, Key, KeyError, SealJob, Suite},
    wire::{
        esp,
        ethernet::{self, Ethernet},
        fragment::Cutter,
        ip::{self, IpHeader, protocol},
    },
};

/// Frames sealed at once.
const GROUP: usize = 64;
/// The source of payloads: each is some stretch of it.
static PATTERN: [u8; 9216] = {
    let mut bytes = [0; 9216];
    let mut i = 0;
    while i < bytes.len() {
        bytes[i] = (i * 167 + i / 251) as u8;
        i += 1;
    }
    bytes
};

/// An error in a packet that the gateway sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketError {
    /// The packet is not of the kind that this port should send.
    Kind,
    /// The packet went to another address than its terminal's.
    Destination,
    /// The ESP packet does not authenticate.
    Forged,
    /// The inner packet differs from the one that was sent.
    Inner,
    /// The packet, or its SA's sequence number, came before.
    Duplicate,
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind => "a packet of the wrong kind",
            Self::Duplicate => "a packet or a sequence number for the second time",
            Self::Destination => "a packet to the wrong address",
            Self::Forged => "an ESP packet that does not authenticate",
            Self::Inner => "an inner packet that differs from the one that was sent",
        })
    }
}

/// All terminals and the server.
pub(super) struct Load {
    suite: Suite,
    /// Keys for packets to the gateway, [`KEYS`] of them.
    seal: Vec<Key>,
    /// Keys for packets from the gateway, of the portable implementation.
    open: Vec<Key>,
    /// The last sequence number that each terminal used.
    sent: Vec<u32>,
    networks: Networks,
    /// Moves of all terminals.
    total_moves: u64,
    random: Random,
    fragments: Fragments,
    /// Number of the next inner packet.
    serial: u64,
    /// Serial numbers of the packets that were checked.
    seen: HashSet<u64>,
    /// SPIs and sequence numbers of the packets that were checked.
    numbers: HashSet<(u32, u32)>,
    scratch: Vec<u8>,
}

impl Load {
    /// Makes `terminals` terminals that sent nothing yet.
    pub(super) fn new(terminals: u32, suite: Suite, fragments: Fragments) -> Result<Self, KeyError> {
        let keys = |inbound, backend| -> Result<Vec<Key>, KeyError> {
            (0..KEYS).map(|i| Key::new(suite, &material(suite, key_seed(i, inbound)), backend)).collect()
        };
        Ok(Self {
            suite,
            seal: keys(true, Backend::detect())?,
            open: keys(false, Backend::Portable)?,
            sent: vec![0; terminals as usize],
            networks: addresses::networks(0..terminals),
            total_moves: 0,
            random: Random(0x9e37_79b9_7f4a_7c15),
            fragments,
            serial: 0,
            seen: HashSet::new(),
            numbers: HashSet::new(),
            scratch: Vec::new(),
        })
    }

    /// Returns the bytes of the frame that carries an inner packet of `inner` bytes to `port`.
    pub(super) fn frame_len(&self, port: usize, inner: usize) -> usize {
        let ip = if port == OUTSIDE { ip::V4_HEADER + Layout::new(self.suite, inner).len } else { inner };
        ethernet::HEADER + ip
    }

    /// Returns the number of frames in which each packet comes to `port`.
    pub(super) fn frames_per_packet(&self, port: usize) -> usize {
        if port == OUTSIDE && self.fragments.together > 0 { 2 } else { 1 }
    }

    /// Moves a random terminal; returns its index and its new outer address.
    pub(super) fn move_one(&mut self) -> (u32, IpAddr) {
        let index = self.random.index(self.sent.len()) as u32;
        move_on(&mut self.networks, index);
        self.total_moves += 1;
        (index, self.address_of(index))
    }

    /// Returns the current outer address of terminal `index`.
    pub(super) fn address_of(&self, index: u32) -> IpAddr {
        self.networks.attachment(index as usize).address
    }

    /// Returns the moves of all terminals so far.
    pub(super) fn total_moves(&self) -> u64 {
        self.total_moves
    }

    /// Fills `batch` with fresh packets for `port`, each of a random terminal, and returns their
    /// number. Of packets from terminals, `moves` are the first from a new address.
    pub(super) fn fill(&mut self, batch: &mut Batch, port: usize, size: Size, moves: u32) -> u64 {
        let before = self.serial;
        if port == OUTSIDE {
            self.fill_sealed(batch, size, moves)
        } else {
            self.fill_clear(batch, size)
        }
        self.serial - before
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

    // Without `Terminal`s: if packets were sealed one by one, making the load would take longer
    // than the part that is measured.
    fn fill_sealed(&mut self, batch: &mut Batch, size: Size, mut moves: u32) {
        let (stride, per_packet) = (batch.stride(), self.frames_per_packet(OUTSIDE));
        let mut left = (batch.len() / per_packet) as u64;
        for (frames, lengths) in batch.refill(GROUP) {
            let mut jobs: ArrayVec<SealJob<'_>, GROUP> = ArrayVec::new();
            let first = self.serial;
            let places = frames.chunks_mut(stride * per_packet);
            for (frame, length) in places.zip(lengths.chunks_mut(per_packet)) {
                if is_flood(&mut self.random, self.fragments.flood) {
                    left -= 1;
                    for (frame, length) in frame.chunks_mut(stride).zip(length) {
                        *length = emit_stranger(frame, self.random.next());
                    }
                    continue;
                }
                let inner = size.pick(self.random.next() >> 32);
                let index = self.random.index(self.sent.len()) as u32;
                // Spreads exactly `moves` moves over the whole batch.
                if self.random.below(left) < u64::from(moves) {
                    moves -= 1;
                    move_on(&mut self.networks, index);
                    self.total_moves += 1;
                }
                left -= 1;
                let sent = &mut self.sent[index as usize];
                *sent += 1;
                let seq = u64::from(*sent);
                self.serial += 1;
                emit_ethernet(frame, OUTSIDE);
                let source = self.networks.attachment(index as usize).address;
                let layout = Layout::new(self.suite, inner);
                let packet = &mut frame[ethernet::HEADER..][..ip::V4_HEADER + layout.len];
                ip::emit(packet, source, GATEWAY, protocol::ESP, layout.len);
                length[0] = (ethernet::HEADER + packet.len()) as u16;
                let esp = &mut packet[ip::V4_HEADER..];
                layout.emit(esp, spi_in(index), seq, protocol::IPV4);
                emit_inner(&mut esp[layout.payload], OUTSIDE, index, self.serial);
                let key = &self.seal[(index % KEYS) as usize];
                jobs.push(SealJob { key, seq, iv: seq, esn: false, esp });
            }
            crypto::seal(&mut jobs);
            drop(jobs);
            if per_packet > 1 {
                let places = frames.chunks_mut(stride * per_packet).zip(lengths.chunks_mut(per_packet));
                for (id, (frames, lengths)) in (first..).zip(places).filter(|(_, (_, l))| !is_stranger(l)) {
                    cut(frames, stride, lengths, id as u16);
                }
                let together = per_packet * self.fragments.together as usize;
                let groups = frames.chunks_mut(stride * together).zip(lengths.chunks_mut(together));
                groups.for_each(|(frames, lengths)| part(frames, stride, lengths));
            }
        }
    }

    /// Checks that `frame`, which the gateway sent by `port`, is the correct output for a packet of
    /// this load that did not come out before.
    pub(super) fn check(&mut self, port: usize, frame: &[u8], size: Size) -> Result<(), PacketError> {
        let mut ethernet = [0; ethernet::HEADER];
        let (dst, src) = (STATION_MAC[port], GATEWAY_MAC[port]);
        Ethernet { dst, src, ethertype: ethernet::IPV4 }.emit(&mut ethernet);
        let packet = frame.strip_prefix(&ethernet).ok_or(PacketError::Kind)?;
        if port == OUTSIDE {
            self.check_sealed(packet, size)
        } else {
            self.check_clear(packet, OUTSIDE, size)
        }
    }

    fn check_sealed(&mut self, packet: &[u8], size: Size) -> Result<(), PacketError> {
        let outer = IpHeader::parse(packet).map_err(|_| PacketError::Kind)?;
        if outer.protocol != protocol::ESP || outer.src != GATEWAY {
            return Err(PacketError::Kind);
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.extend_from_slice(outer.payload(packet));
        let (spi, low) = esp::header(&bytes).ok_or(PacketError::Kind)?;
        if !self.numbers.insert((spi, low)) {
            return Err(PacketError::Duplicate);
        }
        let index = terminal_of(spi).filter(|i| (*i as usize) < self.sent.len()).ok_or(PacketError::Kind)?;
        // A recent address is correct too: the packet may have left before the move.
        let recent = if self.total_moves > 0 { addresses::PER_TERMINAL } else { 1 };
        if !(0..recent).any(|moves| outer.dst == addresses::outer(index, moves)) {
            return Err(PacketError::Destination);
        }
        let key = &self.open[(index % KEYS) as usize];
        let plain = open(key, false, &mut bytes).ok_or(PacketError::Forged)?;
        let plain = &bytes[plain];
        let (length, next_header) = esp::trailer(plain).ok_or(PacketError::Inner)?;
        let inner =
            plain.get(..length).filter(|_| next_header == protocol::IPV4).ok_or(PacketError::Inner)?;
        let header = IpHeader::parse(inner).map_err(|_| PacketError::Inner)?;
        if addresses::at_inner(header.dst.into()) != Some(index) {
            return Err(PacketError::Inner);
        }
        let result = self.check_clear(inner, INSIDE, size);
        self.scratch = bytes;
        result
    }

    /// Checks that `packet` is one that came by `port`, with its hop limit decremented.
    fn check_clear(&mut self, packet: &[u8], port: usize, size: Size) -> Result<(), PacketError> {
        let header = IpHeader::parse(packet).map_err(|_| PacketError::Inner)?;
        if !size.has(header.total_len()) {
            return Err(PacketError::Inner);
        }
        let terminal = if port == OUTSIDE { header.src } else { header.dst };
        let index = addresses::at_inner(terminal.into()).ok_or(PacketError::Inner)?;
        let serial = packet.get(INNER_HEADERS..SHORTEST).and_then(|bytes| bytes.first_chunk());
        let serial = u64::from_be_bytes(*serial.ok_or(PacketError::Inner)?);
        let mut expected = vec![0; header.total_len()];
        emit_inner(&mut expected, port, index, serial);
        ip::decrement_hop_limit(&mut expected);
        if serial > self.serial || packet != expected {
            return Err(PacketError::Inner);
        }
        if self.seen.insert(serial) { Ok(()) } else { Err(PacketError::Duplicate) }
    }
}

/// Returns whether strangers send next, `flood` times for every hundred packets of terminals.
fn is_flood(random: &mut Random, flood: u32) -> bool {
    let flood = u64::from(flood);
    flood > 0 && random.below(100 + flood) < flood
}

/// Length of a frame of strangers, in bytes. No terminal's is as short.
const STRANGER: usize = ethernet::HEADER + ip::V4_HEADER + 16;

/// Writes the first fragment of a packet that no other one completes, from a random address. Returns
/// the frame's length.
fn emit_stranger(frame: &mut [u8], random: u64) -> u16 {
    emit_ethernet(frame, OUTSIDE);
    let packet = &mut frame[ethernet::HEADER..STRANGER];
    let from = IpAddr::from([198, 18 | random as u8 & 1, (random >> 8) as u8, (random >> 16) as u8]);
    ip::emit(packet, from, GATEWAY, protocol::ESP, 16);
    packet[4..6].copy_from_slice(&((random >> 32) as u16).to_be_bytes());
    packet[6..8].copy_from_slice(&[0x20, 0]);
    ip::set_total_len(packet, ip::V4_HEADER, ip::V4_HEADER + 16);
    STRANGER as u16
}

/// Returns whether frames of these lengths are strangers'.
fn is_stranger(lengths: &[u16]) -> bool {
    usize::from(lengths[0]) == STRANGER
}

/// Cuts the packet in the first of two frames into two fragments of about the same length.
fn cut(frames: &mut [u8], stride: usize, lengths: &mut [u16], id: u16) {
    let mut packet = frames[ethernet::HEADER..usize::from(lengths[0])].to_vec();
    ip::allow_fragments(&mut packet, ip::V4_HEADER, id);
    let header = IpHeader::parse(&packet).expect("a packet just made");
    let half = ((packet.len() - ip::V4_HEADER) / 2).next_multiple_of(8);
    let pieces = Cutter::v4(&packet, &header, ip::V4_HEADER + half).expect("room for eight bytes");
    for (piece, (frame, length)) in pieces.zip(frames.chunks_mut(stride).zip(lengths)) {
        emit_ethernet(frame, OUTSIDE);
        let end = ethernet::HEADER + piece.len();
        piece.write(&mut frame[ethernet::HEADER..end]);
        *length = end as u16;
    }
}

/// Puts the first of each two frames before all of the second ones.
fn part(frames: &mut [u8], stride: usize, lengths: &mut [u16]) {
    let (old, old_lengths) = (frames.to_vec(), lengths.to_vec());
    let evens_then_odds = (0..lengths.len()).step_by(2).chain((1..lengths.len()).step_by(2));
    for (from, (frame, length)) in evens_then_odds.zip(frames.chunks_mut(stride).zip(lengths)) {
        *length = old_lengths[from];
        frame[..usize::from(*length)].copy_from_slice(&old[from * stride..][..usize::from(*length)]);
    }
}

/// Moves terminal `index` to its next outer address.
fn move_on(networks: &mut Networks, index: u32) {
    let disturbance = addresses::next_move(networks, index as usize);
    networks.apply(&disturbance);
}

/// Writes inner packet number `serial`: from terminal `index` if it comes by `OUTSIDE`, else to it.
fn emit_inner(packet: &mut [u8], port: usize, index: u32, serial: u64) {
    let terminal = addresses::inner(index);
    let (src, dst) = if port == OUTSIDE { (terminal, SERVER) } else { (SERVER, terminal) };
    emit_udp(packet, src, dst);
    packet[INNER_HEADERS..SHORTEST].copy_from_slice(&serial.to_be_bytes());
    let from = serial as usize % 64;
    let rest = packet.len() - SHORTEST;
    packet[SHORTEST..].copy_from_slice(&PATTERN[from..from + rest]);
}
