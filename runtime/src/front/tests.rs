use super::*;
use crate::diag::Severity;
use crate::model::{CredentialKind, Ref};

/// Loads one text.
fn load_text(text: &str) -> (Model, Vec<String>) {
    load_with(text, &LoadOptions::default(), &Env::empty())
}

fn load_with(text: &str, options: &LoadOptions, env: &Env) -> (Model, Vec<String>) {
    let mut sources = Sources::default();
    let (model, diags) = load(&mut sources, &[Input::text("t.yaml", text)], env, options);
    let shown = diags.iter().map(|d| {
        let p = sources.line_col(d.primary.span);
        format!("{}:{} {} {}", p.line, p.col, d.code.id, d.message)
    });
    (model, shown.collect())
}

/// The findings in `body`, a config without its first line.
#[track_caller]
fn check(body: &str, expected: &[&str]) {
    let (_, found) = load_text(&format!("_format_version: \"3.0\"\n{body}"));
    assert_eq!(found.len(), expected.len(), "{body}\n{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found:?} lacks {expected:?}");
    }
}

#[test]
fn the_orders_example_becomes_a_model() {
    let text = include_str!("../../../fixtures/orders/kong.yaml");
    let (model, found) =
        load_with(text, &LoadOptions { allow_unsupported: true, ..LoadOptions::default() }, &Env::empty());
    let found: Vec<_> = found.iter().filter(|f| !f.contains("GW3001")).collect();
    assert!(found.is_empty(), "{found:#?}");
    let service = &model.services[0];
    assert_eq!(
        (service.host.as_str(), service.port, service.protocol.as_str()),
        ("order-svc.internal", 8080, "http")
    );
    let route = &model.routes[0];
    assert_eq!(route.service, Some(Ref::Parent(0)));
    assert_eq!(route.paths[0].value, "/orders");
    assert!(!route.strip_path);
    assert_eq!(model.consumers.len(), 2);
    let secret = &model.credentials[0];
    assert_eq!((secret.kind, &secret.consumer), (CredentialKind::Jwt, &Some(Ref::Parent(0))));
    assert!(secret.record.str("secret").is_some_and(|s| s.starts_with("alice-development")));
    assert!(
        model.plugins.iter().any(|p| p.name.value == "correlation-id" && p.service == Some(Ref::Parent(0)))
    );
    assert_eq!(
        model.shown(&secret.record.spanned_str("secret").unwrap_or_default()),
        "${ORDERS_ALICE_SECRET}"
    );
}

#[test]
fn the_top_level_is_checked() {
    check("servces: []\n", &["2:1 GW1002 unknown field `servces`"]);
    check("services: {name: a}\n", &["`services`: expected an array"]);
    check("services:\nroutes: ~\n", &[]);
    check("_comment: x\n_ignore: [1]\n_info: {a: 1}\n_workspace: w\n_konnect: {}\n", &[]);
    for (text, expected) in [
        ("services: []", "1:1 GW1007 required field missing: `_format_version`"),
        ("_format_version: 3.0", "1:18 GW1003 `_format_version`: expected a string"),
        ("_format_version: \"2.0\"", "GW2203 `_format_version`: expected one of: 1.1, 2.1, 3.0"),
        ("- a", "expected an object"),
        ("", "expected an object"),
    ] {
        let (_, found) = load_text(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains(expected), "{found:?} lacks {expected}");
    }
}

