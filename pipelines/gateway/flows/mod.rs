//! Flows whose treatment is remembered. Their packets take a short way through the gateway, past its
//! tables:
//!
//! ```text
//! burst ─► plain? ─► flow known? ─┬─► outbound: size ─► encapsulate ─► seal ───► port
//!                                 ├─► inbound: open ─► window ─► decapsulate ─► port
//!                                 └─► the rest: the whole way, after which its flows are learnt
//! ```
//!
//! Of each flow, packets leave in the order in which they came: once one takes the whole way, so do those
//! behind it in the burst.
//!
//! What is remembered rests on the tables by a [`Stamp`](wayfarer_dataplane::table::Stamp), and is not
//! used once they have changed. Everything that a change of the tables does not show (sizes, sequence
//! numbers, lifetimes, replay windows, selectors, MAC addresses of ports) is asked for each packet, as on
//! the whole way.

mod entry;
mod inbound;
mod key;
mod learn;
mod memory;
mod order;
mod outbound;
mod plain;
mod ways;

use super::{io::Io, profile::Stage, tables::Tables};
use memory::Memory;
use order::{HeldFlows, Rest};
use plain::{Kind, Plain, Sorter};
use wayfarer_dataplane::{
    packet::{BURST, Burst, Packet, Taken},
    table::Reader,
    wire::ip::IpHeader,
};

/// The flows that a worker remembers.
#[derive(Debug)]
pub struct Flows(Memory);

impl Flows {
    /// Makes room for `entries` flows from this side, SAs, and destinations each; a power of two, or 0.
    pub fn new(entries: usize) -> Self {
        Self(Memory::new(entries))
    }

    /// Returns whether there is room for any flow.
    #[inline]
    pub fn is_on(&self) -> bool {
        !self.0.is_empty()
    }

    /// Carries the packets of known flows in `burst`, all of which came by `port`, all the way. Returns the
    /// others, in their order. `headers` is room for inner headers.
    #[inline(never)]
    pub fn run<'r>(
        &mut self,
        burst: Taken<'_>,
        port: u16,
        headers: &'r mut [IpHeader; BURST],
        (tables, reader): (&'r Tables, &'r Reader),
        io: &mut Io,
    ) -> Burst {
        let memory = &mut self.0;
        let mut sorted = Sorted::default();
        let sorter = Sorter::new(port, tables, memory.hash());
        for (packet, place) in burst.zip(0..) {
            match sorter.sort_v4(&packet) {
                Some(plain) => sorted.push(packet, plain, place, memory),
                None => sorted.push_other(packet, place, &sorter, memory),
            }
        }
        io.mark(Stage::Classify);
        let Sorted { departing, arriving, rest, .. } = &mut sorted;
        if !departing.is_empty() {
            outbound::run(memory, departing, rest, tables, reader, io);
        }
        if !arriving.is_empty() {
            inbound::run(memory, arriving, rest, headers, tables, reader, io);
        }
        sorted.rest.into_burst()
    }

    /// Learns flows of the last burst that were not known, after the whole way has brought the entries of
    /// tables that they need into the cache.
    #[inline]
    pub fn learn(&mut self, tables: &Tables, reader: &Reader) {
        if self.0.has_missed() {
            learn::learn(&mut self.0, tables, reader);
        }
    }
}

/// The packets of a burst, by the way that they take.
#[derive(Default)]
struct Sorted<'r> {
    departing: outbound::Known<'r>,
    arriving: inbound::Known<'r>,
    rest: Rest,
    held: HeldFlows<u64>,
}

impl Sorted<'_> {
    /// Appends the plain packet that came at `place` of its burst.
    #[inline(always)]
    fn push(&mut self, packet: Packet, plain: Plain, place: u8, memory: &Memory) {
        let Plain { addresses, shape, kind } = plain;
        match kind {
            _ if self.held.has(&addresses) => self.rest.push(packet, place),
            Kind::Outbound(key) => {
                let slot = memory.expect_outbound(key);
                self.departing.push(packet, outbound::Note::new(shape, key, slot, place));
            }
            Kind::Inbound(key, esp) => {
                let slot = memory.expect_inbound(key);
                self.arriving.push(packet, inbound::Note::new(addresses, shape, key, slot, esp, place));
            }
        }
    }

    /// Appends a packet that is not plain IPv4.
    #[inline(never)]
    fn push_other(&mut self, packet: Packet, place: u8, sorter: &Sorter<'_>, memory: &Memory) {
        match sorter.sort_v6(&packet) {
            Some(plain) => self.push(packet, plain, place, memory),
            None => {
                sorter.hold_flow(&packet, &mut self.held);
                self.rest.push(packet, place);
            }
        }
    }
}
