//! Measures the whole way of a packet through a gateway, as `wayfarer bench esp` does: the
//! processor time of the worker alone.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wayfarer::bench::esp::{Direction, Size, Traffic};
use wayfarer_dataplane::crypto::Suite;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn path(c: &mut Criterion) {
    for direction in [Direction::Out, Direction::In] {
        let mut group = c.benchmark_group(format!("path {direction}"));
        group.sample_size(10).throughput(Throughput::Elements(1));
        for sas in [1, 1000] {
            for size in [Size::Fixed(64), Size::Fixed(1420), Size::Imix] {
                let traffic = Traffic::new(direction, size, sas, Suite::AES_128_GCM_16);
                let mut traffic = traffic.expect("a gateway on ports of memory");
                group.bench_function(BenchmarkId::new(format!("{size} bytes"), sas), |b| {
                    b.iter_custom(|packets| traffic.carry(packets).expect("every packet carried"));
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, path);
criterion_main!(benches);
