//! No mistake in a config makes its secrets appear: every place of a secret, misspelt and miswritten in every way that
//! people find, in every output format.

use std::fmt::Write as _;
use std::path::PathBuf;

use gw_tests::binary::gw;
use gw_tests::folder::Folder;
use gw_tests::serving::{Serving, get, post};

/// Nobody may see these: a text, and a number for where a value is of the wrong type.
const CANARIES: &[&str] = &["Xy7canary0123", "4815162342108"];

/// Configs with a secret; `@` stands for `FIELD: VALUE` of it, as the second part says.
const PLACES: &[(&str, &str)] = &[
    ("consumers: [{username: a, keyauth_credentials: [{tags: [t], @}]}]", "key"),
    ("consumers: [{username: a, jwt_secrets: [{key: a, @}]}]", "secret"),
    ("consumers: [{username: a, basicauth_credentials: [{username: a, @}]}]", "password"),
    ("consumers: [{username: a, hmacauth_credentials: [{username: a, @}]}]", "secret"),
    ("consumers: [{username: a, oauth2_credentials: [{name: a, @}]}]", "client_secret"),
    ("consumers: [{username: a}]\nkeyauth_credentials: [{consumer: a, @}]", "key"),
    ("consumers:\n- username: a\n  keyauth_credentials:\n  - tags: [t]\n    @\n  acls: []", "key"),
    (
        "consumers:\n- username: a\n  basicauth_credentials:\n  - username: a\n    @\n    tags: [t]",
        "password",
    ),
    ("consumers: [{username: a, @}]", "password"),
    ("plugins: [{name: rate-limiting, config: {minute: 1, policy: redis, redis: {host: h, @}}}]", "password"),
    (
        "plugins: [{name: rate-limiting, config: {minute: 1, policy: redis, redis_host: h, @}}]",
        "redis_password",
    ),
    (
        "plugins:\n- name: response-ratelimiting\n  config:\n    limits: {a: {minute: 1}}\n    redis:\n      host: h\n      @",
        "password",
    ),
    ("plugins: [{name: standard-webhooks, config: {tolerance_second: 1, @}}]", "secret_v1"),
    ("plugins: [{name: openid-connect, config: {issuer: 'http://a.test', @}}]", "client_secret"),
    ("plugins: [{nmae: jwt, config: {anything: 1, @}}]", "client_secret"),
    ("certificates: [{cert: x, @}]", "key"),
    ("keys: [{name: a, kid: b, @}]", "jwk"),
    ("keys: [{name: a, kid: b, pem: {public_key: x, @}}]", "private_key"),
    ("parameters: [{key: a, @}]", "value"),
    ("gateway: {redis: {@}}", "url"),
];

/// Ways to write a field; `F` is its name, `V` the value.
const WAYS: &[&str] = &[
    "F: V",
    "F: 'V'",
    "F: [V]",
    "F: {a: V}",
    "F: {V: 1}",
    "F: {V}",
    "F: !V",
    "F: *V",
    "F: \"V",
    "F: @V",
    "F: V, F: V",
    "F: ['V', {b: V}]",
    "F: \"V${GW_TEST_NOT_SET}\"",
    "F: \"${GW_TEST_NOT_SET:-V}\"",
    "F: http://u:V@h h/",
    "F:V",
    "F V",
    "V",
    "? [V] : V",
];

/// Those that take a number for a text or a text for a list, so that a fix may be offered.
const WRONG_TYPES: &[&str] = &["F: V", "F: [V]"];

/// Those that leave no tree to look at.
const BREAK_SYNTAX: &[&str] = &["F: \"V", "F: @V"];

/// Names that are nearly or not at all the field's.
fn names(field: &str) -> Vec<String> {
    let (first, rest) = field.split_at(1);
    let last = field.chars().last().expect("a field has a name");
    vec![
        field.to_owned(),
        format!("{field}{last}"),
        rest.to_owned(),
        format!("{first}x{}", &rest[1..]),
        "zzzzzz".to_owned(),
    ]
}

