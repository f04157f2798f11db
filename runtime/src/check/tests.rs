use super::*;
use crate::env::Env;
use crate::front::{self, Input, LoadOptions};
use crate::source::Sources;

/// The findings of loading and checking `body`, a config without its first line.
fn findings(body: &str, env: &Env) -> (Option<Checked<Model>>, Vec<String>) {
    let mut sources = Sources::default();
    let text = format!("_format_version: \"3.0\"\n{body}");
    let (model, mut diags) =
        front::load(&mut sources, &[Input::text("t.yaml", text)], env, &LoadOptions::default());
    let (checked, errors) = run(model);
    diags.extend(errors);
    let shown = diags.iter().map(|d| {
        let at = |span| sources.line_col(span).line;
        let others: Vec<_> = d.secondary.iter().map(|l| at(l.span).to_string()).collect();
        let help = d.help.as_deref().unwrap_or("");
        format!("{}({}) {} {} | {help}", at(d.primary.span), others.join(","), d.code.id, d.message)
    });
    (checked, shown.collect())
}

#[track_caller]
fn check(body: &str, expected: &[&str]) {
    let (checked, found) = findings(body, &Env::empty());
    assert_eq!(found.len(), expected.len(), "{body}\n{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found:?} lacks {expected:?}");
    }
    assert_eq!(checked.is_some(), expected.is_empty(), "only a model without errors is checked");
}

#[test]
fn references_to_nothing_are_errors() {
    let service = "services: [{name: orders, host: h}]\n";
    check(&format!("{service}routes: [{{name: r, paths: [/], service: orders}}]\n"), &[]);
    check(
        &format!("{service}routes: [{{name: r, paths: [/], service: order}}]\n"),
        &["3() GW2001 invalid reference 'service: order' (no such entry in 'services') | write `orders`"],
    );
    check(
        "plugins: [{name: correlation-id, route: nope}]\n",
        &["invalid reference 'route: nope' (no such entry in 'routes') | there are no `routes`"],
    );
    check(
        "consumers: [{username: a, custom_id: c}]\nacls: [{consumer: c, group: g}]\n",
        &[
            "3(2) GW2001 invalid reference 'consumer: c' (no such entry in 'consumers') | refer to a consumer by `username` or `id`",
        ],
    );
    check("targets: [{upstream: u, target: h}]\n", &["'upstream: u'"]);
    check("snis: [{name: a.test, certificate: x}]\n", &["'certificate: x'"]);
    check(
        "services: [{name: s, url: 'https://h', client_certificate: x, ca_certificates: [y]}]\n",
        &["'client_certificate: x'", "'ca_certificates: y'"],
    );
    check(
        "consumer_groups: [{name: g, consumers: [b]}]\nconsumers: [{username: a, groups: [h]}]\n",
        &["'consumer: b'", "'consumer_group: h'"],
    );
}

#[test]
fn references_are_resolved_by_name_and_by_id() {
    let (checked, found) = findings(
        "services:
  - {name: a, host: h}
  - name: b
    host: u
    id: 00000000-0000-4000-8000-00000000000A
    routes: [{name: nested, paths: [/n], plugins: [{name: correlation-id}]}]
routes:
  - {name: r, paths: [/], service: 00000000-0000-4000-8000-00000000000a}
  - {name: none, paths: [/x]}
plugins:
  - {name: correlation-id, service: a, consumer: c}
consumers: [{username: c, groups: [gold], keyauth_credentials: [{key: k}]}]
consumer_groups: [{name: gold, consumers: [c]}, {name: silver}]
upstreams: [{name: u, targets: [{target: h}]}]
",
        &Env::empty(),
    );
    assert!(found.is_empty(), "{found:#?}");
    let checked = checked.expect("there are no errors");
    let links = checked.links();
    assert_eq!(links.route_service, [Some(1), Some(1), None]);
    assert_eq!(links.plugin_scope[0], Scope { route: Some(0), ..Scope::default() });
    assert_eq!(links.plugin_scope[1], Scope { service: Some(0), consumer: Some(0), ..Scope::default() });
    assert_eq!(links.credential_consumer, [0]);
    assert_eq!(links.consumer_groups, [vec![0]]);
    assert_eq!(links.service_upstream, [None, Some(0)]);
    assert_eq!(links.target_upstream, [0]);
}

#[test]
fn duplicates_are_errors_with_both_places() {
    check(
        "routes:\n  - {name: x, paths: [/a]}\n  - {name: x, paths: [/b]}\n",
        &["4(3) GW2002 uniqueness violation: 'routes' entity with name set to 'x' already declared"],
    );
    check(
        "services:\n  - {name: a, host: h, id: 00000000-0000-4000-8000-000000000001}\n  - {name: b, host: h, id: 00000000-0000-4000-8000-000000000001}\n",
        &[
            "'services' entity with primary key set to '00000000-0000-4000-8000-000000000001' already declared",
        ],
    );
    check(
        "consumers:\n  - {username: a, custom_id: c}\n  - {username: b, custom_id: c}\n  - {username: a}\n",
        &[
            "4(3) GW2002 uniqueness violation: 'consumers' entity with custom_id set to 'c'",
            "5(3) GW2002 uniqueness violation: 'consumers' entity with username set to 'a'",
        ],
    );
    check(
        "consumers:\n  - {username: a, keyauth_credentials: [{key: hush}]}\n  - {username: b, keyauth_credentials: [{key: hush}]}\n",
        &[
            "4(3) GW2002 uniqueness violation: 'keyauth_credentials' entity with key set to the same value already declared",
        ],
    );
    check(
        "consumers:\n  - {username: a, acls: [{group: g}, {group: g}]}\n  - {username: b, acls: [{group: g}]}\n",
        &["'acls' entity with group set to 'g'"],
    );
    check(
        "upstreams: [{name: u, targets: [{target: h}, {target: 'h:8000'}, {target: 'h:1'}]}, {name: v, targets: [{target: h}]}]\n",
        &["'targets' entity with target set to 'h' port 8000"],
    );
    check(
        "plugins:\n  - name: correlation-id\n  - name: correlation-id\n",
        &[
            "4(3) GW2002 uniqueness violation: 'plugins' entity with name set to 'correlation-id' and no scope already declared",
        ],
    );
    check(
        "services:\n  - name: s\n    host: h\n    plugins: [{name: correlation-id}]\nplugins:\n  - {name: correlation-id, service: s}\n  - name: correlation-id\n",
        &[
            "7(5) GW2002 uniqueness violation: 'plugins' entity with name set to 'correlation-id' and this service",
        ],
    );
    check("plugins:\n  - {name: correlation-id, service: nope}\n  - {name: correlation-id}\n", &["GW2001"]);
    let env = Env::empty().with("NAME", "hush");
    let (_, found) = findings("services:\n  - {name: hush, host: h}\n  - name: ${NAME}\n    host: h\n", &env);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("name set to '${NAME}'"), "{found:?}");
}