#[test]
fn entities_are_checked_across_their_fields() {
    let service = |fields: &str| format!("services:\n  - {{{fields}}}\n");
    check(&service("name: a"), &["required field missing: `host`"]);
    check(&service("name: a, host: 'a:80'"), &["`host`: invalid value: a:80"]);
    check(&service("name: a, url: 'https://h/p'"), &[]);
    check(&service("name: a, url: 'ftp://h/p'"), &["`url`: expected a scheme that is one of"]);
    check(&service("name: a, url: 'http:///p'"), &["missing host in url"]);
    check(&service("name: a, host: h, protocol: tcp"), &["GW3003"]);
    check(&service("name: a, host: h, port: 70000"), &["value should be between 0 and 65535"]);
    check(&service("name: a, host: h, protocol: grpc, path: /x"), &["`path`: value must be null"]);
    check(&service("name: a, host: h, tls_verify: true"), &["`tls_verify`: value must be null unless"]);
    let route = |fields: &str| format!("routes:\n  - {{{fields}}}\n");
    check(
        &route("name: r"),
        &["at least one of these fields must be non-empty: 'methods', 'hosts', 'headers', 'paths', 'snis'"],
    );
    check(&route("name: r, paths: []"), &["at least one of these fields"]);
    check(&route("name: r, paths: [x]"), &["should start with: /"]);
    check(&route("name: r, paths: ['~/a(']"), &["invalid regex"]);
    check(&route("name: r, paths: [/a/../b]"), &["non-normalized path"]);
    check(&route("name: r, snis: [a.test], protocols: [http], paths: [/]"), &["`snis`"]);
    check(&route("name: r, protocols: [http, grpc], paths: [/]"), &["mutually exclusive"]);
    check(
        &route("name: r, protocols: [grpc], paths: [/], methods: [POST]"),
        &["`methods`: value must be null"],
    );
    check(&route("name: r, protocols: [tcp], sources: [{ip: 10.0.0.1}]"), &["GW3003"]);
    check(&route("name: r, hosts: ['*.a.*']"), &["wildcard"]);
    check(&route("name: r, methods: [get]"), &["`methods[0]`: invalid value: get"]);
    check(&route("name: r, headers: {Host: [a]}"), &["cannot contain 'host' header"]);
    check(&route("name: r, paths: [/], https_redirect_status_code: 303"), &["expected one of: 426, 301"]);
    check(
        "consumers:\n  - {tags: [a]}\n",
        &["at least one of these fields must be non-empty: 'custom_id', 'username'"],
    );
    check(
        "consumers:\n  - username: a\n    jwt_secrets: [{key: k, algorithm: RS256}]\n",
        &["`rsa_public_key`"],
    );
    check(
        "consumers:\n  - username: a\n    basicauth_credentials: [{password: x}]\n",
        &["required field missing: `username`"],
    );
    check("acls: [{group: g}]\n", &["required field missing: `consumer`"]);
    check("upstreams: [{name: 'a:80'}]\n", &["no port allowed"]);
    check("upstreams: [{name: 10.0.0.1}]\n", &["no ip addresses allowed"]);
    check("upstreams: [{name: u, hash_on: header}]\n", &["required field missing: `hash_on_header`"]);
    check(
        "upstreams: [{name: u, hash_on: ip, hash_fallback: ip}]\n",
        &["failed conditional validation given value of field 'hash_on'"],
    );
    check(
        "upstreams: [{name: u, targets: [{target: 'h:99999'}]}]\n",
        &["not a valid hostname or ip address"],
    );
    check("filter_chains: [{}]\n", &["GW3004"]);
    check("vaults: [{name: hcv, prefix: v}]\n", &["GW3004"]);
    check("vaults: [{name: env, prefix: my-env, config: {prefix: X_}}]\n", &[]);
    check(
        "services:\n  - name: a\n    host: h\n    routes: [{name: r, paths: [/], service: a}]\n",
        &["`service`: value must be null"],
    );
}