/// Every combination, each a config of its own, and lists that are none.
fn configs() -> Vec<String> {
    let mut bodies = Vec::new();
    for (place, field) in PLACES {
        let block = place.contains("\n    @") || place.contains("\n      @");
        for name in names(field) {
            // Of a name that is like no other in a text that is no YAML nobody can tell what it is.
            for way in WAYS.iter().filter(|way| name != "zzzzzz" || !BREAK_SYNTAX.contains(way)) {
                // In block style a comma is part of the value.
                let way = if block { way.replace(", F: ", "\n    F: ") } else { (*way).to_owned() };
                for canary in
                    CANARIES.iter().filter(|c| c.starts_with('X') || WRONG_TYPES.contains(&way.as_str()))
                {
                    let written = way.replace('V', canary).replace('F', &name);
                    bodies.push(place.replacen('@', &written, 1));
                }
            }
        }
    }
    for list in [
        "keyauth_credentials",
        "keyauth_credential",
        "jwt_secrets",
        "basicauth_credentials",
        "secrets",
        "zzzzzz",
    ] {
        for canary in CANARIES {
            for entry in [
                "V",
                "[V]",
                "[[V]]",
                "{key: V}",
                "{a: {b: V}}",
                "[{key:V}]",
                "\n  - key:V",
                "\n  - V",
                "\n    key: |\n      V",
            ] {
                let entry = entry.replace('V', canary);
                bodies.push(format!("consumers:\n- username: a\n  {list}: {entry}"));
                bodies.push(format!("{list}: {entry}"));
            }
        }
    }
    bodies.into_iter().map(|body| format!("_format_version: \"3.0\"\n{body}\n")).collect()
}

fn write(folder: &Folder) -> Vec<(PathBuf, String)> {
    let named =
        configs().into_iter().enumerate().map(|(i, text)| (folder.write(&format!("{i}.yaml"), &text), text));
    named.collect()
}

/// What of the output has a canary, each line with the config that it is about.
fn leaks(output: &str, files: &[(PathBuf, String)]) -> String {
    let mut out = String::new();
    let lines: Vec<&str> = output.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        if !CANARIES.iter().any(|c| line.contains(&c[..c.len() - 3])) {
            continue;
        }
        let about = |line: &str| files.iter().find(|(path, _)| line.contains(&*path.to_string_lossy()));
        let near = (0..i + 1).rev().chain(i..lines.len()).take(200).find_map(|i| about(lines[i]));
        let _ = writeln!(out, "{line}\n    of {:?}", near.map(|(_, text)| text));
    }
    out
}

#[test]
fn no_format_shows_a_secret_however_it_is_written() {
    let folder = Folder::new("secrets");
    let files = write(&folder);
    let formats = ["full", "concise", "json", "sarif", "github"].map(|f| ["--format", f]);
    // The last, because it changes the files.
    for format in formats.iter().map(|f| f.as_slice()).chain([["--fix"].as_slice()]) {
        let out = gw()
            .args(["validate", "-W", "all"])
            .args(format)
            .args(files.iter().map(|(path, _)| path))
            .output()
            .expect("gw runs");
        let text =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(text.len() > files.len() * 40, "{format:?}: {text}");
        let leaks = leaks(&text, &files);
        let count = leaks.lines().count() / 2;
        assert!(leaks.is_empty(), "{format:?}: {count} of {} configs:\n{leaks}", files.len());
    }
}

#[test]
fn a_gateway_says_no_secret_of_a_config_that_it_refuses() {
    let good = "_format_version: \"3.0\"\nservices: [{url: 'http://127.0.0.1:1', routes: [{paths: [/]}]}]\n";
    let mut serving = Serving::start(good);
    let all = configs();
    let some: Vec<&String> = all.iter().step_by(all.len() / 20).collect();
    for config in &some {
        let file = serving.reload(config);
        let posted = post(serving.admin, "/config", "Content-Type: text/yaml\r\n", config);
        let status = get(serving.admin, "/config");
        for text in [posted.body, status.body] {
            assert!(!CANARIES.iter().any(|c| text.contains(c)), "accepted {file}: {config}\n{text}");
        }
    }
    let log = serving.log();
    assert!(!CANARIES.iter().any(|c| log.contains(c)), "{log}");
}
