//! Foreign clients and servers through the gateway: what they see must be what they see without it. The cases are
//! Python scripts in `tests/interop`, because their libraries are the ones that are in use.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use gw_tests::binary::{gw_binary, repository};

/// What the scripts need from PyPI.
const PACKAGES: [&str; 8] = [
    "grpcio==1.85.3",
    "grpcio-tools==1.85.1",
    "websockets==17.4",
    "PyJWT[crypto]",
    "h2==4.3.0",
    "wsproto==1.2.0",
    "Authlib==1.9.10",
    "Flask==3.1.3",
];

/// A Python with [`PACKAGES`], made once and kept below `target`.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop-python");
        let python = dir.join("bin/python");
        let all = "import grpc, grpc_tools, websockets, jwt, cryptography, h2, wsproto, authlib, flask";
        let has_all = Command::new(&python).args(["-c", all]).output();
        if !has_all.is_ok_and(|o| o.status.success()) {
            must(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir), "python3 -m venv");
            must(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES), "pip");
        }
        python
    })
}

fn must(command: &mut Command, what: &str) {
    let output = command.output().unwrap_or_else(|e| panic!("{what} does not start: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what} failed, and the interop tests need it:\n{said}");
}

/// Runs a script, which prints what failed and ends with 0 only if nothing did.
fn check(script: &str) {
    let dir = tempdir(script);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("the name is valid");
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).expect("the directory is writable");
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).expect("the directory is writable");
    let output = Command::new("timeout")
        .args(["--signal=ABRT", "240"])
        .arg(python())
        .args(["-X", "faulthandler"])
        .arg(repository().join("tests/interop").join(script))
        .env("GW_BIN", gw_binary())
        .env("TLS_CERT", dir.join("cert.pem"))
        .env("TLS_KEY", dir.join("key.pem"))
        .output()
        .expect("timeout is part of coreutils");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let _ = std::fs::remove_dir_all(&dir);
    assert!(output.status.success(), "{script} ended with {}\n{out}\n{err}", output.status);
    assert!(out.contains("0 failed"), "{script} ran no cases:\n{out}\n{err}");
}

fn tempdir(script: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("gw-interop-{script}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
    dir
}

#[test]
fn grpc_calls_are_the_same_through_the_gateway() {
    check("grpc_interop.py");
}

#[test]
fn web_sockets_are_the_same_through_the_gateway() {
    check("websocket_interop.py");
}

#[test]
fn keys_that_issuers_publish_are_used_whatever_the_issuer_does() {
    check("jwks_interop.py");
}

#[test]
fn web_sockets_over_http2_are_the_same_through_the_gateway() {
    check("websocket_h2_interop.py");
}

#[test]
fn browsers_call_grpc_services() {
    check("grpc_web_interop.py");
}

#[test]
fn json_calls_reach_grpc_services() {
    check("grpc_gateway_interop.py");
}

#[test]
fn servers_decide_about_callers() {
    check("callers_interop.py");
}

#[test]
fn browsers_log_in_at_an_openid_provider() {
    check("oidc_interop.py");
}

#[test]
fn a_provider_of_another_make_is_understood() {
    check("authlib_interop.py");
}
