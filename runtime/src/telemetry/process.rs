//! What the system says about this process. Nothing where there is no `/proc`.

/// Bytes of memory in use.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Open files, sockets included.
pub fn open_files() -> Option<u64> {
    // The directory that is being read is one itself.
    Some((std::fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_a_process() {
        assert!(resident_bytes().is_some_and(|n| n > 1 << 20));
        assert!(open_files().is_some_and(|n| n >= 3));
    }
}