#[test]
fn plugins_that_come_before_the_consumer_cannot_be_a_consumers() {
    check(
        "consumers:\n  - username: a\n    plugins:\n      - name: jwt\n",
        &["5() GW2003 `consumer`: value must be null for the plugin `jwt`"],
    );
    check("consumers: [{username: a}]\nplugins:\n  - {name: jwt, consumer: a}\n", &["GW2003"]);
    check(
        "consumer_groups:\n  - name: g\n    plugins: [{name: jwt}]\n",
        &["`consumer_group`: value must be null"],
    );
}

#[test]
fn certificates_and_keys_must_be_pairs() {
    let one = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("the name is valid");
    let other = rcgen::generate_simple_self_signed(["b.test".to_owned()]).expect("the name is valid");
    let env = Env::empty()
        .with("CERT", one.cert.pem())
        .with("KEY", one.signing_key.serialize_pem())
        .with("OTHER", other.signing_key.serialize_pem());
    let found = |body: &str| findings(body, &env).1;
    assert_eq!(found("certificates:\n  - cert: ${CERT}\n    key: ${KEY}\n"), [""; 0]);
    for (body, expected) in [
        (
            "certificates:\n  - cert: ${CERT}\n    key: ${OTHER}\n",
            "4() GW2004 `key`: certificate does not match key",
        ),
        (
            "certificates:\n  - cert: file.pem\n    key: ${KEY}\n",
            "3() GW2004 `cert`: invalid certificate: no certificate in PEM",
        ),
        (
            "certificates:\n  - cert: ${CERT}\n    key: ${CERT}\n",
            "4() GW2004 `key`: invalid key: no private key in PEM",
        ),
        ("certificates:\n  - cert: ${CERT}\n", "3() GW1007 required field missing: `key`"),
        (
            "ca_certificates:\n  - cert: ${CERT}\n",
            "3() GW2004 `cert`: invalid certificate: certificate does not appear to be a CA",
        ),
        ("ca_certificates:\n  - cert: x\n", "3() GW2004 `cert`: invalid certificate: no certificate in PEM"),
    ] {
        let found = found(body);
        assert_eq!(found.len(), 1, "{body}: {found:#?}");
        assert!(found[0].contains(expected), "{found:?} lacks {expected:?}");
    }
}

#[test]
fn an_authority_is_told_by_its_constraints() {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names are valid names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("the provider makes keys");
    let ca = params.self_signed(&key).expect("the parameters are valid");
    let env = Env::empty().with("CA", ca.pem());
    assert_eq!(findings("ca_certificates:\n  - cert: ${CA}\n", &env).1, [""; 0]);
}

#[test]
fn public_keys_must_fit_their_algorithm() {
    let key = rcgen::KeyPair::generate().expect("the provider makes keys");
    let env = Env::empty().with("EC", key.public_key_pem());
    let found = |algorithm: &str, pem: &str| {
        findings(&format!("consumers:\n  - username: a\n    jwt_secrets:\n      - key: a\n        algorithm: {algorithm}\n        rsa_public_key: {pem}\n"), &env).1
    };
    assert_eq!(found("ES256", "${EC}"), [""; 0]);
    for (algorithm, pem) in [("RS256", "${EC}"), ("ES384", "${EC}"), ("RS256", "hello")] {
        let found = found(algorithm, pem);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("7(6) GW2005 `rsa_public_key`: invalid key"), "{found:?}");
    }
}

#[test]
fn what_could_not_be_read_makes_no_dangling_references() {
    for body in [
        "services: {name: s, host: h}\nroutes: [{name: r, paths: [/], service: s}]\n",
        "services: [{name: 3.0, host: h}]\nroutes: [{name: r, paths: [/], service: '3.0'}]\n",
        "servces: [{name: s, host: h}]\nroutes: [{name: r, paths: [/], service: s}]\n",
        "consumers:\n  - username: ${NOPE}\nacls: [{consumer: a, group: g}]\n",
        "services: [{name: s, hots: h}]\n",
        "routes: [{name: r, path: [/]}]\n",
        "consumers: [{usernam: a}]\n",
        "acls: [{group: g}]\n",
    ] {
        let (checked, found) = findings(body, &Env::empty());
        assert_eq!(found.len(), 1, "{body}: {found:#?}");
        let complete = body.contains("hots") || body.contains("path:") || body.contains("usernam:");
        assert_eq!(checked.is_some(), complete, "{body}");
    }
}
