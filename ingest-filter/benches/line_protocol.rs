//! Line protocol: parsed, and parsed and written anew as the gateway does it, in bytes a second.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ingest_filter::line_protocol::{Dialect, Lines, Precision};
use ingest_filter::point::{Chunker, Point};

const POINTS: usize = 1_000;
const DIALECT: Dialect =
    Dialect { precision: Precision::Nanoseconds, unsigned: false, line_bytes_max: 64 << 10 };

/// Lines as Telegraf writes them for processors.
fn plain() -> String {
    let mut text = String::new();
    for point in 0..POINTS {
        writeln!(
            text,
            "cpu,host=server-{:04},region=eu-west-1,cpu=cpu{} usage_user={:.3},usage_system=1.25,ctx={point}i {}",
            point % 100,
            point % 8,
            point as f64 / 7.0,
            1_700_000_000_000_000_000_u64 + point as u64
        )
        .expect("a String takes all text");
    }
    text
}

/// Lines in which names and texts need escapes.
fn escaped() -> String {
    let mut text = String::new();
    for point in 0..POINTS {
        writeln!(
            text,
            "disk\\ io,path=/var/lib/my\\ files,label=a\\=b note=\"said \\\"{point}\\\"\",used={point}i"
        )
        .expect("a String takes all text");
    }
    text
}

fn parse(body: &[u8]) -> usize {
    let (mut lines, mut point, mut points) = (Lines::new(body, DIALECT), Point::default(), 0);
    while let Some(Ok(_)) = lines.next(&mut point) {
        points += 1;
    }
    points
}

fn rewrite(body: &[u8]) -> usize {
    let mut chunker = Chunker::new(0, 1, 512 << 10);
    let (mut lines, mut point) = (Lines::new(body, DIALECT), Point::default());
    while let Some(Ok(_)) = lines.next(&mut point) {
        chunker.push(&mut point).expect("the points are good");
    }
    chunker.finish().iter().map(|chunk| chunk.points as usize).sum()
}

fn line_protocol(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("line protocol");
    for (name, body) in [("plain", plain()), ("escaped", escaped())] {
        let body = body.as_bytes();
        assert_eq!((parse(body), rewrite(body)), (POINTS, POINTS), "every line is read");
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("{name}, parsed"), |bencher| {
            bencher.iter(|| parse(black_box(body)));
        });
        group.bench_function(format!("{name}, parsed and written anew"), |bencher| {
            bencher.iter(|| rewrite(black_box(body)));
        });
    }
    group.finish();
}

criterion_group!(benches, line_protocol);
criterion_main!(benches);
