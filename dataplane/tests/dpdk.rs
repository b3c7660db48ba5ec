//! DPDK's ports over its own virtual devices, without huge pages or a NIC. Needs root, because one
//! of them is also a kernel device, in its own network namespace.

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, OnceLock},
};
use wayfarer_dataplane::{
    packet::Burst,
    pool::Pool,
    port::{
        PortError,
        dpdk::{Eal, OpenDevice, Options, Request},
    },
};

const FRAMES: usize = 2048;
const FRAME: usize = 2048;

/// Returns the one EAL of this process, for one test at a time.
fn eal() -> MutexGuard<'static, Eal> {
    static EAL: OnceLock<Mutex<Eal>> = OnceLock::new();
    // SAFETY: affects only this thread, which runs one test.
    let alone = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(alone, 0, "these tests make network namespaces and need root");
    let start = || {
        write_pcap(&jumbo_file(), &[1000, 9000, 1914, 60]);
        let jumbo = format!("net_pcap0,rx_pcap={}", jumbo_file().display());
        let options = Options {
            cores: vec![0],
            memory: Some(Options::memory_for(4, FRAMES, FRAME)),
            vdev: vec!["net_ring0".into(), "net_null0".into(), "net_null1".into(), "net_tap0".into(), jumbo],
            ..Options::default()
        };
        Mutex::new(Eal::start(&options).unwrap())
    };
    EAL.get_or_init(start).lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn jumbo_file() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("jumbo.pcap")
}

/// Writes frames of these lengths, each filled with its own number.
fn write_pcap(path: &PathBuf, lengths: &[u32]) {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for (number, &length) in lengths.iter().enumerate() {
        for word in [0, 0, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(vec![number as u8; length as usize]);
    }
    fs::write(path, file).unwrap();
}

fn pools(eal: &Eal, count: usize) -> Vec<Pool> {
    (0..count).map(|_| eal.pool(FRAMES, FRAME, 0).unwrap()).collect()
}

fn request(device: &str) -> Request<'_> {
    Request { device, mtu: None, mac: None, promiscuous: false, fill_checksums: false, offload_tags: false }
}

fn filled(pool: &mut Pool, count: usize, seed: u8) -> Burst {
    let mut burst = Burst::new();
    for number in 0..count {
        let mut packet = pool.take().unwrap();
        packet.fill(200, &[seed + number as u8; 100]).unwrap();
        burst.push(packet);
    }
    burst
}

#[test]
fn ring_returns_the_same_frames_in_the_same_queue() {
    let eal = eal();
    let mut pools = pools(&eal, 2);
    let OpenDevice { mut ports, .. } = eal.open(&request("net_ring0"), &mut pools).unwrap();
    for (queue, seed) in [(0, 10), (1, 60)] {
        let (port, pool) = (&mut ports[queue], &mut pools[queue]);
        let mut burst = filled(pool, 20, seed);
        let at: Vec<_> = burst.iter().map(|packet| packet.data().as_ptr()).collect();
        port.tx(pool, &mut burst);
        assert!(burst.is_empty());
        assert_eq!((port.stats().tx_packets, port.stats().tx_bytes), (20, 2000));
        port.rx(pool, &mut burst);
        assert_eq!(burst.iter().map(|packet| packet.data().as_ptr()).collect::<Vec<_>>(), at);
        for (number, packet) in burst.iter().enumerate() {
            assert_eq!(packet.data(), [seed + number as u8; 100]);
            assert_eq!((packet.headroom(), packet.tailroom()), (200, FRAME - 300));
        }
        assert_eq!((port.stats().rx_packets, port.stats().rx_bytes), (20, 2000));
        pool.give_all(&mut burst);
        assert_eq!(pool.available(), FRAMES);
    }
}

#[test]
fn packets_that_a_full_ring_refuses_stay_with_the_caller() {
    let eal = eal();
    let mut pools = pools(&eal, 1);
    let OpenDevice { mut ports, .. } = eal.open(&request("net_ring0"), &mut pools).unwrap();
    let (port, pool) = (&mut ports[0], &mut pools[0]);
    let mut offered = 0;
    let mut burst = filled(pool, 64, 0);
    while burst.len() == 64 {
        port.tx(pool, &mut burst);
        offered += 64;
        if burst.is_empty() {
            burst = filled(pool, 64, 0);
        }
        assert!(offered <= FRAMES, "the ring has no end");
    }
    let left = burst.len();
    pool.give_all(&mut burst);
    let sent = port.stats().tx_packets as usize;
    assert_eq!(pool.available() + sent, FRAMES, "{left} stayed");
    let mut received = 0;
    loop {
        port.rx(pool, &mut burst);
        if burst.is_empty() {
            break;
        }
        received += burst.len();
        pool.give_all(&mut burst);
    }
    assert_eq!((received, pool.available()), (sent, FRAMES));
}

#[test]
fn refuses_and_counts_frames_in_several_buffers() {
    let eal = eal();
    let mut pools = pools(&eal, 1);
    let OpenDevice { mut ports, .. } = eal.open(&request("net_pcap0"), &mut pools).unwrap();
    let mut burst = Burst::new();
    ports[0].rx(&mut pools[0], &mut burst);
    let seen: Vec<_> = burst.iter().map(|packet| (packet.len(), packet.data()[0])).collect();
    assert_eq!(seen, [(1000, 0), (1914, 2), (60, 3)]);
    assert_eq!((ports[0].stats().rx_oversize, ports[0].stats().rx_packets), (1, 3));
    pools[0].give_all(&mut burst);
    drop(ports);
    assert_eq!(pools[0].available(), FRAMES);
}

