//! Measures the anti-replay window: checking a number before authentication, accepting it
//! afterwards.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use wayfarer_dataplane::{sharing::Sharing, window::Window};

fn window(c: &mut Criterion) {
    let mut group = c.benchmark_group("window");
    for (name, sharing) in [("one worker", Sharing::One), ("several workers", Sharing::Many)] {
        for size in [64, 1024, 65_536] {
            let take = |window: &Window, seq| {
                window.check(black_box(seq)).and_then(|()| window.accept(seq)).expect("a fresh number")
            };
            group.bench_function(BenchmarkId::new(format!("in order, {name}"), size), |b| {
                let window = Window::new(size, sharing);
                let mut seq = 0;
                b.iter(|| {
                    seq += 1;
                    take(&window, seq)
                });
            });
            group.bench_function(BenchmarkId::new(format!("reordered, {name}"), size), |b| {
                let window = Window::new(size, sharing);
                let mut turn = 0_u64;
                b.iter(|| {
                    // Each block of eight numbers arrives backwards.
                    let seq = (turn / 8 * 8) + 8 - turn % 8;
                    turn += 1;
                    take(&window, seq)
                });
            });
            group.bench_function(BenchmarkId::new(format!("duplicate, {name}"), size), |b| {
                let window = Window::new(size, sharing);
                take(&window, 40);
                b.iter(|| window.check(black_box(40)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, window);
criterion_main!(benches);
