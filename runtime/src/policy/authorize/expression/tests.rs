use std::rc::Rc;

use serde_json::{Value, json};

use super::*;
use crate::exchange::{Exchange, Identity};
use crate::policy::testing;
use crate::snapshot::ConsumerId;

/// Alice, with these claims, asks `GET /a/b?x=1&y=1&y=2` from 10.1.2.3.
fn exchange(claims: Value) -> Exchange {
    let text = "GET /a/b?x=1&y=1&y=2\nHost: API.test:80\nX-One: 1\nX-Two: 1\nX-Two: 2\nclient-ip: 10.1.2.3";
    let mut x = testing::exchange(text);
    let credential = Some("key-1".to_owned());
    let claims = Some(Rc::new(claims));
    x.identity = Some(Identity { consumer: Some(ConsumerId(0)), credential, claims, ..Identity::default() });
    x
}

fn claims() -> Value {
    json!({"role": "admin", "age": 18, "ok": true, "groups": ["x", "y"], "o": {"t": "acme"}, "none": null,
        "scope": "read write", "mail": "a@t.test", "one": "1", "text_age": "18", "mixed": [1, "z"]})
}

#[track_caller]
fn check(text: &str, want: bool) {
    let expression = Expression::parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
    assert_eq!(expression.holds(&Facts(&exchange(claims()))), want, "{text}");
}

