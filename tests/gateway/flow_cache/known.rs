//! Flows that a gateway is shown to remember.

use super::{
    gateway::{Spec, TestGateway},
    kind::Kind,
    odd::with_ttl,
};
use wayfarer::sim::{
    fixtures::*,
    terminal::{Terminal, esp_in},
};
use wayfarer_dataplane::wire::{esp, ethernet, ip::IpHeader};

/// The flows that a gateway of these tests remembers, at least.
const FLOWS: usize = 64;

/// A gateway with the tunnels of terminals 1 and 9, which remembers the flows of terminal 1 in both
/// directions.
pub(super) struct Known {
    kind: Kind,
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
        Self::on(Kind::USUAL, [spec, &Spec::new(9)], false)
    }

    /// Makes a gateway that may discard, and whose tunnel to terminal 1 is `spec`.
    pub(super) fn discarding(spec: &Spec) -> Self {
        Self::on(Kind::USUAL, [spec, &Spec::new(9)], true)
    }

    /// Makes a gateway whose tunnels are of this kind.
    pub(super) fn of(kind: Kind) -> Self {
        Self::of_spec(kind, &kind.spec(1))
    }

    /// Makes a gateway whose tunnels are of this kind, that to terminal 1 with these parameters.
    pub(super) fn of_spec(kind: Kind, spec: &Spec) -> Self {
        Self::on(kind, [spec, &kind.spec(9)], false)
    }

    fn on(kind: Kind, [spec, other]: [&Spec; 2], discards: bool) -> Self {
        let gateway = TestGateway::on(kind.ports(), FLOWS, discards, &[spec.clone(), other.clone()]);
        let mut this = Self { kind, gateway, terminal: spec.terminal(), other: other.terminal() };
        // The first packet shows its SA, the second its destination. Nothing overtakes before.
        let (down, _) = this.mixed_bursts();
        let terminals: Vec<_> = down.iter().map(|frame| terminal_of(frame)).collect();
        assert_eq!(terminals, [9, 1], "{kind:?}: {:?}", this.gateway.drops());
        this.assert_known();
        this
    }

    /// Returns a usual packet from the server to terminal 1 with a payload of `size` bytes.
    pub(super) fn down(size: usize) -> Vec<u8> {
        Kind::USUAL.down(size)
    }

    /// Returns a usual packet from terminal 1 to the server with a payload of `size` bytes.
    pub(super) fn up(size: usize) -> Vec<u8> {
        Kind::USUAL.up(1, size)
    }

    /// Sends a packet to terminal 1. Returns the frames that come out on its side.
    pub(super) fn send_down(&mut self, size: usize) -> Vec<Vec<u8>> {
        self.gateway.exchange(self.kind.port(), &[self.kind.down(size)], OUTSIDE)
    }

    /// Sends a packet from terminal 1. Returns the frames that come out on the other side.
    pub(super) fn send_up(&mut self, size: usize) -> Vec<Vec<u8>> {
        let sealed = self.kind.seal(&mut self.terminal, &self.kind.up(1, size));
        self.gateway.exchange(OUTSIDE, &[sealed], self.kind.port())
    }

    /// Asserts that the flows of terminal 1 are remembered once they were seen: packets of flows that are
    /// overtake those before them that take the whole way.
    pub(super) fn assert_known(&mut self) {
        self.mixed_bursts();
        let (down, up) = self.mixed_bursts();
        let terminals: Vec<_> = down.iter().map(|frame| terminal_of(frame)).collect();
        assert_eq!(terminals, [1, 9], "{:?}: {:?}", self.kind, self.gateway.drops());
        let sources: Vec<_> =
            up.iter().map(|frame| IpHeader::parse(&frame[ethernet::HEADER..]).unwrap().src).collect();
        let expected = [1, 9].map(|n| self.kind.ends(n).1);
        assert!(sources == expected, "{:?}: {sources:?} {:?}", self.kind, self.gateway.drops());
    }

    /// Sends a burst in each direction: a packet of terminal 9 that takes the whole way, then one of
    /// terminal 1. Returns the frames that come out at the outside and on the other side.
    fn mixed_bursts(&mut self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let kind = self.kind;
        let down = self.gateway.exchange(kind.port(), &[kind.ping(9), kind.down(64)], OUTSIDE);
        let slow = with_ttl(kind.seal(&mut self.other, &kind.up(9, 4)), 1);
        let fast = kind.seal(&mut self.terminal, &kind.up(1, 64));
        (down, self.gateway.exchange(OUTSIDE, &[slow, fast], kind.port()))
    }
}

/// Returns the number of the terminal that the ESP packet in a frame of the gateway is for.
pub(super) fn terminal_of(frame: &[u8]) -> u32 {
    let (_, bytes) = esp_in(&frame[ethernet::HEADER..]).expect("an IP packet");
    let (spi, _) = esp::header(bytes).expect("an ESP packet");
    spi >> 8 & 0xff
}