#[test]
fn all_mbufs_return_after_repeated_opening_and_closing() {
    let eal = eal();
    let mut pools = pools(&eal, 2);
    for round in 0..10 {
        let tap = eal.open(&request("net_tap0"), &mut pools).unwrap();
        assert!(pools.iter().all(|pool| pool.available() < FRAMES), "its rings hold none");
        let opened =
            ["net_ring0", "net_null0", "net_null1"].map(|device| eal.open(&request(device), &mut pools));
        let mut ports: Vec<_> = opened.into_iter().flat_map(|opened| opened.unwrap().ports).collect();
        for (at, port) in ports.iter_mut().enumerate() {
            let pool = &mut pools[at % 2];
            let mut burst = filled(pool, 64, 0);
            port.tx(pool, &mut burst);
            port.rx(pool, &mut burst);
            assert!(burst.len() >= 32, "round {round}, port {at}");
            pool.give_all(&mut burst);
        }
        drop((ports, tap));
        assert_eq!(pools.iter().map(Pool::available).collect::<Vec<_>>(), [FRAMES; 2], "round {round}");
    }
}

#[test]
fn small_pool_returns_frames_to_drivers() {
    let eal = eal();
    let mut pools = [eal.pool(256, FRAME, 0).unwrap()];
    let OpenDevice { mut ports, .. } = eal.open(&request("net_null0"), &mut pools).unwrap();
    for round in 0..100 {
        let mut burst = Burst::new();
        ports[0].rx(&mut pools[0], &mut burst);
        assert_eq!(burst.len(), 64, "round {round}");
        pools[0].give_all(&mut burst);
    }
    drop(ports);
    assert_eq!(pools[0].available(), 256);
}

#[test]
fn refuses_devices_whose_rings_would_hold_all_frames() {
    let eal = eal();
    let mut pools = [256, 512, 256].map(|frames| eal.pool(frames, FRAME, 0).unwrap());
    for _ in 0..3 {
        let first = eal.open(&request("net_null0"), &mut pools).unwrap();
        let second = eal.open(&request("net_ring0"), &mut pools).unwrap();
        let why = eal.open(&request("net_null1"), &mut pools).unwrap_err().to_string();
        assert_eq!(
            why,
            "net_null1: its driver cannot run with 256 frames a worker: rings and caches hold 288"
        );
        drop((first, second));
    }
}

#[test]
fn each_thread_has_its_own_cache_and_leaves_it_empty() {
    let eal = eal();
    // More than the 128 threads that DPDK knows at a time: each one frees its slot.
    for _ in 0..200 {
        let mut pools = pools(&eal, 1);
        let OpenDevice { mut ports, .. } = eal.open(&request("net_null0"), &mut pools).unwrap();
        let (mut port, mut pool) = (ports.remove(0), pools.remove(0));
        let work = move || {
            port.attach();
            let mut burst = Burst::new();
            port.rx(&mut pool, &mut burst);
            assert_eq!(burst.len(), 64);
            port.tx(&mut pool, &mut burst);
            assert!(burst.is_empty());
            pool
        };
        let pool = std::thread::spawn(work).join().unwrap();
        assert_eq!(pool.available(), FRAMES);
    }
}

#[test]
fn reports_in_one_line_why_a_device_cannot_be_opened() {
    let eal = eal();
    let refused = |request: &Request<'_>, pools: &mut [Pool]| match eal.open(request, pools) {
        Ok(opened) => panic!("{opened:?}"),
        Err(why) => why.to_string(),
    };
    let mut two = pools(&eal, 2);
    assert_eq!(refused(&request("net_null7"), &mut two), "no device named \"net_null7\"");
    assert_eq!(refused(&request("net_null0\0"), &mut two), "no device named \"net_null0\0\"");
    assert_eq!(
        refused(&request("net_pcap0"), &mut two),
        "net_pcap0: a queue for each of 2 workers is needed; it has 1"
    );
    let mut arenas = [Pool::new(FRAMES, FRAME).unwrap()];
    assert_eq!(refused(&request("net_null0"), &mut arenas), "net_null0: the workers' frames are not DPDK's");
    let mut small = [eal.pool(FRAMES, 512, 0).unwrap()];
    assert_eq!(
        refused(&request("net_null0"), &mut small),
        "net_null0: frames of 512 bytes are too small for packets of 1500 bytes"
    );
    let too_many = eal.pool(1 << 24, FRAME, 0).unwrap_err().to_string();
    assert!(
        too_many.starts_with("dpdk: no memory for 16777216 frames") && !too_many.contains('\n'),
        "{too_many}"
    );
    assert!(matches!(Eal::start(&Options::default()), Err(PortError::NotSupported { .. })));
    assert_eq!(eal.queues("net_pcap0"), Some(1));
    assert_eq!(eal.queues("net_null7"), None);
}

#[test]
fn device_reports_state_and_counters() {
    let eal = eal();
    let mut pools = pools(&eal, 1);
    let mut opened = eal.open(&request("net_null0"), &mut pools).unwrap();
    assert_eq!((opened.kind.as_str(), opened.mtu), ("dpdk (net_null)", 1500));
    let mut burst = Burst::new();
    opened.ports[0].rx(&mut pools[0], &mut burst);
    pools[0].give_all(&mut burst);
    let state = opened.monitor.state();
    // This device always reports that it is promiscuous.
    assert!(state.is_up && state.is_promiscuous, "{state:?}");
    assert_eq!((state.speed, state.full_duplex, state.rx_missed), (Some(10_000), Some(true), 0));
    let counters = opened.monitor.counters();
    let of = |name: &str| counters.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    assert_eq!((of("rx_good_packets"), of("tx_good_packets")), (Some(64), Some(0)));
}
