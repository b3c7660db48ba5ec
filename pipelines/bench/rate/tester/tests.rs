//! The tester on ports of memory, with a device under test in another thread.

use super::{
    super::{
        devices::Found,
        interrupt::Signal,
        options::{Options, Size, Traffic},
        source::Source,
        stamp,
        traffic::Load,
        tunnels::Numbers,
    },
    *,
};
use crate::{
    config::model::{Remote, Sa, Tunnel},
    sim::{
        fixtures::{bare_tunnel, ip, sa, selector, suite},
        frames::{datagram, frame},
        terminal::Terminal,
    },
};
use signal_hook::consts::SIGTERM;
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};
use wayfarer_dataplane::{
    crypto::Backend,
    pool::Pool,
    port::{
        Port,
        memory::{self, Wire},
    },
    wire::{ethernet, ip::V4_HEADER, udp},
};

/// The far ends of the tester's queues, by port.
type Wires = [Vec<Wire>; 2];

fn options(traffic: Traffic, threads: usize) -> Options {
    Options {
        directions: vec![Direction::Both],
        traffic,
        sizes: Some(vec![Size::Imix]),
        threads,
        ..Options::sample()
    }
}

fn clear(src: &str, dst: &str, flows: u32) -> Traffic {
    Traffic::Clear { src: src.parse().unwrap(), dst: dst.parse().unwrap(), flows }
}

fn found() -> [Found; 2] {
    [("left", 1), ("right", 2)].map(|(name, n)| Found {
        name: name.to_owned(),
        mtu: 1500,
        mac: [2, 0, 0, 0, 0, n],
    })
}

/// Starts a tester, which does not know yet what to send. Returns the far ends and the load as well.
fn start(options: &Options) -> (Tester, Wires, Load) {
    start_with(options, Load::new(options, &found()).unwrap())
}

fn start_with(options: &Options, mut load: Load) -> (Tester, Wires, Load) {
    let mut wires = Wires::default();
    let mut equipment = Vec::new();
    for sources in std::mem::take(&mut load.sources) {
        let ports = wires.iter_mut().map(|wires| {
            let (port, wire) = memory::pair(1024, 2048);
            wires.push(wire);
            Box::new(port) as Box<dyn Port>
        });
        equipment.push(Equipment {
            ports: ports.collect(),
            pool: Pool::new(4096, 2048).unwrap(),
            sources,
            openers: load.openers.clone(),
            is_capture: matches!(options.traffic, Traffic::Capture(_)),
        });
    }
    let tunnels = load.numbers.iter().map(|numbers| numbers.tunnel.clone()).collect();
    let interrupt = Interrupt::default();
    (Tester::start(equipment, &[], options.settle, interrupt, tunnels, None).unwrap(), wires, load)
}

/// Ends the device's thread, also if the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Runs `test` beside a device that passes each frame to `pass`, with the port that it came by, and sends
/// what that returns by the other port, on the next queue, as a device that hashes flows might.
fn with_device<R>(
    wires: &Wires,
    mut pass: impl FnMut(usize, &[u8]) -> Vec<Vec<u8>> + Send,
    test: impl FnOnce() -> R,
) -> R {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                thread::yield_now();
                for (port, queues) in wires.iter().enumerate() {
                    for (queue, wire) in queues.iter().enumerate() {
                        let to = &wires[1 - port][(queue + 1) % queues.len()];
                        while let Some(frames) = wire.receive(|frame| pass(port, frame)) {
                            for frame in frames {
                                while !to.send(&frame) && !is_over.load(Relaxed) {
                                    thread::yield_now();
                                }
                            }
                        }
                    }
                }
            }
        });
        let _end = End(&is_over);
        test()
    })
}

