//! Flows whose treatment is remembered. Their packets take a short way through the gateway, past its
//! tables:
//!
//! ```text
//! burst ─► plain? ─► flow known? ─┬─► outbound: size ─► encapsulate ─► seal ───► port
//!                                 ├─► inbound: open ─► window ─► decapsulate ─► port
//!                                 └─► the rest: the whole way, after which its flows are learnt
//! ```
//!
//! Plain fragments of ESP and IKE to the gateway are kept and joined before that: see `plain_fragments`. The packet
//! that two of them are goes on as if it came whole.
//!
//! Of each flow, packets leave in the order in which they came, fragmented ones as they get complete: once one
//! takes the whole way, so do those behind it in the burst.
//!
//! What is remembered rests on the tables by a [`Stamp`](wayfarer_dataplane::table::Stamp), and is not
//! used once they have changed. Everything that a change of the tables does not show (sizes, sequence
//! numbers, lifetimes, replay windows, selectors, MAC addresses of ports) is asked for each packet, as on
//! the whole way.

mod entry;
mod fragment;
mod inbound;
mod key;
mod learn;
mod memory;
mod order;
mod outbound;
mod plain;
mod ways;
mod worth;

use super::{batch::Batch, io::Io, profile::Stage, tables::Tables};
use memory::Memory;
use order::HeldFlows;
pub use order::Rest;
use plain::{Plain, Sorter};
use wayfarer_dataplane::{
    packet::{BURST, Packet, Taken},
    table::Reader,
    wire::{Address, ip::IpHeader, plain::PlainHeader},
};

/// The flows that a worker remembers.
#[derive(Debug)]
pub struct Flows(Memory);

impl Flows {
    /// Makes room for `entries` flows from this side, SAs, and destinations each: a power of two, at least 4,
    /// or 0.
    pub fn new(entries: usize) -> Self {
        Self(Memory::new(entries))
    }

    /// Begins another burst. Returns whether its flows are to be looked for: see `worth`.
    #[inline]
    pub fn begin(&mut self) -> bool {
        !self.0.is_empty() && self.0.worth.begin()
    }

    /// Carries the packets of known flows in `burst`, all of which came by `port`, all the way. Leaves the
    /// others in `rest`, except for fragments that were kept. `headers` is room for inner headers.
    #[inline(never)]
    pub fn run<'r>(
        &mut self,
        burst: Taken<'_>,
        port: u16,
        rest: &mut Rest,
        headers: &'r mut [IpHeader; BURST],
        (tables, reader): (&'r Tables, &'r Reader),
        io: &mut Io,
    ) {
        let memory = &mut self.0;
        let mut sorted = Sorted::new(rest);
        let sorter = Sorter::new(port, tables, memory.hash());
        for (place, packet) in (0..).zip(burst) {
            match sorter.read_v4(&packet) {
                Some(plain) => sorted.push(packet, &plain, place, port, memory),
                None => sorted.push_other((packet, place), &sorter, memory, (tables, reader), io),
            }
        }
        io.mark(Stage::Classify);
        let Sorted { departing, arriving, rest, .. } = &mut sorted;
        let plain = departing.columns().0.len() + arriving.columns().0.len();
        if !departing.is_empty() {
            outbound::run(memory, departing, rest, tables, reader, io);
        }
        if !arriving.is_empty() {
            inbound::run(memory, arriving, rest, headers, tables, reader, io);
        }
        memory.worth.end(plain);
    }

    /// Learns flows of the last burst that were not known, after the whole way has brought the entries of
    /// tables that they need into the cache. `reader` passes quiescent points.
    #[inline]
    pub fn learn(&mut self, tables: &Tables, reader: &mut Reader) {
        if self.0.has_missed() {
            learn::learn(&mut self.0, tables, reader);
        }
    }
}

/// The packets of a burst, by the way that they take.
struct Sorted<'r, 'w> {
    departing: outbound::Known<'r>,
    arriving: inbound::Known<'r>,
    rest: &'w mut Rest,
    held: HeldFlows<u64>,
    /// An address of the gateway.
    own: Option<Address>,
}

/// Returns whether an address is the gateway's. `last` is the last one that was, in this burst.
fn is_own(last: &mut Option<Address>, dst: Address, (tables, reader): (&Tables, &Reader)) -> bool {
    let is_own = *last == Some(dst) || tables.is_own(dst, reader);
    if is_own {
        *last = Some(dst);
    }
    is_own
}

impl<'w> Sorted<'_, 'w> {
    /// Returns no packets. Those that take the whole way will be put into `rest`.
    #[inline(always)]
    fn new(rest: &'w mut Rest) -> Self {
        Self {
            departing: Batch::default(),
            arriving: Batch::default(),
            rest,
            held: HeldFlows::default(),
            own: None,
        }
    }

    /// Appends the plain packet that came by `port` at `place` of its burst.
    #[inline(always)]
    fn push<H: PlainHeader>(
        &mut self,
        packet: Packet,
        plain: &Plain<H>,
        place: u8,
        port: u16,
        memory: &Memory,
    ) {
        let addresses = plain.addresses.both;
        if self.held.has(&addresses) {
            self.rest.push(packet, place);
        } else if let Some(esp) = plain.esp {
            let (key, esp) = plain.inbound_key(esp, port);
            let slot = memory.expect_inbound(key);
            let note = inbound::Note::new(addresses, plain.shape(), key, slot, esp, place);
            self.arriving.push(packet, note);
        } else {
            let key = plain.outbound_key(port);
            let slot = memory.expect_outbound(key);
            self.departing.push(packet, outbound::Note::new(plain.shape(), key, slot, place));
        }
    }

    /// Appends a packet that did not come as plain IPv4. A fragment to the gateway is kept, or the packet that it
    /// completes appended.
    #[inline(never)]
    fn push_other(
        &mut self,
        (mut packet, place): (Packet, u8),
        sorter: &Sorter<'_>,
        memory: &Memory,
        at: (&Tables, &Reader),
        io: &mut Io,
    ) {
        // Earlier fragments of the packet may be among those held.
        let is_held = |packet: &_| sorter.addresses(packet).is_none_or(|both| self.held.has(&both));
        if fragment::destination(&packet).is_some_and(|dst| is_own(&mut self.own, dst, at))
            && !is_held(&packet)
        {
            match fragment::add(packet, at, io) {
                Some(added) => packet = added,
                None => return,
            }
        }
        if let Some(plain) = sorter.read_v4(&packet) {
            self.push(packet, &plain, place, sorter.port, memory);
        } else if let Some(plain) = sorter.read_v6(&packet) {
            self.push(packet, &plain, place, sorter.port, memory);
        } else {
            sorter.hold_flow(&packet, &mut self.held);
            self.rest.push(packet, place);
        }
    }
}
