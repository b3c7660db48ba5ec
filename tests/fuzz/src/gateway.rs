//! A whole gateway.

use super::world::*;
use wayfarer::config::model::Remote;
use wayfarer_dataplane::sa::Mode;

/// Most steps of one input.
const STEPS: usize = 32;
/// Longest frame or payload.
const LONGEST: usize = 1900;

/// A gateway between its ports: whatever comes in, in a frame or within authentic ESP, the traffic of another tunnel
/// passes afterwards.
///
/// The input is a list of steps: a byte that says what its bytes are, two of their length, and they.
pub fn gateway(mut data: &[u8]) {
    let suites = ["aes128gcm16", "aes256-sha256", "null-sha1"].map(suite);
    let mut transport = tunnel(2, suites[1]);
    transport.mode = Mode::Transport;
    transport.remote = Remote::At(ip("192.0.2.2"), 4500);
    transport.selectors = vec![selector("203.0.113.1", "192.0.2.2")];
    let mut world = World::new(vec![tunnel(1, suites[0]), transport, tunnel(3, suites[2])]);
    world.meet_neighbours();
    let mut peers =
        [1, 2, 3].map(|n: u8| Terminal::new(n.into(), suites[usize::from(n) - 1], &format!("192.0.2.{n}")));
    let mut steps = 0;
    while let [what, high, low, rest @ ..] = data
        && steps < STEPS
    {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len()).min(LONGEST);
        let (bytes, rest) = rest.split_at(length);
        (data, steps) = (rest, steps + 1);
        let peer = &mut peers[usize::from(what / 8 % 2)];
        peer.port = (what & 0x40 != 0).then_some(4500);
        match what % 8 {
            0 => drop(world.wires[OUTSIDE].send(bytes)),
            1 => drop(world.wires[INSIDE].send(bytes)),
            2 => world.put(OUTSIDE, bytes),
            3 => world.put(INSIDE, bytes),
            4 => world.put(OUTSIDE, &peer.wrap(bytes)),
            next => {
                peer.seq += 1;
                let next = [4, 41, bytes.first().copied().unwrap_or(59)][usize::from(next) - 5];
                let sealed = peer.seal_as(bytes, next, peer.seq);
                world.put(OUTSIDE, &sealed);
            }
        }
        // Some steps share a burst.
        if what & 0x80 == 0 {
            world.settle();
        }
    }
    world.settle();
    world.out = Default::default();
    let good = datagram("10.98.0.3", "10.99.0.7", (1, 2), b"good");
    let sealed = peers[2].seal(&good);
    world.send(OUTSIDE, &sealed);
    let out = world.take(INSIDE);
    assert!(out.contains(&forwarded(&good)), "a good packet is lost: {:?}", world.all_drops());
}