/// Returns the number of the IPv4 frame that the tester sent, which is behind signature, stream and trial.
fn number(frame: &[u8]) -> u64 {
    let at = ethernet::HEADER + V4_HEADER + udp::HEADER;
    frame[at..at + stamp::LEN][7..12].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

#[test]
fn what_a_device_drops_and_repeats_is_counted_exactly() {
    let (mut tester, wires, load) = start(&options(clear("198.18.0.0/24", "198.19.0.0/24", 5), 1));
    let pass = |port, frame: &[u8]| {
        assert_eq!(port, 0, "only forward");
        match number(frame) {
            dropped if dropped % 10 == 3 => vec![],
            repeated if repeated % 7 == 0 => vec![frame.to_vec(); 3],
            _ => vec![frame.to_vec()],
        }
    };
    let trial = with_device(&wires, pass, || {
        tester.learn(Direction::Forward, load.limits.packets(Size::Imix), load.flows).unwrap();
        tester.trial(&Demand::burst(None, 2000)).unwrap()
    });
    let repeated = (0..2000).filter(|number| number % 7 == 0 && number % 10 != 3).count() as u64;
    assert_eq!((trial.sent, trial.received, trial.lost()), (2000, 1800, 200));
    assert_eq!((trial.duplicates, trial.latency.len()), (2 * repeated, 1800));
    assert!(trial.fps > 0.0 && !trial.passes(0.05) && trial.passes(0.1));
    assert!(trial.latency.min() > 0 && trial.latency.max() < 10_000_000_000);
}

#[test]
fn frames_of_two_threads_come_back_to_either_in_both_directions() {
    for (src, dst) in [("198.18.0.0/24", "198.19.0.0/24"), ("2001:2::/64", "2001:2:0:8000::/64")] {
        let (mut tester, wires, load) = start(&options(clear(src, dst, 64), 2));
        let trial = with_device(
            &wires,
            |_, frame| vec![frame.to_vec()],
            || {
                tester.learn(Direction::Both, load.limits.packets(Size::Imix), load.flows).unwrap();
                tester.trial(&Demand::burst(None, 4002)).unwrap()
            },
        );
        assert_eq!((trial.sent, trial.lost(), trial.duplicates), (4002, 0, 0));
        // Of 4002 frames, two of four streams have one more.
        assert_eq!(trial.received_ways, [2001, 2001]);
    }
}

#[test]
fn device_that_answers_in_one_direction_only_is_silent_in_the_other() {
    let (mut tester, wires, load) = start(&options(clear("198.18.0.1", "198.19.0.1", 1), 1));
    let pass = |port, frame: &[u8]| if port == 0 { vec![frame.to_vec()] } else { vec![] };
    let learned = with_device(&wires, pass, || {
        let mut learn = |direction| tester.learn(direction, load.limits.packets(Size::Fixed(64)), 1);
        [Direction::Forward, Direction::Both].map(|direction| learn(direction).map_err(|why| why.to_string()))
    });
    assert_eq!(learned[0], Ok(()));
    assert!(
        learned[1].as_ref().is_err_and(|why| why.starts_with("no frame came back (both)")),
        "{learned:?}"
    );
}

#[test]
fn trial_of_which_a_device_takes_nothing_is_no_figure() {
    let (mut tester, wires, _load) = start(&options(clear("198.18.0.1", "198.19.0.1", 1), 1));
    tester.lengths = [46].into();
    // Nobody empties the ring.
    let full = tester.run(&Demand::burst(None, 2000), Duration::ZERO).unwrap();
    assert!(full.sent > 0 && full.sent == wires[0][0].waiting() as u64, "{full:?}");
    let why = tester.trial(&Demand::new(None, Duration::from_millis(50))).unwrap_err().to_string();
    assert!(why.starts_with("a device took no frame in a whole trial (forward)"), "{why}");
}

#[test]
fn panic_of_a_thread_ends_the_trial_of_all() {
    let options = options(clear("198.18.0.0/24", "198.19.0.0/24", 2), 2);
    let mut load = Load::new(&options, &found()).unwrap();
    // It has no first frame to take.
    load.sources[1][0] = Some(Source::Capture(vec![]));
    let (mut tester, _wires, _load) = start_with(&options, load);
    tester.lengths = [46].into();
    let result = tester.trial(&Demand::new(Some(1000.0), Duration::from_secs(3600)));
    assert_eq!(result.map(drop).unwrap_err().to_string(), "a thread ended before its time");
}

#[test]
fn interrupted_trial_ends_at_once_and_so_do_all_after_it() {
    const HOUR: Duration = Duration::from_secs(3600);
    let clear = clear("198.18.0.0/24", "198.19.0.0/24", 2);
    let (mut tester, wires, load) = start(&Options { settle: HOUR, ..options(clear, 2) });
    let (interrupt, mut last) = (tester.interrupt.clone(), 0);
    let pass = |_, frame: &[u8]| {
        last = last.max(number(frame));
        if last >= 100 {
            interrupt.set(Signal(SIGTERM));
        }
        vec![frame.to_vec()]
    };
    let results = with_device(&wires, pass, || {
        tester.learn(Direction::Forward, load.limits.packets(Size::Fixed(64)), load.flows).unwrap();
        let long = Demand::new(Some(10_000.0), HOUR);
        // The second one waits no more before it begins.
        [(); 2].map(|()| tester.trial(&long).map(drop))
    });
    for result in results {
        assert!(matches!(result, Err(RateError::Interrupted(Signal(SIGTERM)))), "{result:?}");
    }
    assert!(last >= 100, "{last}");
}

/// Makes the tester's end of a tunnel whose last number was `sequence`.
fn tunnel(name: &str, spi: u32, sequence: u64) -> Tunnel {
    let suite = suite("aes128gcm16");
    Tunnel {
        local: ip("192.0.2.7"),
        remote: Remote::At(ip("203.0.113.1"), 0),
        selectors: vec![selector("10.98.0.0/24", "10.99.0.0/24")],
        ..bare_tunnel(name.to_owned(), sa(spi, suite, spi), Sa { sequence, ..sa(spi + 1, suite, spi + 1) })
    }
}

/// Makes a device that opens and seals the packets of these tunnels, whose SPIs are multiples of 0x100.
fn gateway(tunnels: &[Tunnel]) -> impl FnMut(usize, &[u8]) -> Vec<Vec<u8>> + Send {
    let ends = tunnels.iter().map(|tunnel| {
        let pair = [&tunnel.inbound, &tunnel.outbound];
        Terminal::of(pair, ip("203.0.113.1"), Backend::Portable)
    });
    let mut ends: Vec<_> = ends.collect();
    let mut turn = 0;
    move |port, bytes: &[u8]| {
        let packet = &bytes[ethernet::HEADER..];
        let passed = if port == 0 {
            ends.iter().find_map(|end| end.try_open(packet)).map(|(_, _, inner, _)| inner)
        } else {
            turn += 1;
            let end = turn % ends.len();
            Some(ends[end].seal(packet))
        };
        passed.into_iter().map(|packet| frame([4; 6], [2; 6], &packet)).collect()
    }
}

#[test]
fn frames_pass_through_a_devices_tunnels_both_ways() {
    let tunnels =
        || [("alice", 0x100), ("bob", 0x200), ("carol", 0x300)].map(|(name, spi)| tunnel(name, spi, 0));
    let traffic = Traffic::Esp { tunnels: tunnels().into(), ipv6: false, flows: Some(7) };
    let (mut tester, wires, load) = start(&options(traffic, 2));
    assert_eq!((load.flows, &load.ciphers[..]), (7, &["aes128gcm16".to_owned()][..]));
    // What ESP adds does not fit beside the longest clear packet.
    assert!((1430..1500).contains(&(load.limits.longest as usize - 18)), "{:?}", load.limits);
    let trial = with_device(&wires, gateway(&tunnels()), || {
        tester.learn(Direction::Both, load.limits.packets(Size::Imix), load.flows).unwrap();
        tester.trial(&Demand::burst(None, 400)).unwrap()
    });
    assert_eq!((trial.sent, trial.lost(), trial.forged), (400, 0, 0));
    assert_eq!(trial.received_ways, [200, 200]);
    // Each frame in ESP used a number, also those of learning; a burst that did not fit uses more.
    let used: u64 = load.numbers.iter().map(Numbers::sent).sum();
    assert!(used > 200, "{used}");
    let seen: u64 = load.numbers.iter().map(Numbers::received).sum();
    assert!(seen > 200, "{seen}");
}

#[test]
fn tunnel_without_numbers_ends_the_test() {
    let tunnels = || [tunnel("alice", 0x100, 0), tunnel("bob", 0x200, u64::from(u32::MAX) - 40)];
    let traffic = Traffic::Esp { tunnels: tunnels().into(), ipv6: false, flows: None };
    let (mut tester, wires, load) = start(&options(traffic, 1));
    let result = with_device(&wires, gateway(&tunnels()), || {
        tester.learn(Direction::Forward, load.limits.packets(Size::Fixed(128)), load.flows).unwrap();
        tester.trial(&Demand::burst(None, 1000)).map(drop).map_err(|why| why.to_string())
    });
    assert!(result.is_err_and(|why| why.starts_with("tunnel bob has used all its sequence numbers")));
    assert_eq!(load.numbers[1].sent(), u64::from(u32::MAX));
}

#[test]
fn frames_of_a_capture_are_sent_with_new_addresses_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("two.pcap");
    // Little-endian, microseconds, version 2.4, up to 65535 bytes, Ethernet.
    let mut file = [0xa1b2_c3d4u32, 4 << 16 | 2, 0, 0, 65535, 1].map(u32::to_le_bytes).concat();
    let packets =
        [datagram("10.1.0.1", "10.2.0.1", (1, 2), &[7; 100]), datagram("fd00::1", "fd01::1", (3, 4), &[])];
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 46]].concat();
    for frame in packets.iter().map(|packet| frame([9; 6], [8; 6], packet)).chain([arp]) {
        let length = (frame.len() as u32).to_le_bytes();
        file.extend([[0; 4], [0; 4], length, length].concat());
        file.extend(frame);
    }
    std::fs::write(&path, file).unwrap();
    let traffic = Traffic::Capture(path);
    let (mut tester, wires, load) = start(&Options { sizes: None, ..options(traffic, 1) });
    assert_eq!((&load.sizes[..], load.ipv6), (&[Size::Capture][..], false));
    assert_eq!(load.left_out, 1, "ARP");
    assert_eq!(load.mean(Size::Capture), (packets[0].len() + packets[1].len()) as f64 / 2.0 + 18.0);
    let [left, right] = found().map(|device| device.mac);
    let expected = packets.each_ref().map(|packet| frame(right, left, packet));
    let pass = |_, frame: &[u8]| {
        assert!(expected.iter().any(|expected| expected == frame), "{frame:x?}");
        vec![frame.to_vec()]
    };
    let trial = with_device(&wires, pass, || {
        tester.learn(Direction::Forward, vec![], 0).unwrap();
        tester.trial(&Demand::burst(None, 501)).unwrap()
    });
    assert_eq!((trial.sent, trial.received, trial.lost()), (501, 501, 0));
    assert!(trial.latency.is_empty());
}

#[test]
fn traffic_of_no_use_is_refused() {
    let refused = |options: Options| Load::new(&options, &found()).err().map(|why| why.to_string());
    let with = |traffic, threads| refused(options(traffic, threads)).unwrap();
    assert_eq!(with(clear("198.18.0.1", "2001:2::1", 1), 1), "--src and --dst are of two address families");
    let why = with(clear("198.18.0.1", "198.19.0.1", 64_513), 1);
    assert_eq!(why, "64513 flows are more than addresses and ports allow: at most 64512");
    let traffic = || Traffic::Esp { tunnels: vec![tunnel("alice", 0x100, 0)], ipv6: false, flows: None };
    let why = "2 threads need a tunnel each, but the configuration has 1";
    assert_eq!(with(traffic(), 2), why);
    let sizes = Some(vec![Size::Fixed(1518)]);
    let why = refused(Options { sizes, ..options(traffic(), 1) }).unwrap();
    assert!(why.starts_with("frames of 1518 bytes do not fit the MTU: at most 14"), "{why}");
    let one = Load::new(&options(traffic(), 1), &found()[..1]).err().map(|why| why.to_string());
    assert!(one.unwrap().starts_with("--peer-port is needed"));
}