#[test]
fn plugins_are_looked_up_and_their_config_is_read() {
    let plugin = |fields: &str| format!("plugins:\n  - {{{fields}}}\n");
    check(&plugin("name: correlation-id"), &[]);
    check(
        &plugin("name: correlation-id, config: {generator: foo}"),
        &["`config.generator`: expected one of: uuid, uuid#counter, tracker"],
    );
    check(
        &plugin("name: correlation-id, config: {foo: 1}"),
        &["unknown field `foo` in `config` of the plugin `correlation-id`"],
    );
    check(&plugin("name: correlation-id, ordering: {}"), &["unknown field `ordering`"]);
    check(&plugin("config: {}"), &["required field missing: `name`"]);
    check(&plugin("name: corelation-id"), &["GW3002 plugin 'corelation-id' not enabled"]);
    check(&plugin("name: acme"), &["GW3001 gw cannot run Kong's plugin `acme` yet"]);
    let options = LoadOptions { allow_unsupported: true, ..LoadOptions::default() };
    let mut sources = Sources::default();
    let input = Input::text("t.yaml", "_format_version: \"3.0\"\nplugins: [{name: acme}]");
    let (model, diags) = load(&mut sources, &[input], &Env::empty(), &options);
    assert!(model.plugins.is_empty());
    assert_eq!(diags.iter().map(|d| d.severity).collect::<Vec<_>>(), [Severity::Warning]);
    let (model, found) = load_text(
        "_format_version: \"3.0\"\n_plugin_configs: {ids: {echo_downstream: true, header_name: X-A}}\nplugins: [{name: correlation-id, _config: ids, config: {header_name: X-B}}]",
    );
    assert!(found.is_empty(), "{found:?}");
    let config = &model.plugins[0].config;
    assert_eq!((config.bool("echo_downstream"), config.str("header_name")), (true, Some("X-B")));
}

#[test]
fn nesting_and_references_are_kept() {
    let (model, found) = load_text(
        "_format_version: '3.0'
services:
  - name: s
    url: https://h
    routes:
      - name: r
        paths: [/]
        plugins: [{name: correlation-id}]
consumers:
  - username: a
    keyauth_credentials: [{key: k}]
    acls: [{group: g}]
    groups: [gold]
consumer_groups:
  - name: gold
    consumers: [{username: b}]
keyauth_credentials: [{consumer: a, key: k2}]
upstreams:
  - name: u
    hash_on: ip
    targets: [{target: 10.0.0.1}, {target: '[::1]:80', weight: 0}]
certificates:
  - {cert: c, key: k, snis: [{name: a.test}, b.test]}
",
    );
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(model.services[0].port, 443);
    assert_eq!(model.plugins[0].route, Some(Ref::Parent(0)));
    assert_eq!(model.plugins[0].service, None);
    assert_eq!(model.credentials.len(), 3);
    assert_eq!(model.targets[0].port, 8000);
    assert_eq!((model.targets[1].host.as_str(), model.targets[1].port), ("::1", 80));
    assert_eq!(model.upstreams[0].record.str("algorithm"), Some("consistent-hashing"));
    assert_eq!(model.snis.len(), 2);
    assert_eq!(model.consumer_groups[0].consumers[0].value, "b");
}

#[test]
fn older_formats_are_migrated() {
    let text = "_format_version: '2.1'\nroutes:\n  - {name: r, paths: ['/a/\\d+', /b/../c]}\n";
    let (model, found) = load_text(text);
    assert!(found.is_empty(), "{found:#?}");
    let paths: Vec<_> = model.routes[0].paths.iter().map(|p| p.value.as_str()).collect();
    assert_eq!(paths, ["~/a/\\d+", "/c"]);
}

#[test]
fn values_of_the_environment_fit_their_fields_and_never_show() {
    let env = Env::empty().with("PORT", "8080").with("PIN", "123456").with("BAD", "s3cr3t value");
    let text = |fields: &str| {
        format!("_format_version: '3.0'\nservices:\n  - {{name: s, host: h}}\n  - name: t\n{fields}")
    };
    let (model, found) = load_with(&text("    host: h\n    port: ${PORT}\n"), &LoadOptions::default(), &env);
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(model.services[1].port, 8080);
    let (model, found) = load_with(&text("    host: ${PIN}\n"), &LoadOptions::default(), &env);
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(model.services[1].host.value, "123456");
    for fields in [
        "    host: ${BAD}\n",
        "    url: ${BAD}://x\n",
        "    host: h\n    protocol: ${BAD}\n",
        "    host: h\n    port: ${BAD}\n",
    ] {
        let (_, found) = load_with(&text(fields), &LoadOptions::default(), &env);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(!found[0].contains("s3cr3t"), "{found:?}");
    }
    let (_, found) = load_with(&text("    host: ${NOPE}\n"), &LoadOptions::default(), &env);
    assert_eq!(found, ["5:11 GW1008 environment variable `NOPE` is not set"]);
}

