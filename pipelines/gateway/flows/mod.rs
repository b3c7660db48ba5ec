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
    packet::{BURST, Burst, Taken},
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
        let (mut departing, mut arriving) = (outbound::Known::default(), inbound::Known::default());
        let (mut rest, mut held) = (Rest::default(), HeldFlows::default());
        let sorter = Sorter::new(port, tables);
        for (packet, place) in burst.zip(0..) {
            match sorter.sort(&packet) {
                Some(Plain { header, .. }) if held.has(&header.addresses) => rest.push(packet, place),
                Some(Plain { header, kind: Kind::Outbound(key) }) => {
                    let slot = memory.expect_outbound(key);
                    departing.push(packet, outbound::Note::new(header, key, slot, place));
                }
                Some(Plain { header, kind: Kind::Inbound(key, esp) }) => {
                    let slot = memory.expect_inbound(key);
                    arriving.push(packet, inbound::Note::new(header, key, slot, esp, place));
                }
                None => {
                    plain::hold_flow(&packet, &mut held);
                    rest.push(packet, place);
                }
            }
        }
        io.mark(Stage::Classify);
        if !departing.is_empty() {
            outbound::run(memory, &mut departing, &mut rest, tables, reader, io);
        }
        if !arriving.is_empty() {
            inbound::run(memory, &mut arriving, &mut rest, headers, tables, reader, io);
        }
        rest.into_burst()
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