#[test]
fn comparisons_hold_by_type() {
    for (text, want) in [
        (r#"claims.role == "admin""#, true),
        (r#"claims.role == 'Admin'"#, false),
        (r#"claims.role != "user""#, true),
        (r#"claims.nope != "user""#, false),
        (r#"claims.groups != "x""#, false),
        ("claims.age == 18", true),
        ("claims.age >= 18 && claims.age < 18.5", true),
        ("claims.age != 18", false),
        ("claims.text_age >= 18", false),
        (r#"claims.age == "18""#, false),
        ("claims.ok == true", true),
        ("claims.ok != true", false),
        ("claims.role == true", false),
        (r#"claims.o.t == "acme""#, true),
        (r#"claims.groups contains "x""#, true),
        (r#""y" in claims.groups"#, true),
        (r#""z" in claims.mixed"#, true),
        (r#"claims.groups contains "xy""#, false),
        (r#"claims.mail ends_with "@t.test" && claims.mail starts_with "a""#, true),
        (r#"claims.mail matches "[a-z]@t\.test""#, true),
        (r#"claims.mail matches "t\.test""#, false),
        (r#"claims.role in ["user", "admin"]"#, true),
        (r#"claims.age in [17, 18]"#, true),
        ("has(claims.role) && !has(claims.none) && !has(claims.nope)", true),
        (r#"scopes contains "read" && "write" in scopes"#, true),
        (r#"scopes contains "rea""#, false),
        (r#"consumer.username == "alice" && consumer.custom_id == "cust-1""#, true),
        (r#"consumer.groups contains "users""#, true),
        (r#"credential == "key-1""#, true),
        (r#"request.method in ["GET", "HEAD"]"#, true),
        (r#"request.path starts_with "/a/""#, true),
        (r#"request.host == "api.test""#, true),
        (r#"request.headers.x-one == "1""#, true),
        (r#"request.headers.x-two == "1""#, false),
        (r#"request.query.x == "1""#, true),
        (r#"request.query.y == "1""#, false),
        (r#"client.ip in ["10.0.0.0/8", "::1"]"#, true),
        (r#"client.ip == "10.1.2.4""#, false),
        ("client.tls", false),
        ("!client.tls", true),
        (r#"has(client.certificate.subject)"#, false),
        ("claims.one == request.query.x", true),
        ("claims.role == consumer.username", false),
        ("claims.role != consumer.username", true),
        ("claims.nope != consumer.username", false),
    ] {
        check(text, want);
    }
}

#[test]
fn and_binds_before_or() {
    let (t, f) = ("claims.age == 18", "claims.age == 1");
    check(&format!("{t} || {t} && {f}"), true);
    check(&format!("({t} || {t}) && {f}"), false);
    check(&format!("{f} && {f} || {t}"), true);
    check(&format!("!({f}) && !!({t})"), true);
    check(&format!("!{f}"), true);
}

#[test]
fn mistakes_are_found_where_they_are() {
    let check = |text: &str, at: &str, want: &str| {
        let error = Expression::parse(text).expect_err(text);
        let help = error.help.clone().unwrap_or_default();
        assert_eq!(&text[error.range.clone()], at, "{text}: {error:?}");
        assert!(error.message.contains(want) || help.contains(want), "{text}: {error:?}");
    };
    check("", "", "expected a field");
    check("claims.role", "claims.role", "no condition by itself");
    check("claims.role = 'x'", "claims.role", "no condition by itself");
    check("claim.role == 'x'", "claim.role", "there is no field");
    check("request.mehtod == 'GET'", "request.mehtod", "did you mean `request.method`?");
    check("request.method == 7", "==", "does not compare a text with a number");
    check("request.method > 'GET'", ">", "does not compare");
    check("request.method in ['GET', 7]", "in", "does not compare");
    check("consumer.groups == 'x'", "==", "a list of texts with a text");
    check("client.ip in ['10.0.0.0/33']", "['10.0.0.0/33']", "CIDR");
    check("client.tls == 'x'", "==", "a truth value with a text");
    check("'x' == claims.y", "==", "on the left");
    check("claims.a matches '['", "'['", "not a regular expression");
    check("claims.a == 'x", "'x", "never closed");
    check("(claims.a == 'x'", "(", "never closed");
    check("claims.a == 'x' claims.b == 'y'", "c", "expected `&&`");
    check("claims.a in []", "[]", "empty");
    check("claims.a in ['x' 'y']", "'", "expected `,` or `]`");
    check("claims. == 'x'", "claims.", "there is no field");
    check("claims.a == 1.2.3", "1.2.3", "no number");
    check("has('x')", "has('x'", "takes a field");
    check("claims.a == admin", "admin", "there is no field");
    let deep = "(".repeat(65);
    check(&deep, "(", "nested more than 64");
}

/// Random expressions, well-formed and not: whatever is accepted can be asked of any claims without failing, negation
/// turns it round, and neither parser nor evaluation panics.
#[test]
fn whatever_is_accepted_holds_or_does_not() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    const PIECES: &[&str] = &[
        "claims.role",
        "claims.age",
        "claims.groups",
        "claims.none",
        "claims.o",
        "scopes",
        "consumer.username",
        "request.method",
        "client.ip",
        "client.tls",
        "\"admin\"",
        "'é'",
        "18",
        "-1.5",
        "true",
        "[\"x\", 1]",
        "[\"10.0.0.0/8\"]",
        "==",
        "!=",
        "<",
        ">=",
        "in",
        "contains",
        "starts_with",
        "matches",
        "&&",
        "||",
        "!",
        "(",
        ")",
        "has(",
        "[",
        "]",
        ",",
        "\\",
        "\"",
    ];
    let facts =
        [claims(), json!({}), json!([1]), json!({"role": 1, "age": "x", "groups": {"a": 1}, "o": [[]]})];
    let facts: Vec<Exchange> = facts.into_iter().map(exchange).collect();
    let mut accepted = 0;
    for round in 0..60_000 {
        // Every other one is a chain of comparisons, so that many are well-formed.
        let count = 1 + next(6);
        let text = (0..count)
            .map(|i| match round % 2 {
                0 => PIECES[next(PIECES.len())].to_owned(),
                _ => {
                    let joint = if i == 0 { "" } else { ["&& ", "|| ", "&& !"][next(3)] };
                    format!("{joint}{} {} {}", PIECES[next(10)], PIECES[17 + next(8)], PIECES[10 + next(7)])
                }
            })
            .collect::<Vec<_>>()
            .join(" ");
        let Ok(expression) = Expression::parse(&text) else { continue };
        accepted += 1;
        let negated = Expression::parse(&format!("!({text})")).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        for x in &facts {
            assert_ne!(expression.holds(&Facts(x)), negated.holds(&Facts(x)), "{text}");
        }
    }
    assert!(accepted > 500, "only {accepted} were well-formed");
}
