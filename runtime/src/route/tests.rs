//! What routes requests get, flavor by flavor.

use super::*;

/// A request, with `host[:port]`.
struct Request {
    method: &'static str,
    target: &'static str,
    host: &'static str,
    fields: &'static [(&'static str, &'static str)],
    sni: Option<&'static str>,
}

const GET: Request = Request { method: "GET", target: "/", host: "any.test", fields: &[], sni: None };

fn get(target: &'static str) -> Request {
    Request { target, ..GET }
}

fn at(host: &'static str) -> Request {
    Request { host, ..GET }
}

/// A route; `id` is its number, so that a later one wins ties.
#[derive(Default, Clone)]
struct R {
    hosts: &'static [&'static str],
    paths: &'static [&'static str],
    methods: &'static [&'static str],
    headers: &'static [(&'static str, &'static [&'static str])],
    snis: &'static [&'static str],
    regex_priority: i64,
    expression: Option<&'static str>,
    priority: u64,
    created_at: i64,
    protocols: &'static [&'static str],
}

fn paths(paths: &'static [&'static str]) -> R {
    R { paths, ..R::default() }
}

fn hosts(hosts: &'static [&'static str]) -> R {
    R { hosts, ..R::default() }
}

fn expression(expression: &'static str, priority: u64) -> R {
    R { expression: Some(expression), priority, ..R::default() }
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn specs(routes: &[R]) -> Vec<RouteSpec> {
    let spec = |(i, r): (usize, &R)| RouteSpec {
        index: i as u32,
        id: format!("00000000-0000-4000-8000-{i:012}"),
        methods: owned(r.methods),
        hosts: owned(r.hosts),
        paths: owned(r.paths),
        headers: r.headers.iter().map(|(n, v)| (n.to_string(), owned(v))).collect(),
        snis: owned(r.snis),
        regex_priority: r.regex_priority,
        expression: r.expression.map(str::to_owned),
        priority: r.priority,
        created_at: r.created_at,
        protocols: owned(r.protocols),
        ..RouteSpec::default()
    };
    routes.iter().enumerate().map(spec).collect()
}

fn find(routes: &[R], options: Options, request: &Request) -> Option<Match> {
    let (router, errors) = Router::new(specs(routes), options);
    assert_eq!(errors, []);
    let mut fields = Fields::default();
    request.fields.iter().for_each(|(n, v)| fields.push(n.as_bytes(), v.as_bytes()));
    let (raw, query) = request.target.split_once('?').unwrap_or((request.target, ""));
    let mut path = String::new();
    normalise(raw, &mut path).unwrap();
    let (host, port) = request.host.split_once(':').unwrap_or((request.host, "8000"));
    let query = Query {
        method: request.method,
        host,
        port: port.parse().unwrap(),
        path: &path,
        query,
        fields: &fields,
        sni: request.sni,
        source: "192.0.2.7:1234".parse().unwrap(),
        destination: "192.0.2.1:8000".parse().unwrap(),
    };
    let found = router.find(&query);
    let ranked = router.rank(&query);
    let first = ranked.iter().find(|c| c.matched).map(|c| c.route);
    assert_eq!(found.as_ref().map(|m| m.route), first, "rank and find disagree: {ranked:#?}");
    assert!(ranked.iter().all(|c| !c.reason.is_empty()));
    found
}

/// Each case: routes, request, number of the route found.
fn check(options: Options, cases: &[(&[R], Request, Option<u32>)]) {
    for (number, (routes, request, expected)) in cases.iter().enumerate() {
        let found = find(routes, options, request).map(|m| m.route);
        assert_eq!(found, *expected, "case {number}: {} {}", request.host, request.target);
    }
}

const COMPATIBLE: Options = Options { flavor: RouterFlavor::TraditionalCompatible, documented_order: false };
const DOCUMENTED: Options = Options { documented_order: true, ..COMPATIBLE };
const TRADITIONAL: Options = Options { flavor: RouterFlavor::Traditional, ..COMPATIBLE };
const EXPRESSIONS: Options = Options { flavor: RouterFlavor::Expressions, ..COMPATIBLE };

#[test]
fn hosts_match_exactly_or_by_one_wildcard_label_and_by_port() {
    let plain = [hosts(&["A.test", "b.test"]), hosts(&["a.test:321"]), hosts(&["c.test:321"])];
    let wild = [hosts(&["*.route.com"]), hosts(&["route.*"]), hosts(&["*.port.com:9"])];
    let mixed = [R { hosts: &["*.a.test", "b.test"], paths: &["/p"], methods: &["GET"], ..R::default() }];
    check(
        COMPATIBLE,
        &[
            (&plain, at("a.test"), Some(0)),
            (&plain, at("a.test:321"), Some(1)),
            (&plain, at("a.test:80"), Some(0)),
            (&plain, at("c.test:80"), None),
            (&plain, at("nope.test"), None),
            (&wild, at("foo.route.com"), Some(0)),
            (&wild, at("a.b.route.com"), Some(0)),
            (&wild, at("route.com"), Some(1)),
            (&wild, at("route.co.uk"), Some(1)),
            (&wild, at("xroute.com"), None),
            (&wild, at(".route.com"), Some(0)),
            (&wild, at("x.port.com:9"), Some(2)),
            (&wild, at("x.port.com:8"), None),
            (&mixed, Request { target: "/p", ..at("x.a.test") }, Some(0)),
            (&mixed, Request { target: "/p", method: "POST", ..at("b.test") }, None),
        ],
    );
}

#[test]
fn prefixes_are_bytes_and_the_longer_wins() {
    let nested = [paths(&["/my-route"]), paths(&["/my-route/hello"]), paths(&["/"])];
    let split = [paths(&["/a", "/bbbbbbb"]), paths(&["/a/bb"])];
    let mixed = [paths(&["/plain", "~/rx/\\d+"]), paths(&["/plain/longer"])];
    let escaped = [paths(&["/a%2Fb"])];
    check(
        COMPATIBLE,
        &[
            (&nested, get("/my-route"), Some(0)),
            (&nested, get("/my-route/hello/x"), Some(1)),
            (&nested, get("/my-routes"), Some(0)),
            (&nested, get("/my-rout"), Some(2)),
            (&nested, get("/My-Route"), Some(2)),
            (&split, get("/a/bb/x"), Some(1)),
            (&split, get("/bbbbbbb/x"), Some(0)),
            (&mixed, get("/plain/longer"), Some(1)),
            (&mixed, get("/rx/1"), Some(0)),
            (&escaped, get("/a%2fb"), Some(0)),
            (&escaped, get("/a/b"), None),
        ],
    );
}

#[test]
fn regexes_are_anchored_at_the_start_and_beat_prefixes() {
    let users = [paths(&["~/users/\\d+"])];
    let over = [paths(&["/route/fixture/long"]), paths(&["~/route/(fixture)"])];
    let priority = [
        R { regex_priority: 10, ..paths(&["~/status/re"]) },
        R { regex_priority: 5, ..paths(&["~/status/r"]) },
    ];
    let ignored = [R { regex_priority: 100, ..paths(&["/aa"]) }, paths(&["/aa/bb"])];
    let tie = [paths(&["~/t/\\d+"]), paths(&["~/t/[0-9]+"])];
    let alternation = [paths(&["~/x|/y"])];
    check(
        COMPATIBLE,
        &[
            (&users, get("/users/12/x"), Some(0)),
            (&users, get("/extra/users/12"), None),
            (&users, get("/Users/12"), None),
            (&over, get("/route/fixture/long"), Some(1)),
            (&priority, get("/status/re"), Some(0)),
            (&ignored, get("/aa/bb"), Some(1)),
            (&tie, get("/t/1"), Some(1)),
            // The anchor binds to the first branch only.
            (&alternation, get("/a/y"), Some(0)),
            (&alternation, get("/a/x"), None),
        ],
    );
    check(TRADITIONAL, &[(&alternation, get("/a/y"), None), (&alternation, get("/y"), Some(0))]);
}

#[test]
fn matches_say_how_much_of_the_path_and_what_the_groups_held() {
    type Groups = &'static [(&'static str, &'static str)];
    let cases: [(&[R], &str, usize, Groups); 6] = [
        (&[paths(&["/foo"])], "/foobar", 4, &[]),
        (&[hosts(&["any.test"])], "/foobar", 0, &[]),
        (&[paths(&["~/api/.*"])], "/api/a/b", 8, &[]),
        (&[paths(&["~/u/(?<id>\\d+)"])], "/u/7/x", 4, &[("1", "7"), ("id", "7")]),
        (&[paths(&["~/(u/)?7(x)$"])], "/7x", 3, &[("2", "x")]),
        (
            &[paths(&["~/u/(?P<n>[a-z ]+)/p"])],
            "/u/%6aohn%20doe/p",
            13,
            &[("1", "john doe"), ("n", "john doe")],
        ),
    ];
    for (routes, target, len, captures) in cases {
        let found = find(routes, COMPATIBLE, &Request { target, ..GET }).expect(target);
        assert_eq!(found.matched_len, len, "{target}");
        let shown: Vec<_> = found.captures.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(shown, captures, "{target}");
    }
}

#[test]
fn headers_match_any_value_without_case() {
    let one = R { headers: &[("Location", &["L1", "l2"])], ..R::default() };
    let two = R { headers: &[("location", &["l1"]), ("version", &["v1"])], ..R::default() };
    let agent = [R { headers: &[("user-agent", &["~*Windows|lin[u]x"])], ..R::default() }];
    let fields = |fields| Request { fields, ..GET };
    let both = [one.clone(), two];
    check(
        COMPATIBLE,
        &[
            (&both, fields(&[("location", "l2"), ("version", "v1")]), Some(0)),
            (&both, fields(&[("LOCATION", "l1"), ("version", "V1")]), Some(1)),
            (&both, fields(&[("location", "x"), ("location", "L2")]), Some(0)),
            (&both, fields(&[("location", "l1, l2")]), None),
            (&both, fields(&[]), None),
            (&agent, fields(&[("user-agent", "X11; LINUX x86")]), Some(0)),
            (&agent, fields(&[("user-agent", "curl")]), None),
        ],
    );
}

#[test]
fn server_names_count_on_tls_only() {
    let named = [R { snis: &["a.test."], ..paths(&["/"]) }];
    let wild = [R { snis: &["*.sni.test"], ..R::default() }, R { snis: &["sni.*"], ..R::default() }];
    let sni = |sni| Request { sni: Some(sni), ..GET };
    check(
        COMPATIBLE,
        &[
            (&named, GET, Some(0)),
            (&named, sni("a.test"), Some(0)),
            (&named, sni("A.test."), Some(0)),
            (&named, sni(""), None),
            (&wild, sni("foo.bar.sni.test"), Some(0)),
            (&wild, sni("sni.foo.bar"), Some(1)),
            (&wild, sni("foo.sni.test.bar"), None),
        ],
    );
}

/// The better route is the first, so that a tie, which the second would win, shows.
#[test]
fn routes_rank_in_the_real_order() {
    let request = || Request {
        target: "/p",
        host: "a.test",
        fields: &[("x-a", "1"), ("x-b", "1")],
        sni: Some("a.test"),
        ..GET
    };
    let header: &[(&str, &[&str])] = &[("x-a", &["1"])];
    let headers: &[(&str, &[&str])] = &[("x-a", &["1"]), ("x-b", &["1"])];
    let host = hosts(&["a.test"]);
    let wild = hosts(&["*.test"]);
    let path = paths(&["/p"]);
    let regex = paths(&["~/p"]);
    let cases = [
        // Plain hosts before everything.
        [host.clone(), R { paths: &["/p"], methods: &["GET"], ..wild.clone() }],
        [host.clone(), R { headers: header, ..regex.clone() }],
        // A regex before the number of kinds.
        [regex.clone(), R { methods: &["GET"], headers: header, ..path.clone() }],
        // Kinds before headers and length.
        [R { headers: header, methods: &["GET"], ..R::default() }, R { headers, ..R::default() }],
        // Headers before the length of the prefix.
        [R { headers, paths: &["/"], ..R::default() }, R { headers: header, ..path.clone() }],
        // Headers count in the bit above the regex priority.
        [R { regex_priority: 3, ..regex.clone() }, R { regex_priority: 2, ..regex.clone() }],
        [
            R { regex_priority: 4, headers: header, ..regex.clone() },
            R { regex_priority: 1, headers, ..regex.clone() },
        ],
        // Four kinds before everything else.
        [
            R { hosts: &["*.test"], methods: &["GET"], headers: header, ..path.clone() },
            R { hosts: &["a.test"], ..regex.clone() },
        ],
        [path, R { snis: &["a.test"], ..R::default() }],
    ];
    for (number, case) in cases.iter().enumerate() {
        assert_eq!(find(case, COMPATIBLE, &request()).map(|m| m.route), Some(0), "case {number}");
    }
    let one_kind_less = [hosts(&["a.test"]), R { paths: &["/p"], methods: &["GET"], ..wild }];
    assert_eq!(find(&one_kind_less, DOCUMENTED, &request()).map(|m| m.route), Some(1));
}

#[test]
fn the_traditional_flavor_ranks_by_category_and_age() {
    let by_age = [R { created_at: 2, ..paths(&["/a"]) }, R { created_at: 1, ..paths(&["/a"]) }];
    let host_over_path = [paths(&["/a/long"]), hosts(&["any.test"])];
    let unsplit = [paths(&["/a", "/bbbbbbb"]), paths(&["/a/bb"])];
    check(
        TRADITIONAL,
        &[
            (&by_age, get("/a"), Some(1)),
            (&host_over_path, get("/a/long"), Some(1)),
            (&unsplit, get("/a/bb"), Some(0)),
        ],
    );
    let found = find(&[paths(&["/a", "/a/b"])], TRADITIONAL, &get("/a/b/c")).unwrap();
    assert_eq!(found.matched_len, 4, "the longest prefix of a route is the one that is stripped");
}

#[test]
fn expressions_outrank_classic_routes_and_each_other_by_priority() {
    let ranked = [
        expression(r#"http.path ^= "/a""#, 1),
        expression(r#"http.path ^= "/""#, 2),
        hosts(&["any.test"]),
        expression(r#"http.host == "B.test" && http.path ~ "^/x/(\\d+)""#, 9),
    ];
    let secure = [R { protocols: &["http"], ..expression(r#"http.path ^= "/""#, 0) }];
    let only_https = [R { protocols: &["https"], ..expression(r#"http.path ^= "/""#, 0) }];
    let tls = || Request { sni: Some(""), ..GET };
    check(
        EXPRESSIONS,
        &[
            (&ranked, get("/a"), Some(1)),
            (&ranked[..1], get("/b"), None),
            (&ranked, Request { target: "/x/12", ..at("b.test") }, Some(3)),
            (&secure, GET, Some(0)),
            (&secure, tls(), None),
            (&only_https, GET, Some(0)),
        ],
    );
    let found = find(&ranked, EXPRESSIONS, &Request { target: "/x/12/y", ..at("b.test") }).unwrap();
    assert_eq!((found.matched_len, found.captures), (5, vec![("1".to_owned(), "12".to_owned())]));
}

#[test]
fn sources_and_destinations_are_criteria() {
    type Sources = &'static [(Option<&'static str>, Option<u16>)];
    let spec = |sources: Sources| RouteSpec {
        sources: sources.iter().map(|(ip, port)| (ip.map(str::to_owned), *port)).collect(),
        ..RouteSpec::default()
    };
    let fields = Fields::default();
    let query = Query {
        method: "GET",
        host: "a",
        port: 80,
        path: "/",
        query: "",
        fields: &fields,
        sni: None,
        source: "[::ffff:10.1.2.3]:99".parse().unwrap(),
        destination: "10.0.0.1:80".parse().unwrap(),
    };
    let cases: [(Sources, bool); 5] = [
        (&[(Some("10.0.0.0/8"), None)], true),
        (&[(Some("10.1.2.3"), Some(99))], true),
        (&[(Some("10.1.2.3"), Some(98))], false),
        (&[(Some("192.0.2.0/24"), None), (None, Some(99))], true),
        (&[(Some("::1"), None)], false),
    ];
    for (sources, expected) in cases {
        let (router, errors) = Router::new([spec(sources)], COMPATIBLE);
        assert_eq!(errors, []);
        assert_eq!(router.find(&query).is_some(), expected, "{sources:?}");
    }
    let (_, errors) = Router::new([spec(&[(Some("10.0.0"), None)])], COMPATIBLE);
    assert_eq!((errors[0].field, errors[0].item), ("sources", 0));
}

#[test]
fn a_route_that_cannot_be_compiled_is_left_out_whole() {
    let condition = expression(r#"http.path ^= "/zzz""#, 9);
    let bad = [paths(&["/ok", "~/a(?!b)"]), paths(&["/ok"]), hosts(&["ok.test", "*.x.*"]), condition];
    let (router, errors) = Router::new(specs(&bad), COMPATIBLE);
    let places: Vec<_> = errors.iter().map(|e| (e.route, e.field, e.item)).collect();
    assert_eq!(places, [(0, "paths", 1), (2, "hosts", 1), (3, "expression", 0)]);
    assert!(errors[0].help.is_some());
    let fields = Fields::default();
    let address = "192.0.2.1:1".parse().unwrap();
    let query = Query {
        method: "GET",
        host: "ok.test",
        port: 80,
        path: "/ok",
        query: "",
        fields: &fields,
        sni: None,
        source: address,
        destination: address,
    };
    assert_eq!(router.find(&query).map(|m| m.route), Some(1));
    assert_eq!(Router::default().find(&query), None);
}

#[test]
fn ranking_says_what_failed() {
    let routes = [
        R { paths: &["/p"], methods: &["PUT"], ..hosts(&["any.test"]) },
        R { paths: &["/p"], ..hosts(&["other.test", "*.x.test:81"]) },
        paths(&["/q", "/r"]),
        R { headers: &[("x-a", &["1"])], ..R::default() },
        paths(&["/"]),
    ];
    let (router, _) = Router::new(specs(&routes), COMPATIBLE);
    let fields = Fields::default();
    let address = "192.0.2.1:1".parse().unwrap();
    let query = Query {
        method: "GET",
        host: "any.test",
        port: 80,
        path: "/p",
        query: "",
        fields: &fields,
        sni: None,
        source: address,
        destination: address,
    };
    let shown: Vec<_> = router.rank(&query).into_iter().map(|c| (c.route, c.matched, c.reason)).collect();
    let expected = [
        (0, false, "method `GET` is not among `PUT`"),
        (1, false, "host `any.test` (port 80) is not among `other.test`, `*.x.test:81`"),
        (3, false, "header `x-a` is absent; expected `1`"),
        (2, false, "path `/p` does not match `/q`, `/r`"),
        (4, true, "path `/`"),
    ];
    // Routes 0 and 1 differ in kinds: three before two. A split route is listed once for each length.
    assert_eq!(shown.iter().map(|(r, m, t)| (*r, *m, t.as_str())).collect::<Vec<_>>(), expected);
}
