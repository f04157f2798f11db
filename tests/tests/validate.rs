//! The contract of `gw validate`: exit codes, what goes to stdout and what to stderr, standard input, `--fix`.

use std::io::Write as _;
use std::process::{Output, Stdio};

use gw_tests::binary::{gw, repository};

const FINE: &str = "_format_version: \"3.0\"\nservices:\n- url: http://a.test\n  routes: [{ paths: [/a] }]\n";
const RISKY: &str =
    "_format_version: \"3.0\"\nservices:\n- url: https://a.test\n  routes: [{ paths: [/a] }]\n";
const WRONG: &str =
    "_format_version: \"3.0\"\nservices:\n- url: http://a.test\n  retires: 1\n  routes: [{ paths: [/a] }]\n";

/// Runs `gw validate ARGS` with `input` on standard input.
fn validate(args: &[&str], input: &str) -> Output {
    let mut child = gw()
        .arg("validate")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("gw starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A run that refuses its arguments reads nothing.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("gw ends")
}

#[test]
fn exit_codes_and_streams() {
    for (args, input, code, stdout, stderr) in [
        (&["-"][..], FINE, 0, "-: ok (1 service, 1 route)", ""),
        (&["-"], RISKY, 0, "warning[GW4013]", ""),
        (&["--deny", "warnings", "-"], RISKY, 1, "error[GW4013]", ""),
        (&["-D", "upstream-not-verified", "-"], RISKY, 1, "error[GW4013]", ""),
        (&["-A", "GW4013", "-"], RISKY, 0, "-: ok", ""),
        (&["-"], WRONG, 1, "error[GW1002]", ""),
        (&["--offline", "-"], FINE, 0, "-: ok", ""),
        (&["/nowhere/kong.yaml"], "", 2, "", "cannot read `/nowhere/kong.yaml`: there is no such file"),
        (&["/"], "", 2, "", "cannot read `/`: it is a directory"),
        (&["-A", "upstream-not-verifed", "-"], FINE, 2, "", "did you mean `upstream-not-verified`?"),
        (&["-A", "unknown-field", "-"], FINE, 2, "", "cannot be lowered"),
        (&["--format", "xml", "-"], FINE, 2, "", "possible values"),
        (&[], "", 2, "", "Usage"),
    ] {
        let out = validate(args, input);
        let (out_text, err_text) =
            (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert_eq!(out.status.code(), Some(code), "{args:?}\n{out_text}\n{err_text}");
        for (text, want) in [(&out_text, stdout), (&err_text, stderr)] {
            assert!(
                text.contains(want) && text.is_empty() == want.is_empty(),
                "{args:?}: `{want}` not in `{text}`"
            );
        }
        assert!(!out_text.contains('\u{1b}'), "colour into a pipe");
    }
}

#[test]
fn several_files_are_several_configs() {
    let config = repository().join("fixtures/orders/kong.yaml");
    let config = config.to_str().expect("a path in UTF-8");
    let out = validate(&[config, config], "");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(0), "{text}");
    assert_eq!(text.matches(": ok (1 service, 1 route, 2 consumers, 3 plugins)").count(), 2, "{text}");
}

#[test]
fn json_names_its_schema_and_sarif_its_version() {
    for (format, pointer, want) in [("json", "/schema", "gw.diagnostics"), ("sarif", "/version", "2.1.0")] {
        let out = validate(&["--format", format, "-"], WRONG);
        let document: serde_json::Value =
            serde_json::from_slice(&out.stdout).expect("JSON on stdout and nothing else");
        assert_eq!(document.pointer(pointer), Some(&want.into()), "{document:#}");
    }
}

#[test]
fn a_fix_changes_the_file_and_says_so() {
    let path = std::env::temp_dir().join(format!("gw-validate-{}.yaml", std::process::id()));
    std::fs::write(
        &path,
        "_format_version: 3.0\nservices:\n- url: http://a.test\n  routes: [{ paths: /a }]\n",
    )
    .expect("a temporary file");
    let out = validate(&["--fix", path.to_str().expect("UTF-8")], "");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let text = std::fs::read_to_string(&path).expect("still there");
    std::fs::remove_file(&path).expect("own file");
    assert_eq!(
        text,
        "_format_version: \"3.0\"\nservices:\n- url: http://a.test\n  routes: [{ paths: [/a] }]\n"
    );
    assert_eq!(out.status.code(), Some(0), "{stdout}{stderr}");
    assert!(
        stdout.contains(": ok (1 service, 1 route)") && stderr.contains("`/a` is now `[/a]`"),
        "{stdout}{stderr}"
    );
}

#[test]
fn no_secret_is_ever_shown() {
    // Every kind of secret, on lines with findings of their own.
    let config = "_format_version: \"3.0\"\nconsumers:\n- username: a\n  wrong: 1\n  \
                  keyauth_credentials: [{ key: s3cret-a, wrong: 1 }]\n  \
                  jwt_secrets: [{ key: a, secret: s3cret-b, algorithm: HS999 }]\n  \
                  basicauth_credentials: [{ username: a, password: [s3cret-c] }, { username: b, password: s3cret-d, wrong: 1 }]\n  \
                  hmacauth_credentials: [{ username: a, secret: s3cret-e, wrong: 1 }]\n\
                  plugins:\n- name: rate-limiting\n  config: { minute: 1, policy: redis, redis: { host: [h], password: s3cret-f } }\n";
    for format in ["full", "concise", "json", "sarif", "github"] {
        let out = validate(&["--format", format, "-W", "all", "-"], config);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(out.status.code(), Some(1), "{text}");
        assert!(!text.contains("s3cret"), "{format} shows a secret:\n{text}");
    }
}
