//! What a look-up costs as the config grows: `cargo bench -p gw-runtime --bench route`.
//!
//! Each shape of config is built at growing sizes. `skewed` requests pick routes as callers do (the n-th most wanted
//! route is asked for 1/n as often), `uniform` ones all alike, 4,096 of them again and again; `cold` is the same with so
//! many requests that nothing of the index that one needs is near when it comes, less the time to read the requests
//! themselves. 100,000 routes should build in under 0.3 s and be looked up in under twice the time of 10.

use std::hint::black_box;
use std::time::Instant;

use gw_runtime::message::Fields;
use gw_runtime::route::{Options, Query, RouteSpec, Router};

const SIZES: [usize; 4] = [10, 1_000, 10_000, 100_000];
/// Requests per measurement, prepared beforehand.
const REQUESTS: usize = 4_096;
const COLD_REQUESTS: usize = 131_072;

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
    println!(
        "{:34} {:>8} {:>10} {:>11} {:>11} {:>11}",
        "shape", "routes", "build", "skewed", "uniform", "cold"
    );
    for (name, spec, request) in SHAPES {
        for size in SIZES {
            // Compiling that many regular expressions is the regex crate's work, not the index's.
            if name == "regexes" && size > 10_000 {
                continue;
            }
            let id = |i: usize| {
                format!("{:08x}-0000-4000-8000-000000000000", (i as u32).wrapping_mul(2_654_435_761))
            };
            let specs: Vec<_> =
                (0..size).map(|i| RouteSpec { index: i as u32, id: id(i), ..spec(i) }).collect();
            let start = Instant::now();
            let (router, errors) = Router::new(specs, Options::default());
            let build = start.elapsed();
            assert!(errors.is_empty());

            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            let skewed: Vec<usize> = (0..REQUESTS).map(|_| random.skewed(size)).collect();
            let uniform: Vec<usize> = (0..COLD_REQUESTS).map(|_| random.below(size)).collect();
            let skewed = lookup(&router, &skewed, request);
            let warm = lookup(&router, &uniform[..REQUESTS], request);
            let cold = lookup(&router, &uniform, request);
            println!(
                "{name:34} {size:8} {:>7.1} ms {skewed:>8.0} ns {warm:>8.0} ns {cold:>8.0} ns",
                build.as_secs_f64() * 1e3
            );
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    /// By Zipf's law, with exponent 1. Which routes are wanted most has nothing to do with their place in the config.
    fn skewed(&mut self, end: usize) -> usize {
        let share = self.below(1 << 32) as f64 / (1_u64 << 32) as f64;
        let place = ((end as f64).powf(share) as usize).min(end) - 1;
        place.wrapping_mul(2_654_435_761) % end
    }
}

/// Nanoseconds that a look-up takes.
fn lookup(router: &Router, routes: &[usize], request: fn(usize) -> (String, String)) -> f64 {
    let requests: Vec<_> = routes.iter().map(|&i| (i as u32, request(i))).collect();
    let mut fields = Fields::default();
    fields.push(b"accept", b"*/*");
    let address = "192.0.2.1:8000".parse().expect("an address");
    let find = |(route, (host, path)): &(u32, (String, String))| {
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
    };
    let read = |(_, (host, path)): &(u32, (String, String))| {
        black_box(host.bytes().chain(path.bytes()).fold(0_u8, u8::wrapping_add));
    };
    let time = |each: &dyn Fn(&(u32, (String, String)))| {
        let round = || {
            let start = Instant::now();
            requests.iter().for_each(each);
            start.elapsed()
        };
        let best = (0..20).map(|_| round()).min().unwrap_or_default();
        best.as_secs_f64() * 1e9 / requests.len() as f64
    };
    // Only where there are too many requests to be at hand does reading them matter.
    let reading = if requests.len() > REQUESTS { time(&read) } else { 0.0 };
    time(&find) - reading
}
