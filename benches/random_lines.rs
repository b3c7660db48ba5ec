//! Measures what a burst's packets wait for when each belongs to another of a million tunnels: so many cache
//! lines at random, and nothing else. The gateway cannot be quicker than that.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wayfarer_dataplane::prefetch;

/// The memory of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TUNNELS: usize = 1 << 20;
const BURST: usize = 32;

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line([u64; 8]);

fn random_lines(c: &mut Criterion) {
    let mut group = c.benchmark_group("random lines");
    group.throughput(Throughput::Elements(BURST as u64));
    // Numbers of neighbouring lines, each group somewhere else.
    for groups in [&[4, 2, 2][..], &[4, 2, 2, 1, 1], &[4, 4, 2, 1, 1]] {
        let tables: Vec<Vec<Line>> =
            groups.iter().map(|lines| (0..TUNNELS * lines).map(|i| Line([i as u64; 8])).collect()).collect();
        let total: usize = groups.iter().sum();
        group.bench_function(BenchmarkId::new(format!("{total} in groups"), groups.len()), |b| {
            let mut seed = 1_u64;
            b.iter(|| {
                let mut at = [0; BURST];
                for at in &mut at {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    *at = (seed >> 44) as usize;
                }
                let lines = |at: usize| {
                    let places = tables.iter().zip(groups.iter().enumerate());
                    // Tables are in no common order, as little as the allocator's memory is.
                    places.flat_map(move |(table, (i, lines))| {
                        let at = (at * (2 * i + 1)) % TUNNELS;
                        &table[at * lines..][..*lines]
                    })
                };
                for &at in &at {
                    lines(at).for_each(|line| prefetch::line(line));
                }
                black_box(
                    at.iter().flat_map(|at| lines(*at)).map(|line| line.0[0]).fold(0, u64::wrapping_add),
                )
            });
        });
    }
    group.finish();
}

criterion_group!(benches, random_lines);
criterion_main!(benches);
