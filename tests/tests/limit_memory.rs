//! What a million counters take. Alone in its process, so that its memory is that of the counters.

use gw_runtime::limit::{Algorithm, Identifier, Key, LocalStore, Period, Rule, Rules};

/// Bytes of memory that are in use by this process.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

#[test]
fn a_million_keys_take_what_is_said_and_a_million_more_take_nothing() {
    const KEYS: usize = 1_000_000;
    const NOW: u64 = 30_000_000 * 60_000;
    let store = LocalStore::with_capacity(KEYS);
    let rules =
        Rules { rules: vec![Rule::new(Algorithm::Fixed, Period::Hour, 100.0)], count_rejected: false };
    let fill = |from: usize| {
        for n in from..from + KEYS {
            // As long as the keys of consumers are: route, service and consumer are UUIDs.
            let scope = "0c8a3b5e-0000-4000-8000-000000000000:0c8a3b5e-0000-4000-8000-000000000001";
            let name = format!("0c8a3b5e-0000-4000-8000-{n:012}");
            store.take(&rules, &Key::new(scope, Identifier::Text(name.as_bytes())), 1, NOW);
        }
    };
    let before = resident();
    fill(0);
    let each = (resident() - before) / store.len();
    println!("{} keys of {each} bytes each", store.len());
    assert!(store.len() > KEYS * 9 / 10, "{}", store.len());
    assert!(each <= 450, "{each} bytes a key");
    let full = resident();
    fill(KEYS);
    let grown = resident().saturating_sub(full);
    assert!(store.len() <= KEYS + 128, "{}", store.len());
    assert!(grown < full / 10, "{grown} bytes more");
}
