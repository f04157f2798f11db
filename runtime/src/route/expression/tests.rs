use super::*;
use crate::message::Fields;
use crate::route::Query;

fn fields(pairs: &[(&str, &str)]) -> Fields {
    let mut fields = Fields::default();
    pairs.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
    fields
}

/// A GET of `/users/42/x/?a=1&a=2&q=a%20b&flag` from 10.1.2.3 port 4000 over TLS with SNI a.test.
fn check(cases: &[(&str, bool)]) {
    let fields = fields(&[("X-Tag", "One"), ("x-tag", "two"), ("User-Agent", "curl")]);
    let query = Query {
        method: "GET",
        host: "api.a.test",
        port: 8443,
        path: "/users/42/x/",
        query: "a=1&a=2&q=a%20b&flag",
        fields: &fields,
        sni: Some("a.test"),
        source: "10.1.2.3:4000".parse().unwrap(),
        destination: "192.0.2.1:8443".parse().unwrap(),
    };
    for (text, expected) in cases {
        let expression = compile(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
        assert_eq!(expression.eval(&query).is_some(), *expected, "{text}");
        assert!(!expression.failure(&query).is_empty());
    }
}

#[test]
fn comparisons_hold_as_their_operators_say() {
    check(&[
        (r#"http.method == "GET""#, true),
        (r#"http.method != "GET""#, false),
        (r#"http.host == "API.a.test""#, true),
        (r#"http.host =^ ".a.test""#, true),
        (r#"http.host ~ "^API""#, true),
        (r#"http.path ^= "/users""#, true),
        (r##"http.path ~ r#"^/users/\d+"#"##, true),
        (r#"http.path ~ "\\d{3}""#, false),
        (r#"http.path contains "/42/""#, true),
        (r#"http.method in "GET,HEAD""#, true),
        (r#"http.method not in "GET,HEAD""#, false),
        (r#"lower(http.path) == "/users/42/x/""#, true),
        (r#"http.path.segments.0 == "users""#, true),
        (r#"http.path.segments.1_2 == "42/x""#, true),
        (r#"http.path.segments.0_3 ^= "users""#, false),
        (r#"http.path.segments.3 != "z""#, false),
        ("http.path.segments.len == 3", true),
        ("http.path.segments.len >= 0x4", false),
        (r#"http.queries.q == "a b""#, true),
        (r#"http.queries.flag == """#, true),
        (r#"http.queries.absent != "1""#, false),
        (r#"tls.sni == "a.test" && net.protocol == "https""#, true),
        ("net.src.ip in 10.0.0.0/8", true),
        ("net.src.ip not in 10.0.0.0/8", false),
        ("net.src.ip == 10.1.2.3", true),
        ("net.src.ip in fd00::/8", false),
        ("net.dst.port == 8443 && net.src.port < 5000", true),
    ]);
}

#[test]
fn all_values_of_a_field_must_fit_unless_any_is_asked_for() {
    check(&[
        (r#"http.headers.x_tag == "two""#, false),
        (r#"any(http.headers.x_tag) == "two""#, true),
        (r#"any(lower(http.headers.x_tag)) == "one""#, true),
        (r#"lower(any(http.headers.x_tag)) == "one""#, true),
        (r#"http.headers.x_tag != "three""#, true),
        (r#"http.headers.user_agent ^= "cu""#, true),
        (r#"http.headers.absent != "x""#, false),
        (r#"http.queries.a ~ "^[12]$""#, true),
        (r#"http.queries.a == "1""#, false),
    ]);
}

#[test]
fn and_and_or_bind_alike_from_left_to_right() {
    let (t, f) = (r#"http.method == "GET""#, r#"http.method == "PUT""#);
    check(&[
        (&format!("{t} || {t} && {f}"), false),
        (&format!("{t} || ({t} && {f})"), true),
        (&format!("{f} && {t} || {t}"), true),
        (&format!("!({f}) && !(!({t}))"), true),
    ]);
}

#[test]
fn errors_point_into_the_expression_and_help() {
    let cases = [
        (r#"http.pth == "/a""#, "http.pth", "unknown field", "`http.path`"),
        (r#"http.path == /a"#, "/a", "text in quotes", "\"/a\""),
        (r#"http.path > "/a""#, ">", "does not compare", ""),
        (r#"http.path == 5"#, "5", "compared with a text in quotes, not with a number", ""),
        (r#"net.src.ip in "10.0.0.0/8""#, "\"10.0.0.0/8\"", "without quotes", ""),
        ("net.src.ip in 10.0.0.1/8", "10.0.0.1/8", "beyond its prefix", "10.0.0.0/8"),
        ("net.src.ip == 10.0.0.0/8", "==", "with a CIDR", ""),
        (r#"http.headers.x-a == "1""#, "-", "unexpected `-`", "x_api_key"),
        (r#"(http.path == "/a""#, "(", "never closed", ""),
        (r#"http.path == "/a"#, "\"", "never closed", ""),
        (r#"http.path ~ "a(?!b)""#, "\"a(?!b)\"", "look-around", "regex_priority"),
        (r#"http.path ~ "\d""#, "\\d", "unknown escape", "raw text"),
        (r#"http.path == "/a" http.method == "GET""#, "h", "`&&`, `||` or the end", ""),
        (r#"! http.path == "/a""#, "h", "expected `(`", "parentheses"),
        (r#"upper(http.path) == "/A""#, "upper", "unknown function", ""),
        (r#"lower(net.src.port) == 1"#, "net.src.port", "takes a text", ""),
        (r#"http.path.segments.x == "a""#, "http.path.segments.x", "is not a segment", ""),
        ("", "", "expected a field", ""),
        (r#"http.path "#, "", "expected an operator", ""),
    ];
    for (text, place, message, help) in cases {
        let error = compile(text).expect_err(text);
        assert_eq!(&text[error.range.clone()], place, "{text}: {error:?}");
        assert!(error.message.contains(message), "{text}: {}", error.message);
        assert_eq!(error.help.is_some(), !help.is_empty(), "{text}: {error:?}");
        assert!(error.help.unwrap_or_default().contains(help), "{text}");
    }
    let deep = format!("{}http.method == \"GET\"{}", "(".repeat(5000), ")".repeat(5000));
    assert!(compile(&deep).unwrap_err().message.contains("nested"));
    let long = vec!["http.method == \"GET\""; 5000].join(" && ");
    assert!(compile(&long).unwrap_err().message.contains("comparisons"));
}

#[test]
fn the_index_learns_hosts_and_beginnings_of_paths() {
    let cases = [
        (r#"http.host == "A.test" && http.path ^= "/v1""#, Some("a.test"), Some("/v1")),
        (r#"http.path ^= "/v" && http.path ~ "^/v1/\\d""#, None, Some("/v1/")),
        (r#"http.host =^ ".a" || http.host ^= "a.""#, Some("*.a a.*"), None),
        (r#"http.host =^ "test" && http.path == "/x""#, None, Some("/x")),
        (r#"http.path ^= "/a" || http.path == "/b""#, None, Some("/a /b")),
        (r#"http.path ^= "/a" || http.method == "GET""#, None, None),
        (r#"!(http.path ^= "/a")"#, None, None),
        (r#"lower(http.path) ^= "/a""#, None, None),
        (r#"http.path ~ "/a""#, None, None),
    ];
    for (text, hosts, prefixes) in cases {
        let keys = compile(text).unwrap().keys();
        let shown = keys.hosts.map(|h| h.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        assert_eq!(shown.as_deref(), hosts, "{text}");
        assert_eq!(keys.prefixes.map(|p| p.join(" ")).as_deref(), prefixes, "{text}");
    }
}
