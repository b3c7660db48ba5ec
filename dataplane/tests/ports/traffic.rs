//! Traffic that every kind of port must carry.

use crate::{
    frames::{number, numbered},
    world::{RawSocket, wait_for},
};
use wayfarer_dataplane::{
    packet::Burst,
    pool::Pool,
    port::{Mac, Port},
};

/// A worker's port of one device, and its pool.
pub(crate) type Worker = (Box<dyn Port>, Pool);

/// Sends frames of several lengths from the peer. They must arrive byte for byte, and so must
/// answers on the way back.
pub(crate) fn round_trip(port: &mut dyn Port, pool: &mut Pool, mac: Mac, peer: &RawSocket) {
    for (i, len) in [60, 61, 127, 590, 1513, 1514].into_iter().enumerate() {
        let frame = numbered(mac, peer.mac, 9, i as u32, len);
        peer.send(&frame);
        let mut burst = receive(port, pool);
        assert_eq!(burst.len(), 1);
        assert_eq!(burst[0].data(), frame);
        let swapped = numbered(peer.mac, mac, 9, i as u32, len);
        burst[0].data_mut()[..12].copy_from_slice(&swapped[..12]);
        port.tx(pool, &mut burst);
        assert!(burst.is_empty());
        let back = wait_for("an answer", || {
            port.flush(pool);
            peer.try_recv()
        });
        assert_eq!(back, swapped);
    }
    drain(port, pool);
    let stats = port.stats();
    assert_eq!((stats.rx_packets, stats.tx_packets, stats.rx_bytes, stats.tx_bytes), (6, 6, 3865, 3865));
    assert_eq!((stats.rx_errors, stats.rx_oversize, stats.rx_missed, stats.tx_errors), (0, 0, 0, 0));
}

/// Echoes `count` frames, with at most `window` of them in transit. Each must come back exactly
/// once.
pub(crate) fn echo(ports: &mut [Worker], mac: Mac, peer: &RawSocket, count: u32, window: u32) {
    let mut seen = vec![false; count as usize];
    let (mut sent, mut received) = (0, 0);
    wait_for("all frames to come back", || {
        while sent < count && sent - received < window {
            // Many flows, so that every queue has some.
            peer.send(&numbered(mac, peer.mac, (sent % 64) as u16, sent, 60 + sent as usize % 900));
            sent += 1;
        }
        for (port, pool) in &mut *ports {
            let mut burst = Burst::new();
            port.rx(pool, &mut burst);
            for packet in burst.iter_mut() {
                packet.data_mut()[..6].copy_from_slice(&peer.mac);
                packet.data_mut()[6..12].copy_from_slice(&mac);
            }
            // Back-pressure loses nothing: packets that stay in the burst are offered again.
            wait_for("the device to take a burst", || {
                port.tx(pool, &mut burst);
                port.flush(pool);
                burst.is_empty().then_some(())
            });
        }
        while let Some(frame) = peer.try_recv() {
            let n = number(&frame);
            assert_eq!(frame, numbered(peer.mac, mac, (n % 64) as u16, n, 60 + n as usize % 900));
            assert!(!std::mem::replace(&mut seen[n as usize], true), "frame {n} came twice");
            received += 1;
        }
        (received == count).then_some(())
    });
    for (port, pool) in ports {
        drain(&mut **port, pool);
        let stats = port.stats();
        assert_eq!((stats.rx_errors, stats.rx_oversize, stats.rx_missed, stats.tx_errors), (0, 0, 0, 0));
    }
}

/// Waits for a burst.
pub(crate) fn receive(port: &mut dyn Port, pool: &mut Pool) -> Burst {
    let mut burst = Burst::new();
    wait_for("a packet", || {
        port.rx(pool, &mut burst);
        (!burst.is_empty()).then_some(())
    });
    burst
}

/// Waits until all that was sent has left.
pub(crate) fn drain(port: &mut dyn Port, pool: &mut Pool) {
    wait_for("the port to drain", || {
        port.flush(pool);
        port.is_drained().then_some(())
    });
}
