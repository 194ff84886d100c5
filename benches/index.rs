//! Nanoseconds a row of the exact scan, per kernel and gallery size.
//!
//! A grant cannot be made outside `consent`, so this drives the kernels over plain rows as the
//! scan does, without its expiry check and ranking.
//!
//! `cargo bench --bench index`; criterion's throughput is rows a second.

use std::hint::black_box;

use assent::index::{Dot, Kernel};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Dimensions, and with them bytes a row.
const WIDTH: usize = 512;
/// Gallery sizes, rows.
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

fn exact_scan(c: &mut Criterion) {
    let mut group = c.benchmark_group("exact_scan");
    group.sample_size(20);
    for rows in SIZES {
        let (gallery, probe) = gallery(rows);
        group.throughput(Throughput::Elements(rows as u64));
        for dot in Kernel::ALL.into_iter().filter_map(Kernel::dot) {
            let id = BenchmarkId::new(dot.kernel().name(), rows);
            group.bench_function(id, |b| b.iter(|| best(dot, black_box(&gallery), &probe)));
        }
    }
    group.finish();
}

fn best(dot: Dot, gallery: &[u8], probe: &[i8]) -> Option<i32> {
    gallery.chunks_exact(WIDTH).map(|row| dot.apply(row, probe)).max()
}

/// Rows and a probe of bytes that look random.
fn gallery(rows: usize) -> (Vec<u8>, Vec<i8>) {
    let mut state = 1_u32;
    let mut byte = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    let gallery = (0..rows * WIDTH).map(|_| byte()).collect();
    (gallery, (0..WIDTH).map(|_| byte().cast_signed()).collect())
}

criterion_group!(benches, exact_scan);
criterion_main!(benches);
