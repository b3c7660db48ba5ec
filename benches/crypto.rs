//! Measures sealing and opening, in bursts of 32 packets over 64 SAs, with every backend of this
//! machine.
//!
//! Elements are packets. `mixed` is 64, 512 and 1420 bytes of text in turn.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wayfarer_dataplane::crypto::{Backend, HEADER, Key, OpenJob, SealJob, Suite, open, seal};

const BURST: usize = 32;
const SAS: usize = 64;
const SUITES: [&str; 4] = ["aes128gcm16", "aes256gcm16", "chacha20poly1305", "aes128-sha256"];
const SIZES: [(&str, [usize; 3]); 4] =
    [("64", [64; 3]), ("512", [512; 3]), ("1420", [1420; 3]), ("mixed", [64, 512, 1420])];

fn packets(suite: Suite, sizes: [usize; 3]) -> Vec<Vec<u8>> {
    let packet = |i: usize| {
        let text = sizes[i % 3].next_multiple_of(suite.align());
        let mut esp = vec![0x5a; HEADER + suite.iv_len() + text + suite.icv_len()];
        esp[..HEADER].copy_from_slice(&[0, 0, 0, 1, 0, 0, 0, i as u8]);
        esp
    };
    (0..BURST).map(packet).collect()
}

fn keys(suite: Suite, backend: Backend) -> Vec<Key> {
    let key =
        |i| Key::new(suite, &vec![i as u8; suite.key_len()], backend).expect("a key of the right length");
    (0..SAS).map(key).collect()
}

/// Returns the SA of packet `i` of a burst. No two neighbours have the same one.
fn sa(i: usize) -> usize {
    i * 37 % SAS
}

fn seal_all(keys: &[Key], packets: &mut [Vec<u8>], first: u64) {
    let mut jobs: Vec<SealJob<'_>> = packets
        .iter_mut()
        .enumerate()
        .map(|(i, esp)| {
            let seq = first + i as u64;
            SealJob { key: &keys[sa(i)], seq, iv: seq, esn: false, esp }
        })
        .collect();
    seal(&mut jobs);
}

fn open_all(keys: &[Key], packets: &mut [Vec<u8>]) -> bool {
    let mut jobs: Vec<OpenJob<'_>> = packets
        .iter_mut()
        .enumerate()
        .map(|(i, esp)| OpenJob { key: &keys[sa(i)], seq: i as u64, esn: false, esp, authentic: false })
        .collect();
    open(&mut jobs);
    jobs.iter().all(|job| job.authentic)
}

fn bench(c: &mut Criterion) {
    for name in SUITES {
        let suite: Suite = name.parse().expect("a suite");
        for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
            let keys = keys(suite, backend);
            for (size, sizes) in SIZES {
                let id = BenchmarkId::new(backend.to_string(), size);
                let mut packets = packets(suite, sizes);
                let mut group = c.benchmark_group(format!("seal/{name}"));
                group.throughput(Throughput::Elements(BURST as u64));
                let mut first = 1;
                group.bench_function(id.clone(), |b| {
                    b.iter(|| {
                        seal_all(&keys, &mut packets, first);
                        first += BURST as u64;
                    });
                });
                group.finish();

                seal_all(&keys, &mut packets, 0);
                let mut group = c.benchmark_group(format!("open/{name}"));
                group.throughput(Throughput::Elements(BURST as u64));
                group.bench_function(id, |b| {
                    b.iter_batched_ref(
                        || packets.clone(),
                        |packets| assert!(open_all(&keys, packets)),
                        BatchSize::SmallInput,
                    );
                });
                group.finish();
            }
        }
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
