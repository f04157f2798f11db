//! Who may call: credentials of every kind against the real binary.

use gw_tests::binary::gw;
use gw_tests::folder::Folder;
use gw_tests::gateway::Gateway;
use gw_tests::http;
use gw_tests::slapd::{PASSWORD, Slapd};
use gw_tests::upstream::Upstream;

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

#[test]
fn tokens_and_keys_that_the_config_lists_let_callers_in_for_as_long_as_it_says() {
    let folder = Folder::new("identity");
    let plugin = "- {name: oauth2, config: {global_credentials: true}}";
    // The hash of `hello`; a token that was over in 2001; one that lives a second.
    let rest = "consumers:
- username: alice
  oauth2_credentials:
  - name: app
    client_id: app
    oauth2_tokens:
    - {access_token_hash: 'sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824', expires_in: 0}
    - {access_token: old, expires_in: 60, created_at: 1000000000}
    - {access_token: only-s, service: s, expires_in: 3600}
oauth2_tokens:
- {access_token: short, credential: app, expires_in: 0, ttl: 1}";
    let gateway = Gateway::start(&folder.write("gw.yaml", &config(plugin, rest)), &[]);
    let get = |token: &str| {
        http::request(gateway.addr(), "GET", "/", &format!("Authorization: Bearer {token}\r\n"))
    };
    for (token, want) in [("hello", 204), ("only-s", 204), ("old", 401), ("nope", 401)] {
        assert_eq!(get(token).status(), want, "{token}");
    }
    let refused = get("nope");
    let body =
        "{\"error\":\"invalid_token\",\"error_description\":\"The access token is invalid or has expired\"}";
    assert_eq!(refused.text(), body);
    assert!(
        refused.field("www-authenticate").is_some_and(|c| c.starts_with("Bearer error=\"invalid_token\""))
    );
    eventually("a token outlives its `ttl`", || get("short").status() == 401);

    let rest =
        "consumers: [{username: alice, keyauth_credentials: [{key: k, ttl: 1}, {key: stays, ttl: 0}]}]";
    let gateway = Gateway::start(&folder.write("keys.yaml", &config("- name: key-auth", rest)), &[]);
    let get = |key: &str| http::request(gateway.addr(), "GET", "/", &format!("apikey: {key}\r\n")).status();
    eventually("a key outlives its `ttl`", || get("k") == 401);
    assert_eq!(get("stays"), 204);
}

/// Waits for `done`, ten seconds at most.
#[track_caller]
fn eventually(otherwise: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..100 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{otherwise}");
}

fn ldap(name: &str, password: &str) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
    format!("Authorization: ldap {text}\r\n")
}

#[test]
fn a_real_directory_says_who_may_call() {
    let mut directory = Slapd::start();
    let folder = Folder::new("identity");
    let ca = directory.folder().join("ca.pem");
    let gateway_of = |host: &str, port: u16, more: &str| {
        let plugin = format!(
            "- {{name: ldap-auth, config: {{ldap_host: {host}, ldap_port: {port}, base_dn: 'ou=people,dc=test', \
             attribute: uid, timeout: 2000, {more}}}}}"
        );
        let rest = format!("gateway: {{tls: {{upstream_ca: '{}'}}}}", ca.display());
        let path = folder.write(&format!("gw-{port}-{}.yaml", more.len()), &config(&plugin, &rest));
        Gateway::start(&path, &["--workers", "1"])
    };
    let (port, tls_port) = (directory.port, directory.tls_port);
    let ways = [
        gateway_of("127.0.0.1", port, "cache_ttl: 0"),
        gateway_of("localhost", port, "start_tls: true, verify_ldap_host: true"),
        gateway_of("localhost", tls_port, "ldaps: true, verify_ldap_host: true"),
    ];
    let status = |gateway: &Gateway, name: &str, password: &str| {
        http::request(gateway.addr(), "GET", "/", &ldap(name, password)).status()
    };
    for (i, gateway) in ways.iter().enumerate() {
        for (name, password, want) in [
            ("alice", PASSWORD, 204),
            ("alice", PASSWORD, 204),
            ("bob", "correct horse2", 204),
            ("alice", "correct horse2", 401),
            ("alice", "", 401),
            ("nobody", PASSWORD, 401),
            ("alice,ou=people,dc=test", PASSWORD, 401),
            ("*", PASSWORD, 401),
        ] {
            assert_eq!(status(gateway, name, password), want, "way {i}: {name} {password}");
        }
    }
    // The certificate is for `localhost`; whoever presents it elsewhere gets no password.
    let elsewhere = gateway_of("127.0.0.1", tls_port, "ldaps: true, verify_ldap_host: true, cache_ttl: 9");
    assert_eq!(status(&elsewhere, "alice", PASSWORD), 503);
    let unverified = gateway_of("127.0.0.1", tls_port, "ldaps: true, cache_ttl: 60");
    assert_eq!(status(&unverified, "alice", PASSWORD), 204);

    directory.stop();
    assert_eq!(status(&ways[0], "alice", PASSWORD), 503, "a directory that is down is no wrong password");
    assert_eq!(status(&unverified, "alice", PASSWORD), 204, "what it said before still holds");
    assert_eq!(status(&unverified, "alice", "other"), 503);
    directory.restart();
    assert_eq!(status(&ways[0], "alice", PASSWORD), 204, "a connection that broke is made anew");
}

