//! What `docs/architecture.md` promises about the code itself.

use std::path::{Path, PathBuf};

use gw_tests::binary::repository;

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a source folder can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn all(folders: &[&str]) -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    for folder in folders {
        sources(&repository().join(folder), &mut paths);
    }
    assert!(!paths.is_empty(), "{folders:?} hold sources");
    paths.into_iter().map(|p| (p.clone(), std::fs::read_to_string(p).expect("a source is text"))).collect()
}

#[test]
fn the_front_end_knows_nothing_of_the_data_plane() {
    let front = ["yaml", "model", "check", "lint", "compile", "route"];
    let folders: Vec<String> = front.iter().map(|m| format!("runtime/src/{m}")).collect();
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    for (path, text) in all(&folders) {
        for module in ["worker", "upstream", "effect", "admin", "server"] {
            let import = format!("crate::{module}::");
            assert!(!text.contains(&import), "{} imports `{module}`", path.display());
        }
    }
}

#[test]
fn dependencies_run_one_way() {
    let manifest = |of: &str| {
        std::fs::read_to_string(repository().join(of).join("Cargo.toml")).expect("a crate has a manifest")
    };
    let main_part = |of: &str| manifest(of).split("[dev-dependencies]").next().unwrap_or_default().to_owned();
    assert!(main_part("cli").contains("gw-runtime") && main_part("cli").contains("gw-loadgen"));
    assert!(!manifest("loadgen").contains("gw-runtime"), "the load generator must not know the gateway");
    assert!(!main_part("runtime").contains("gw-loadgen") && !main_part("runtime").contains("gw ="));
}

#[test]
fn only_the_clock_asks_what_time_it_is() {
    for (path, text) in all(&["runtime/src"]) {
        // Tests measure real time; so may they.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_test = path.file_name().is_some_and(|n| n.to_string_lossy().ends_with("tests.rs"))
            || path.components().any(|c| c.as_os_str() == "tests");
        if path.ends_with("clock.rs") || is_test {
            continue;
        }
        for call in ["Instant::now()", "SystemTime::now()"] {
            // The runtime's own clock is virtual in tests, as it should be.
            let virtual_clock = call.starts_with("Instant") && code.contains("use tokio::time::{Instant");
            assert!(virtual_clock || !code.contains(call), "{} calls `{call}`", path.display());
        }
    }
}

#[test]
fn files_stay_readable() {
    for (path, text) in all(&["cli/src", "runtime/src", "loadgen/src", "tests"]) {
        let lines = text.lines().count();
        assert!(lines <= 800, "{} has {lines} lines: is it one thing?", path.display());
    }
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("FIX", "ME"),
        concat!("#[", "ignore]"),
    ];
    for (path, text) in all(&["cli/src", "runtime/src", "loadgen/src", "tests"]) {
        for mark in marks {
            assert!(!text.contains(mark), "{} holds `{mark}`", path.display());
        }
    }
}
