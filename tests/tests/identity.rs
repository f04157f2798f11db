//! Who may call: credentials of every kind against the real binary.

use gw_tests::folder::Folder;
use gw_tests::gateway::Gateway;
use gw_tests::http;

/// A config with these plugins, and what else stands at its top level. Requests that pass get 204.
fn config(plugins: &str, rest: &str) -> String {
    format!(
        "_format_version: '3.0'\nservices: [{{name: s, url: 'http://127.0.0.1:9', routes: [{{name: r, paths: [/]}}]}}]\n\
         plugins:\n- {{name: request-termination, config: {{status_code: 204}}}}\n{plugins}\n{rest}\n"
    )
}

#[test]
fn a_config_may_hold_hashes_of_keys() {
    let folder = Folder::new("identity");
    // The hash of `hello`.
    let hash = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let rest = format!(
        "consumers:\n- {{username: alice, keyauth_credentials: [{{key_hash: '{hash}'}}]}}\n\
         - {{username: bob, keyauth_credentials: [{{key: plain}}]}}"
    );
    let gateway = Gateway::start(&folder.write("gw.yaml", &config("- name: key-auth", &rest)), &[]);
    for (key, want) in [("hello", 204), ("plain", 204), (hash, 401), ("hell", 401), ("", 401)] {
        let status = http::request(gateway.addr(), "GET", "/", &format!("apikey: {key}\r\n")).status();
        assert_eq!(status, want, "{key}");
    }
}
