//! What a look-up costs as the config grows: `cargo bench -p gw-runtime --bench route`.
//!
//! Each shape of config is built at growing sizes; requests pick routes at random. 100,000 routes should build in under
//! 0.3 s. The steps of a look-up do not grow with the config; what does grow, to about three times at 100,000 routes, is
//! their time, because ever less of the index is in the processor's caches. Denser or more eager layouts of the hash
//! table (the rank of each list in its slot) were measured and came out slower.

use std::hint::black_box;
use std::time::{Duration, Instant};

use gw_runtime::message::Fields;
use gw_runtime::route::{Options, Query, RouteSpec, Router};

const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];
/// Requests per measurement, prepared beforehand.
const REQUESTS: usize = 4_096;

/// Makes route number `i`, and the host and path of a request for it.
type Shape = (&'static str, fn(usize) -> RouteSpec, fn(usize) -> (String, String));

const SHAPES: [Shape; 6] = [
    ("100 prefixes to a host", host_and_prefix, |i| {
        (format!("h{}.bench.test", i / 100), format!("/r{i}/orders/42"))
    }),
    ("prefixes, any host", |i| prefix(format!("/r{i}")), |i| any(format!("/r{i}/orders/42"))),
    ("nested prefixes of many lengths", |i| prefix(nested(i)), |i| any(format!("{}/x", nested(i)))),
    ("wildcard hosts", wildcard, |i| (format!("www.t{i}.bench.test"), "/".to_owned())),
    ("a prefix and a method", with_method, |i| any(format!("/r{i}/orders/42"))),
    ("regexes", |i| prefix(format!("~/r{i}/[0-9]+$")), |i| any(format!("/r{i}/42"))),
];

fn any(path: String) -> (String, String) {
    ("any.bench.test".to_owned(), path)
}

fn prefix(path: String) -> RouteSpec {
    RouteSpec { paths: vec![path], ..RouteSpec::default() }
}

fn host_and_prefix(i: usize) -> RouteSpec {
    RouteSpec { hosts: vec![format!("h{}.bench.test", i / 100)], ..prefix(format!("/r{i}")) }
}

fn nested(i: usize) -> String {
    let tail = ["", "/orders", "/orders/items", "/customers/by-region", "/a", "/reports/monthly/summary"];
    format!("/team{}/service{}{}", i % 97, i / 6, tail[i % 6])
}

fn wildcard(i: usize) -> RouteSpec {
    RouteSpec { hosts: vec![format!("*.t{i}.bench.test")], ..RouteSpec::default() }
}

fn with_method(i: usize) -> RouteSpec {
    RouteSpec { methods: vec!["GET".to_owned()], ..prefix(format!("/r{i}")) }
}

fn main() {
    println!("{:34} {:>8} {:>10} {:>12}", "shape", "routes", "build", "look-up");
    for (name, spec, request) in SHAPES {
        for size in SIZES {
            // Compiling that many regular expressions is the regex crate's work, not the index's.
            if name == "regexes" && size > 10_000 {
                continue;
            }
            let (build, lookup) = measure(size, spec, request);
            println!("{name:34} {size:8} {:>7.1} ms {:>9} ns", build.as_secs_f64() * 1e3, lookup.as_nanos());
        }
    }
}

fn measure(
    size: usize,
    spec: fn(usize) -> RouteSpec,
    request: fn(usize) -> (String, String),
) -> (Duration, Duration) {
    let id = |i: usize| format!("{:08x}-0000-4000-8000-000000000000", (i as u32).wrapping_mul(2_654_435_761));
    let specs: Vec<_> = (0..size).map(|i| RouteSpec { index: i as u32, id: id(i), ..spec(i) }).collect();
    let start = Instant::now();
    let (router, errors) = Router::new(&specs, Options::default());
    let build = start.elapsed();
    assert!(errors.is_empty());

    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pick = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) as usize % size
    };
    let requests: Vec<_> = (0..REQUESTS).map(|_| pick()).map(|i| (i as u32, request(i))).collect();
    let mut fields = Fields::default();
    fields.push(b"accept", b"*/*");
    let address = "192.0.2.1:8000".parse().expect("an address");
    let round = || {
        let start = Instant::now();
        for (route, (host, path)) in &requests {
            let query = Query {
                method: "GET",
                host,
                port: 8000,
                path,
                query: "",
                fields: &fields,
                sni: None,
                source: address,
                destination: address,
            };
            let found = black_box(router.find(black_box(&query)));
            assert_eq!(found.map(|m| m.route), Some(*route));
        }
        start.elapsed() / REQUESTS as u32
    };
    let lookup = (0..30).map(|_| round()).min().unwrap_or_default();
    (build, lookup)
}
