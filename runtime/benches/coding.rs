//! What each coding and level makes of an API's JSON, and at which speed: the figures behind the defaults of
//! `compression`. Run it with `cargo bench -p gw-runtime --bench coding`.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use gw_runtime::body::coding::{Coding, Encoder};

fn main() {
    println!("{:8} {:>5} {:>9} {:>9} {:>7} {:>9}", "coding", "level", "from", "to", "ratio", "MB/s");
    for size in [2_000, 50_000, 1_000_000] {
        let body = orders(size);
        for (coding, levels) in [
            (Coding::Gzip, &[1, 4, 5, 6, 9][..]),
            (Coding::Br, &[1, 3, 4, 5, 6]),
            (Coding::Zstd, &[1, 3, 5, 7, 9]),
        ] {
            for &level in levels {
                let (mut n, mut out, since) = (0_u32, Vec::new(), Instant::now());
                while since.elapsed() < Duration::from_millis(200) {
                    out.clear();
                    // A level that a coding has always gives an encoder.
                    let Some(mut encoder) = Encoder::new(coding, level) else { return };
                    for piece in body.as_bytes().chunks(16 * 1024) {
                        assert!(encoder.push(piece, &mut out).is_ok());
                    }
                    assert!(encoder.finish(&mut out).is_ok());
                    n += 1;
                }
                let per_second = body.len() as f64 * f64::from(n) / since.elapsed().as_secs_f64() / 1e6;
                let ratio = body.len() as f64 / out.len() as f64;
                println!(
                    "{:8} {level:5} {:9} {:9} {ratio:7.2} {per_second:9.1}",
                    coding.name(),
                    body.len(),
                    out.len()
                );
            }
        }
    }
}

/// A list of orders of about so many bytes, with values that differ as real ones do.
fn orders(size: usize) -> String {
    let (mut out, mut x) = (String::from("["), 7_u32);
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        x >> 8
    };
    let words = [
        "tea", "black", "organic", "box", "of", "twenty", "green", "leaf", "jasmine", "premium", "small",
        "large",
    ];
    while out.len() < size {
        let name: Vec<&str> = (0..4).map(|_| words[next() as usize % words.len()]).collect();
        let _ = write!(
            out,
            "{{\"id\":\"{:08x}-{:04x}\",\"name\":\"{}\",\"price\":{}.{:02},\"currency\":\"EUR\",\"in_stock\":{},\"created_at\":\"2026-{:02}-{:02}T{:02}:{:02}:00Z\"}},",
            next(),
            next() & 0xffff,
            name.join(" "),
            next() % 90,
            next() % 100,
            next() % 2 == 0,
            1 + next() % 12,
            1 + next() % 28,
            next() % 24,
            next() % 60,
        );
    }
    out.pop();
    out + "]"
}