#[test]
fn files_are_merged() {
    let mut sources = Sources::default();
    let inputs = [
        Input::text(
            "a.yaml",
            "_format_version: '3.0'\nservices: [{name: s, host: h}]\ngateway: {workers: 2}",
        ),
        Input::text(
            "b.yaml",
            "_format_version: '3.0'\nroutes: [{name: r, paths: [/], service: s}]\ngateway: {workers: 3}",
        ),
    ];
    let (model, diags) = load(&mut sources, &inputs, &Env::empty(), &LoadOptions::default());
    assert_eq!((model.services.len(), model.routes.len(), model.gateway.workers), (1, 1, 2));
    assert_eq!(diags.len(), 1);
    assert_eq!(diags[0].message, "`gateway` is declared in two files");
}

#[test]
fn the_gateway_section_is_read() {
    let (model, found) = load_text(
        "_format_version: '3.0'
gateway:
  listeners: ['0.0.0.0:8443 ssl proxy_protocol', {address: '[::]:8000'}]
  trusted_ips: [10.0.0.0/8, 127.0.0.1]
  real_ip_header: X-Forwarded-For
  limits: {body: 1000}
  timeouts: {header: 5000}
  redis: {url: 'redis://localhost:6379/1'}
  admin: 127.0.0.1:8001
  access_log: 'off'
  router_order: documented
  drain: 0.5
",
    );
    assert!(found.is_empty(), "{found:#?}");
    let g = &model.gateway;
    assert!(g.listeners[0].tls && g.listeners[0].proxy_protocol && !g.listeners[1].tls);
    assert_eq!(g.trusted_ips.len(), 2);
    assert_eq!((g.limits.body, g.limits.uri), (1000, 8192));
    assert_eq!(g.timeouts.header.as_millis(), 5000);
    assert!(g.router_order_documented && g.redis.is_some() && g.admin.is_some());
    assert_eq!(g.drain.as_millis(), 500);
    assert_eq!(g.access_log, crate::model::gateway::AccessLog::Off);
    check("gateway: {listeners: ['nowhere']}\n", &["`listeners`: expected an address and a port"]);
    check("gateway: {listners: []}\n", &["unknown field `listners`"]);
    check("gateway: {limits: {uri: -1}}\n", &["`limits.uri`"]);
}

#[test]
fn an_empty_gateway_section_is_the_default() {
    let (read, _) = load_text("_format_version: '3.0'\ngateway: {}\n");
    assert_eq!(format!("{:?}", read.gateway), format!("{:?}", Model::default().gateway));
}

#[test]
fn what_is_broken_is_reported_once() {
    check(
        "services:\n  - name: s\n    host: [1]\n    prot: 80\n    routes:\n      - paths: x\n",
        &["4:11 GW1003 `host`", "5:5 GW1002 unknown field `prot`", "7:16 GW1003 `paths`: expected an array"],
    );
}

#[test]
fn a_config_of_thousands_of_routes_is_read_in_linear_time() {
    use std::fmt::Write as _;
    let mut text = String::from("_format_version: '3.0'\nservices:\n  - name: s\n    host: h\n    routes:\n");
    for i in 0..3_000 {
        let _ = writeln!(
            text,
            "      - name: r{i}\n        paths: [/api/v1/resource-{i}]\n        methods: [GET]"
        );
    }
    let (model, found) = load_text(&text);
    assert!(found.is_empty());
    assert_eq!(model.routes.len(), 3_000);
}

#[test]
fn damaged_configs_give_findings_and_never_a_panic() {
    let text = include_str!("../../../fixtures/orders/kong.yaml");
    let places: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
    for (n, at) in places.iter().enumerate() {
        let (before, after) = text.split_at(*at);
        let odd = ["\"", "{", "]", ": ", "\n", "&a ", "*a", "- ", "${", "\t", "~", "é"][n % 12];
        for damaged in [before.to_owned(), format!("{before}{odd}{after}")] {
            let (model, _) = load_text(&damaged);
            let _ = crate::check::run(model);
        }
    }
}