/// `gw ARGS`, which must succeed.
fn gw_does(args: &[&str]) {
    let output = gw().args(args).output().expect("gw starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn certificates_say_who_calls_and_upstreams_are_told() {
    let folder = Folder::new("identity");
    let dir = folder.path().join("certs");
    let at = |name: &str| dir.join(name).display().to_string();
    let out = dir.display().to_string();
    gw_does(&["certs", "server", "--out", &out]);
    gw_does(&[
        "certs",
        "client",
        "--out",
        &out,
        "--name",
        "billing",
        "--id",
        "spiffe://t.test/billing",
        "--id",
        "alice",
    ]);
    gw_does(&["certs", "client", "--out", &out, "--name", "stranger", "--id", "stranger.test"]);
    // A word is no host, so that it needs no exception from the authority's constraints; and it outlives a renewal.
    gw_does(&["certs", "renew", "billing", "--out", &out, "--force"]);
    let foreign = folder.path().join("foreign").display().to_string();
    gw_does(&["certs", "client", "--out", &foreign, "--name", "alice", "--id", "alice"]);

    let upstream = Upstream::start();
    let config = |mode: &str| {
        format!(
            "_format_version: '3.0'\ngateway: {{tls: {{client_auth: {mode}, client_ca: '{}'}}}}\n\
             services: [{{name: s, url: 'http://{}', routes: [{{name: r, paths: [/]}}, {{name: open, paths: [/open]}}]}}]\n\
             plugins:\n- {{name: mtls-auth, route: r, config: {{consumers: {{'spiffe://t.test/billing': billing}}}}}}\n\
             consumers: [{{username: billing}}, {{username: alice}}]\n",
            at("ca.pem"),
            upstream.addr()
        )
    };
    let tls =
        ["--listen-tls", "127.0.0.1:0", "--tls-cert", &at("server.pem"), "--tls-key", &at("server-key.pem")];
    let optional = Gateway::start(&folder.write("optional.yaml", &config("optional")), &tls);
    let required = Gateway::start(&folder.write("required.yaml", &config("required")), &tls);
    // Status, or 0 where there was no handshake.
    let ask = |gateway: &Gateway, path: &str, client: Option<(&str, &str)>| -> u16 {
        let mut curl = std::process::Command::new("curl");
        curl.args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "--noproxy",
            "*",
            "--max-time",
            "20",
            "--cacert",
        ]);
        curl.arg(at("ca.pem")).args([
            "-H",
            "X-Forwarded-Client-Cert: Hash=forged",
            "-H",
            "x_forwarded_client.cert: forged",
        ]);
        if let Some((dir, name)) = client {
            curl.args(["--cert", &format!("{dir}/{name}.pem"), "--key", &format!("{dir}/{name}-key.pem")]);
        }
        let output = curl.arg(format!("https://localhost:{}{path}", gateway.tls_addr().port())).output();
        String::from_utf8(output.expect("curl starts").stdout).ok().and_then(|s| s.parse().ok()).unwrap_or(0)
    };
    let billing = Some((out.as_str(), "billing"));
    for (gateway, path, client, want) in [
        (&optional, "/x", billing, 200),
        (&optional, "/x", Some((out.as_str(), "stranger")), 401),
        (&optional, "/x", None, 401),
        (&optional, "/open", None, 200),
        (&optional, "/x", Some((foreign.as_str(), "alice")), 0),
        (&required, "/x", billing, 200),
        (&required, "/open", None, 0),
    ] {
        assert_eq!(ask(gateway, path, client), want, "{path} {client:?}");
    }
    let told: Vec<(Option<String>, Vec<String>)> = upstream
        .seen()
        .iter()
        .map(|m| {
            let is =
                |name: &str| name.to_ascii_lowercase().replace(['_', '.'], "-") == "x-forwarded-client-cert";
            let cert = m.fields.iter().filter(|(n, _)| is(n)).map(|(_, v)| v.clone()).collect();
            (m.field("x-consumer-username").map(str::to_owned), cert)
        })
        .collect();
    assert_eq!(told.len(), 3);
    for (i, (consumer, certificates)) in told.iter().enumerate() {
        if i == 1 {
            assert_eq!((consumer, certificates), (&None, &Vec::new()), "no certificate, no word of one");
            continue;
        }
        assert_eq!(consumer.as_deref(), Some("billing"));
        let [certificate] = &certificates[..] else { panic!("{certificates:?}") };
        assert!(certificate.starts_with("Hash=") && !certificate.contains("forged"), "{certificate}");
        assert!(certificate.ends_with(";Subject=\"CN=alice\";URI=spiffe://t.test/billing"), "{certificate}");
    }
}
