//! Measures finding an SA by its SPI, in the gateway's table and in others, at several sizes. Keys
//! are random and looked up a burst at a time. As in a worker, a word of each SA found is read.
//! Also measures finding the rule of a packet among many rules of one prefix.

use arrayvec::ArrayVec;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};
use std::{hint::black_box, sync::Arc};
use wayfarer::gateway::{
    policy::{Action, Decision, Rule, Rules},
    tables::{Settings, Tables},
};
use wayfarer_dataplane::{
    sa::{Flow, PortRange, Selector, Spi},
    table::{Bucket, Map, Prefix, Writer},
    wire::{Address, ip::protocol},
};

const BURST: usize = 32;
/// Stands for an SA: two cache lines.
type Value = Arc<[u64; 16]>;

/// Returns bursts of keys below `entries`, so many that no cache holds by chance what they lead to.
fn bursts(entries: u32) -> Vec<[u32; BURST]> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (((state >> 32) * u64::from(entries)) >> 32) as u32
    };
    (0..8192).map(|_| std::array::from_fn(|_| draw())).collect()
}

fn value(key: u32) -> Value {
    Arc::new([u64::from(key); 16])
}

fn look_up(c: &mut Criterion) {
    let mut group = c.benchmark_group("look up");
    group.throughput(Throughput::Elements(BURST as u64));
    for entries in [1, 1_000, 100_000, 1_000_000] {
        let bursts = bursts(entries);
        let mut next = bursts.iter().cycle();
        let mut burst = || next.next().expect("an endless iterator");

        let array: Vec<Value> = (0..entries).map(value).collect();
        group.bench_function(BenchmarkId::new("array", entries), |b| {
            b.iter(|| burst().iter().map(|key| array[*key as usize][0]).sum::<u64>());
        });

        let mut writer = Writer::new();
        let table: Map<Spi, Value> = Map::new(&writer, entries as usize);
        (0..entries).for_each(|key| table.insert(&mut writer, Spi(key), value(key)));
        let reader = writer.reader();
        let find = |key: &u32| table.get(&Spi(*key), &reader).map_or(0, |found| found[0]);
        group.bench_function(BenchmarkId::new("ours", entries), |b| {
            b.iter(|| burst().iter().map(find).sum::<u64>());
        });
        group.bench_function(BenchmarkId::new("ours with prefetch", entries), |b| {
            b.iter(|| {
                let burst = burst();
                let buckets: ArrayVec<_, BURST> = burst.iter().map(|key| table.bucket(&Spi(*key))).collect();
                buckets.iter().for_each(|bucket| table.prefetch_bucket(*bucket));
                buckets.iter().for_each(|bucket| table.prefetch_node(*bucket));
                let find = |(key, bucket): (&u32, &Bucket)| table.get_at(*bucket, &Spi(*key), &reader);
                burst.iter().zip(&buckets).map(|at| find(at).map_or(0, |found| found[0])).sum::<u64>()
            });
        });
        drop((table, reader, writer));

        let papaya: papaya::HashMap<u32, Value> = (0..entries).map(|key| (key, value(key))).collect();
        group.bench_function(BenchmarkId::new("papaya", entries), |b| {
            b.iter(|| {
                let papaya = papaya.pin();
                burst().iter().map(|key| papaya.get(key).map_or(0, |found| found[0])).sum::<u64>()
            });
        });
        drop(papaya);

        let dashmap: dashmap::DashMap<u32, Value> = (0..entries).map(|key| (key, value(key))).collect();
        group.bench_function(BenchmarkId::new("dashmap", entries), |b| {
            b.iter(|| black_box(burst()).iter().map(|key| dashmap.get(key).map_or(0, |f| f[0])).sum::<u64>());
        });
    }
    group.finish();
}

/// Measures finding the rule of a packet among many of one prefix. In one case there is a rule for
/// each port, as an operator or a peer with many selectors makes them. In the other, ranges of
/// ports all overlap, as a peer could request to make look-ups slow.
fn rules(c: &mut Criterion) {
    let mut group = c.benchmark_group("rule");
    group.throughput(Throughput::Elements(1));
    let by_port = |port| (PortRange::ANY, PortRange { first: port, last: port });
    let crossing =
        |at| (PortRange { first: at, last: 30_000 + at }, PortRange { first: 5000 - at, last: 40_000 - at });
    for count in [1, 8, 9, 64, 512, 4000_u16] {
        for (kind, ports) in [("by port", &by_port as &dyn Fn(u16) -> _), ("crossing", &crossing)] {
            rule(&mut group, BenchmarkId::new(kind, count), count, ports);
        }
    }
    group.finish();
}

fn rule(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: BenchmarkId,
    count: u16,
    ports: &dyn Fn(u16) -> (PortRange, PortRange),
) {
    let everywhere: Prefix = "0.0.0.0/0".parse().expect("a prefix");
    let mut writer = Writer::new();
    let settings = Settings {
        ports: [].into(),
        encap_ports: [].into(),
        siu_port: None,
        home_agent: None,
        host: None,
        mss_clamp: false,
        discards: false,
        nats: [].into(),
    };
    let tables = Tables::new(&writer, 1, settings);
    let all = (0..count).map(ports).map(|(local_ports, remote_ports)| Rule {
        selector: Selector {
            protocol: Some(protocol::UDP),
            local_ports,
            remote_ports,
            ..Selector::configured(everywhere, everywhere)
        },
        action: Action::Bypass,
    });
    tables.policies.insert(
        &mut writer,
        everywhere,
        Rules::default().with_policies(|rules| all.for_each(|rule| rules.insert(rule, |_| true))),
    );
    let reader = writer.reader();
    let mut at = 0;
    group.bench_function(id, |b| {
        b.iter(|| {
            at = (at + 7) % count;
            let (local, remote) = ports(at);
            let flow = Flow {
                src: Address::v4(0x0a63_0007),
                dst: Address::v4(0xc633_6407),
                protocol: protocol::UDP,
                ports: Some((local.first, remote.first)),
                is_later_fragment: false,
            };
            assert!(matches!(tables.decide(black_box(&flow), &reader), Decision::Rule(_)));
        });
    });
}

criterion_group!(benches, look_up, rules);
criterion_main!(benches);
