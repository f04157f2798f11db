//! Golden tests of `gw validate`: every `fixtures/diagnostics/NAME.yaml` has its expected output beside it, as
//! `NAME.concise` and `NAME.full`. `UPDATE_GOLDEN=1` writes them anew; read the difference before committing it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gw_runtime::diag::codes;
use gw_tests::binary::{gw, repository};

const FORMATS: [&str; 2] = ["concise", "full"];

#[test]
fn findings_are_as_expected() {
    let folder = folder();
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for config in configs(&folder) {
        for format in FORMATS {
            let golden = config.with_extension(format);
            let got = validate(&config, format);
            if update {
                std::fs::write(&golden, &got).expect("fixtures are writable");
                continue;
            }
            let want = std::fs::read_to_string(&golden).unwrap_or_default();
            if got != want {
                wrong.push(format!("{}\n--- expected\n{want}\n--- got\n{got}", golden.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "run with UPDATE_GOLDEN=1 if this is meant\n{}", wrong.join("\n"));
}

#[test]
fn every_code_is_triggered_by_a_fixture_and_explained() {
    let folder = folder();
    let mut triggered = BTreeSet::new();
    for config in configs(&folder) {
        let output = validate(&config, "concise");
        for code in codes::ALL {
            if output.contains(&format!("[{}]", code.id)) {
                triggered.insert(code.id);
            }
        }
    }
    let missing: Vec<String> = codes::ALL
        .iter()
        .filter(|c| !triggered.contains(c.id))
        .map(|c| format!("{} {}: no fixture triggers it", c.id, c.name))
        .collect();
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    for code in codes::ALL {
        let output = gw().args(["explain", code.name]).output().expect("gw runs");
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(page.starts_with(&format!("# {}: {}", code.id, code.name)), "{page}");
        assert!(page.contains("## Why") && page.contains("## Example"), "{}: the page is too short", code.id);
    }
}

/// What `gw validate` prints about a config, without the time it took. Flags stand in the config's first line.
fn validate(config: &Path, format: &str) -> String {
    let text = std::fs::read_to_string(config).expect("a fixture is readable");
    let flags = text.lines().next().and_then(|l| l.strip_prefix("# flags: ")).unwrap_or("");
    let output = gw()
        .current_dir(folder())
        .args(["validate", "--format", format])
        .args(flags.split_whitespace())
        .arg(config.file_name().expect("a file"))
        .output()
        .expect("gw runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.is_empty(), "{}: {stderr}", config.display());
    let out = String::from_utf8(output.stdout).expect("UTF-8");
    let errors = out.lines().any(|l| l.contains("error[") || l.starts_with("error"));
    assert_eq!(output.status.code(), Some(i32::from(errors)), "{}: {out}", config.display());
    out.lines().map(|l| without_time(l) + "\n").collect()
}

/// `(14 ms)` is `(N ms)`.
fn without_time(line: &str) -> String {
    match (line.rfind(" ("), line.rfind(" ms)")) {
        (Some(open), Some(close)) if open < close => format!("{} (N{}", &line[..open], &line[close..]),
        _ => line.to_owned(),
    }
}

fn folder() -> PathBuf {
    repository().join("fixtures/diagnostics")
}

fn configs(folder: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).expect("the fixtures are there").flatten().map(|f| f.path());
    let mut configs: Vec<PathBuf> =
        files.filter(|p| p.extension().is_some_and(|e| e == "yaml" || e == "json")).collect();
    configs.sort();
    assert!(!configs.is_empty(), "no fixtures in `{}`", folder.display());
    configs
}
