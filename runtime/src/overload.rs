//! The guard against running out of memory: what is new is turned away while there is still room for what is in flight.
//!
//! Where memory ends, the kernel ends the process, and with it every request. A thread compares the process's memory
//! with its limit twenty times a second. Near the limit connections are closed after their response, which gives their
//! memory back; at it, requests are answered with 503 until there is room again.

use std::sync::Weak;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::telemetry::process::resident_bytes;
use crate::worker::context::Common;

/// How often memory is looked at. In that time clients can send some tens of megabytes.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes of the block that makes the allocator look at what it holds.
const GIVE_BACK: usize = 64 * 1024 * 1024;
/// Parts of the limit, in percent: where connections are not kept any more, where requests are turned away, and where
/// that ends again.
const TIGHT: u64 = 85;
const FULL: u64 = 95;
const ROOM: u64 = 90;

// Memory is the process's, whatever runs in it.
static LEVEL: AtomicU8 = AtomicU8::new(Level::Fine as u8);
static LIMIT: AtomicU64 = AtomicU64::new(0);
static SHED: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Level {
    Fine,
    Tight,
    Full,
}

/// Whether connections are to be closed after their response.
#[inline]
pub fn is_tight() -> bool {
    LEVEL.load(Ordering::Relaxed) != Level::Fine as u8
}

/// Whether requests are to be turned away.
#[inline]
pub fn is_full() -> bool {
    LEVEL.load(Ordering::Relaxed) == Level::Full as u8
}

/// Counts a request that was turned away.
pub fn shed() {
    SHED.fetch_add(1, Ordering::Relaxed);
}

/// How many requests were turned away.
pub fn shed_count() -> u64 {
    SHED.load(Ordering::Relaxed)
}

/// The limit in bytes; 0 where none is known.
pub fn limit() -> u64 {
    LIMIT.load(Ordering::Relaxed)
}

/// Makes this thread's allocator give free memory back to the system. It does so by the way of later allocations, and a
/// gateway that turns requests away makes few: without this it might wait for room for ever.
pub fn give_back() {
    // Larger than any block that is kept for reuse. It is never written to, so it takes no memory itself.
    for _ in 0..2 {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(GIVE_BACK)));
    }
}

/// Starts to look. Ends with the gateway.
pub fn watch(common: Weak<Common>) -> std::io::Result<()> {
    let system = system_limit(|path| std::fs::read_to_string(path).ok());
    std::thread::Builder::new().name("gw-memory".into()).spawn(move || {
        let mut level = Level::Fine;
        while let Some(common) = common.upgrade() {
            let configured = common.publisher.current().gateway.limits.memory;
            drop(common);
            let limit = if configured > 0 { Some(configured) } else { system };
            LIMIT.store(limit.unwrap_or(0), Ordering::Relaxed);
            let next = match (limit, resident_bytes()) {
                (Some(limit), Some(used)) => judge(level, used, limit),
                _ => Level::Fine,
            };
            if next != level {
                level = next;
                LEVEL.store(level as u8, Ordering::Relaxed);
                eprintln!(
                    "{}",
                    match level {
                        Level::Fine => "memory: there is room again",
                        Level::Tight =>
                            "warning: memory is short; connections are closed after each response",
                        Level::Full => "warning: memory is used up; requests are answered with 503",
                    }
                );
            }
            std::thread::sleep(LOOK);
        }
    })?;
    Ok(())
}

fn judge(now: Level, used: u64, limit: u64) -> Level {
    let percent = u128::from(used) * 100 / u128::from(limit.max(1));
    let percent = u64::try_from(percent).unwrap_or(u64::MAX);
    match now {
        _ if percent >= FULL => Level::Full,
        Level::Full if percent >= ROOM => Level::Full,
        _ if percent >= TIGHT => Level::Tight,
        _ => Level::Fine,
    }
}

/// The least of what control groups allow, else the machine's memory.
fn system_limit(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
    let mut least: Option<u64> = None;
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            c if c.split(',').any(|c| c == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // A group's ancestors bound it, too; within a container the path may not exist, but its root does.
        let mut path = path.trim_end_matches('/');
        loop {
            least = [least, number(&format!("{root}{path}/{file}"))].into_iter().flatten().min();
            match path.rfind('/') {
                Some(at) => path = &path[..at],
                None => break,
            }
        }
    }
    let total = read("/proc/meminfo").and_then(|info| {
        let line = info.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    });
    [least, total].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_later_than_it_begins() {
        let steps =
            [(50, Level::Fine), (86, Level::Tight), (94, Level::Tight), (95, Level::Full), (91, Level::Full)];
        let steps = steps.iter().chain(&[
            (89, Level::Tight),
            (84, Level::Fine),
            (200, Level::Full),
            (10, Level::Fine),
        ]);
        let mut level = Level::Fine;
        for &(percent, want) in steps {
            level = judge(level, percent, 100);
            assert_eq!(level, want, "{percent}");
        }
    }

    #[test]
    fn the_least_limit_counts() {
        let check = |files: &[(&str, &str)], want| {
            let read =
                |path: &str| files.iter().find(|(p, _)| *p == path).map(|(_, text)| (*text).to_owned());
            assert_eq!(system_limit(read), want, "{files:?}");
        };
        let total = ("/proc/meminfo", "MemTotal:        1000 kB\nMemFree: 1 kB\n");
        check(&[], None);
        check(&[total], Some(1_024_000));
        let v2 = ("/proc/self/cgroup", "0::/a/b\n");
        check(&[total, v2, ("/sys/fs/cgroup/a/b/memory.max", "max\n")], Some(1_024_000));
        check(&[total, v2, ("/sys/fs/cgroup/a/memory.max", "5000\n")], Some(5000));
        check(&[total, ("/proc/self/cgroup", "0::/\n"), ("/sys/fs/cgroup/memory.max", "7000\n")], Some(7000));
        let v1 = ("/proc/self/cgroup", "5:cpu:/x\n4:memory:/docker/1\n0::/\n");
        check(&[total, v1, ("/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "6000")], Some(6000));
        check(
            &[total, v1, ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")],
            Some(1_024_000),
        );
    }
}
