//! Flows that a gateway is shown to remember.

use super::gateway::{Spec, TestGateway, inner, server};
use wayfarer::sim::{
    fixtures::*,
    frames::{ip_packet, udp_packet},
    terminal::{Terminal, esp_in},
};
use wayfarer_dataplane::wire::{
    esp, ethernet,
    ip::{self, IpHeader, protocol},
};

/// The flows that a gateway of these tests remembers, at least.
const FLOWS: usize = 64;

/// A gateway with the tunnels of terminals 1 and 9, which remembers the flows of terminal 1 in both
/// directions.
pub(super) struct Known {
    pub(super) gateway: TestGateway,
    /// The end of terminal 1's tunnel.
    pub(super) terminal: Terminal,
    /// The end of terminal 9's tunnel, whose packets always take the whole way.
    other: Terminal,
}

impl Known {
    /// Makes a gateway whose tunnel to terminal 1 is the usual one.
    pub(super) fn new() -> Self {
        Self::with(&Spec::new(1))
    }

    /// Makes a gateway whose tunnel to terminal 1 is `spec`.
    pub(super) fn with(spec: &Spec) -> Self {
        Self::on(spec, false)
    }

    /// Makes a gateway that may discard, and whose tunnel to terminal 1 is `spec`.
    pub(super) fn discarding(spec: &Spec) -> Self {
        Self::on(spec, true)
    }

    fn on(spec: &Spec, discards: bool) -> Self {
        let other = Spec::new(9);
        let gateway = TestGateway::new(FLOWS, discards, &[spec.clone(), other.clone()]);
        let mut this = Self { gateway, terminal: spec.terminal(), other: other.terminal() };
        // The first packet shows its SA, the second its destination. Nothing overtakes before.
        let (down, _) = this.mixed_bursts();
        assert_eq!(down.iter().map(|frame| terminal_of(frame)).collect::<Vec<_>>(), [9, 1]);
        this.assert_known();
        this
    }

    /// Returns a packet from the server to terminal 1 with a payload of `size` bytes.
    pub(super) fn down(size: usize) -> Vec<u8> {
        udp_packet(server(0), inner(1), (53, 1001), &vec![7; size])
    }

    /// Returns a packet from terminal 1 to the server with a payload of `size` bytes.
    pub(super) fn up(size: usize) -> Vec<u8> {
        udp_packet(inner(1), server(0), (1001, 53), &vec![7; size])
    }

    /// Sends a packet to terminal 1. Returns the frames that come out on its side.
    pub(super) fn send_down(&mut self, size: usize) -> Vec<Vec<u8>> {
        self.gateway.exchange(INSIDE, &[Self::down(size)], OUTSIDE)
    }

    /// Sends a packet from terminal 1. Returns the frames that come out on the server's side.
    pub(super) fn send_up(&mut self, size: usize) -> Vec<Vec<u8>> {
        let sealed = self.terminal.seal(&Self::up(size));
        self.gateway.exchange(OUTSIDE, &[sealed], INSIDE)
    }

    /// Asserts that the flows of terminal 1 are remembered once they were seen: packets of flows that are
    /// overtake those before them that take the whole way.
    pub(super) fn assert_known(&mut self) {
        self.mixed_bursts();
        let (down, up) = self.mixed_bursts();
        let terminals: Vec<_> = down.iter().map(|frame| terminal_of(frame)).collect();
        assert_eq!(terminals, [1, 9], "{:?}", self.gateway.drops());
        let sources: Vec<_> =
            up.iter().map(|frame| IpHeader::parse(&frame[ethernet::HEADER..]).unwrap().src).collect();
        assert!(sources == [inner(1), inner(9)], "{sources:?} {:?}", self.gateway.drops());
    }

    /// Sends a burst in each direction: a packet of terminal 9 that takes the whole way, then one of
    /// terminal 1. Returns the frames that come out at the outside and at the inside.
    fn mixed_bursts(&mut self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let ping = ip_packet(server(0), inner(9), protocol::ICMP, &[8, 0, 0, 0, 0, 1, 0, 1]);
        let down = self.gateway.exchange(INSIDE, &[ping, Self::down(64)], OUTSIDE);
        let mut slow = self.other.seal(&udp_packet(inner(9), server(0), (1009, 53), b"slow"));
        slow[8] = 1;
        let length = slow.len();
        ip::set_total_len(&mut slow, ip::V4_HEADER, length);
        let fast = self.terminal.seal(&Self::up(64));
        (down, self.gateway.exchange(OUTSIDE, &[slow, fast], INSIDE))
    }
}

/// Returns the number of the terminal that the ESP packet in a frame of the gateway is for.
pub(super) fn terminal_of(frame: &[u8]) -> u32 {
    let (_, bytes) = esp_in(&frame[ethernet::HEADER..]).expect("an IP packet");
    let (spi, _) = esp::header(bytes).expect("an ESP packet");
    spi >> 8 & 0xff
}
