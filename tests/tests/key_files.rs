//! What `gw certs p12` writes, read by OpenSSL.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use gw_tests::binary::gw;
use gw_tests::folder::Folder;

fn certs(folder: &Path, args: &[&str]) -> Output {
    gw().arg("certs").args(args).arg("--out").arg(folder).output().expect("gw starts")
}

/// What `openssl` prints; it must succeed.
fn openssl(args: &[&str]) -> Vec<u8> {
    let out = Command::new("openssl").args(args).output().expect("openssl is installed");
    assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn openssl_reads_the_key_and_both_certificates_with_the_password_alone() {
    let folder = Folder::new("p12");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let made = certs(folder.path(), &["client", "--name", "billing", "--id", "billing.test"]);
    assert!(made.status.success(), "{made:?}");
    let made = certs(folder.path(), &["p12", "billing"]);
    assert!(made.status.success(), "{made:?}");

    let password = std::fs::read_to_string(at("billing.p12-password")).expect("it is written");
    let printed = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(!printed.contains(&password), "the password stays off the terminal: {printed}");
    for file in ["billing.p12", "billing.p12-password"] {
        let mode = std::fs::metadata(at(file)).expect("it is written").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }

    let pass = format!("file:{}", at("billing.p12-password"));
    let p12 = at("billing.p12");
    let key = folder
        .write("key.pem", &text(openssl(&["pkcs12", "-in", &p12, "-passin", &pass, "-nocerts", "-nodes"])));
    let public = |file: &str| openssl(&["pkey", "-in", file, "-pubout"]);
    assert_eq!(public(key.to_str().expect("UTF-8")), public(&at("billing-key.pem")));
    let shown = text(openssl(&["pkcs12", "-in", &p12, "-passin", &pass, "-nokeys"]));
    assert_eq!(shown.matches("BEGIN CERTIFICATE").count(), 2, "its own and the authority's: {shown}");
    assert!(shown.contains("friendlyName: billing"), "{shown}");

    let wrong = Command::new("openssl")
        .args(["pkcs12", "-in", &p12, "-passin", "pass:wrong", "-noout"])
        .output()
        .expect("openssl is installed");
    assert!(!wrong.status.success(), "another password must not open it");
}

#[test]
fn existing_files_are_kept_and_missing_ones_named() {
    let folder = Folder::new("p12");
    assert!(certs(folder.path(), &["client"]).status.success());
    assert!(certs(folder.path(), &["p12"]).status.success());
    let read = || std::fs::read(folder.path().join("client.p12")).expect("it is there");
    let before = read();
    let again = certs(folder.path(), &["p12"]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists already"), "{again:?}");
    assert_eq!(read(), before);
    assert!(certs(folder.path(), &["p12", "--force"]).status.success());
    assert_ne!(read(), before);
    let missing = certs(folder.path(), &["p12", "nobody"]);
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nobody.pem"), "{missing:?}");
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("openssl prints text")
}
