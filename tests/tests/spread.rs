//! Connections spread over workers, and reloads of very large configs.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gw_tests::counting_upstream::Upstream;
use gw_tests::serving::{PATIENCE, Serving, ask};

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
}

/// Connections that each thread of a process serves, told by what each thread does while one connection after the other
/// is busy: every worker is a thread, and a request costs its own worker time alone.
fn context_switches(pid: i32) -> Vec<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let mut all: Vec<(String, u64)> = tasks
        .flatten()
        .filter_map(|task| {
            let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"))?;
            Some((format!("{name}{}", task.file_name().display()), line.trim().parse().ok()?))
        })
        .filter(|(name, _)| name.starts_with("gw-worker"))
        .collect();
    all.sort();
    all.into_iter().map(|(_, n)| n).collect()
}

#[test]
fn connections_are_spread_evenly_over_workers() {
    let upstream = Upstream::start();
    let config = format!(
        "_format_version: \"3.0\"\nservices: [{{ name: s, url: {}, routes: [{{ paths: [/] }}] }}]\n",
        upstream.url()
    );
    for (round, many) in [(0, 32), (1, 32), (2, 31), (3, 6)] {
        let gw = Serving::start_with(&config, &[], &["--workers", "4"], &[]);
        let pid = gw.pid().as_raw_nonzero().get();
        let mut clients: Vec<TcpStream> = (0..many).map(|_| connect(gw.http)).collect();
        for client in &mut clients {
            assert_eq!(ask(client, "/").expect("an answer").status, 200);
        }
        let mut served = vec![0_u32; context_switches(pid).len()];
        for client in &mut clients {
            let before = context_switches(pid);
            for _ in 0..20 {
                assert_eq!(ask(client, "/").expect("an answer").status, 200);
            }
            let after = context_switches(pid);
            let busy = (0..before.len()).max_by_key(|i| after[*i] - before[*i]).expect("there are workers");
            served[busy] += 1;
        }
        let (most, least) = (served.iter().max().copied(), served.iter().min().copied());
        let even = most <= least.map(|n| (n + n / 2).max(n + 1));
        assert!(served.len() == 4 && even, "round {round}: {served:?}");
    }
}

/// The answers' times from a client that asks all the time, sorted.
fn times(stop: &AtomicBool, to: SocketAddr) -> Vec<Duration> {
    let mut client = connect(to);
    let mut all = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let since = Instant::now();
        let answer = ask(&mut client, "/r77/x").expect("no connection is lost");
        assert_eq!(answer.status, 200);
        all.push(since.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    all.sort();
    all
}

fn p99(all: &[Duration]) -> Duration {
    all[all.len() * 99 / 100]
}

/// Takes minutes, and a quiet machine: `cargo test -p gw-tests --test spread -- --ignored --nocapture`, best with `GW_BIN`
/// at a release build.
#[test]
#[ignore = "takes a quiet machine and a release build"]
fn a_reload_of_100_000_routes_is_not_felt() {
    use std::fmt::Write as _;
    let upstream = Upstream::start();
    let config = |mark: u32| {
        let mut text =
            format!("_format_version: \"3.0\"\nservices:\n- name: s\n  url: {}\n  routes:\n", upstream.url());
        for n in 0..100_000 {
            let _ = writeln!(text, "  - {{ name: r{n}, paths: [/r{n}], tags: [m{mark}] }}");
        }
        text
    };
    let mut gw = Serving::start_with(&config(0), &[], &["--workers", "1"], &[]);
    let measure = |gw: &mut Serving, reloads: u32| {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, to) = (Arc::clone(&stop), gw.http);
        let client = std::thread::spawn(move || times(&told, to));
        match reloads {
            0 => std::thread::sleep(Duration::from_secs(10)),
            n => (1..=n).for_each(|n| assert!(gw.reload(&config(n)), "{}", gw.log())),
        }
        stop.store(true, Ordering::Relaxed);
        client.join().expect("no answer was lost")
    };
    let quiet = measure(&mut gw, 0);
    let reloading = measure(&mut gw, 5);
    let (before, during) = (p99(&quiet), p99(&reloading));
    println!("p99 {before:?} of {}, {during:?} of {} while reloading", quiet.len(), reloading.len());
    assert!(during < before * 2 + Duration::from_micros(200), "{before:?}, then {during:?}");
    // The last word of a client that was there from the start.
    let mut stream = connect(gw.http);
    stream.write_all(b"GET /r99999/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("it reads");
    assert_eq!(gw_tests::serving::receive(&mut stream).expect("an answer").status, 200);
}
