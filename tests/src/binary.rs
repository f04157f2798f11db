//! Where the `gw` under test is, and the repository that it is run in.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The `gw` that was built beside this test, or the one that `GW_BIN` names.
///
/// # Panics
/// Panics if there is none: a test of the binary cannot mean anything without it.
pub fn gw_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("GW_BIN") {
        return PathBuf::from(path);
    }
    // target/PROFILE/deps/TEST: the binary lies beside `deps`.
    let test = std::env::current_exe().expect("a running program has a path");
    let profile = test.parent().and_then(Path::parent).expect("a test lies in target/PROFILE/deps");
    let path = profile.join(format!("gw{}", std::env::consts::EXE_SUFFIX));
    assert!(path.exists(), "`{}` is not there: run `cargo build` first, or set GW_BIN", path.display());
    path
}

/// A command of the `gw` under test, without colour and without the caller's environment.
pub fn gw() -> Command {
    let mut command = Command::new(gw_binary());
    command.env_clear().env("NO_COLOR", "1");
    for kept in ["PATH", "HOME", "TMPDIR"] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    command
}

/// The root of the repository.
pub fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}
