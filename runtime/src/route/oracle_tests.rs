//! The index against a plain reading of the rules: every route, every criterion, first in order.

use super::*;

/// Marsaglia's xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % n
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn some<T: ToString>(&mut self, from: &[T], percent: usize, most: usize) -> Vec<String> {
        if !self.chance(percent) {
            return Vec::new();
        }
        let mut picked: Vec<String> = Vec::new();
        for _ in 0..=self.below(most) {
            let item = from[self.below(from.len())].to_string();
            if !picked.contains(&item) {
                picked.push(item);
            }
        }
        picked
    }
}

const HOSTS: [&str; 10] = [
    "a.test",
    "b.test",
    "x.a.test",
    "*.test",
    "*.a.test",
    "a.*",
    "x.*",
    "a.test:81",
    "*.a.test:81",
    "B.Test",
];
const PATHS: [&str; 16] = [
    "/",
    "/a",
    "/a/b",
    "/a/bc",
    "/ab",
    "/a/b/c",
    "/b",
    "/b/",
    "~/a",
    "~/a/[a-z]+",
    "~/(a|b)/b",
    "~/b/?c*",
    "~/a|/b$",
    "~(?i)/A/B",
    "~/a/b\\.c",
    "~/.*c$",
];
const METHODS: [&str; 3] = ["GET", "POST", "PUT"];
const VALUES: [&str; 4] = ["one", "Two", "~*^t", "~*e$"];
const REQUEST_HOSTS: [&str; 6] = ["a.test", "b.test", "x.a.test", "y.x.a.test", "a.org", "nope"];
const REQUEST_PATHS: [&str; 12] =
    ["/", "/a", "/a/b", "/a/b/c", "/a/bc/d", "/abc", "/b", "/b/c", "/bcc", "/a/b.c", "/zzz", "/x/b"];

fn random_route(random: &mut Random, index: usize) -> RouteSpec {
    let mut headers = Vec::new();
    for name in ["x-a", "x-b"] {
        let values = random.some(&VALUES, 15, 2);
        if !values.is_empty() {
            headers.push((name.to_owned(), values));
        }
    }
    RouteSpec {
        index: index as u32,
        id: format!("{:08x}-0000-4000-8000-{index:012}", random.below(usize::MAX) as u32),
        hosts: random.some(&HOSTS, 60, 3),
        paths: random.some(&PATHS, 75, 4),
        methods: random.some(&METHODS, 25, 2),
        snis: random.some(&["s.test", "*.test", "s.*"], 10, 2),
        regex_priority: random.below(3) as i64,
        created_at: random.below(3) as i64,
        headers,
        ..RouteSpec::default()
    }
}

/// Whether one path of a route matches, by the text of the reference alone.
fn path_matches(path: &str, request: &str, flavor: RouterFlavor) -> bool {
    match path.strip_prefix('~') {
        Some(regex) if flavor == RouterFlavor::Traditional => {
            regex::Regex::new(&format!("^(?:{regex})")).unwrap().is_match(request)
        }
        Some(regex) => regex::Regex::new(&format!("^{regex}")).unwrap().is_match(request),
        None => request.starts_with(path),
    }
}

fn host_matches(pattern: &str, query: &Query<'_>) -> bool {
    let pattern = pattern.to_lowercase();
    let (host, port) = pattern.split_once(':').unwrap_or((&pattern, ""));
    let fits = if let Some(end) = host.strip_prefix('*') {
        query.host.ends_with(end)
    } else if let Some(start) = host.strip_suffix('*') {
        query.host.starts_with(start)
    } else {
        query.host == host
    };
    fits && (port.is_empty() || port == query.port.to_string())
}

fn rest_matches(spec: &RouteSpec, query: &Query<'_>) -> bool {
    let header = |(name, values): &(String, Vec<String>)| {
        query.fields.iter().any(|(field, value)| {
            let value = String::from_utf8_lossy(value).to_lowercase();
            field.eq_ignore_ascii_case(name.as_bytes())
                && values.iter().any(|v| match v.strip_prefix("~*") {
                    Some(regex) => regex::Regex::new(&regex.to_lowercase()).unwrap().is_match(&value),
                    None => v.to_lowercase() == value,
                })
        })
    };
    let sni = |pattern: &String| match query.sni {
        None => true,
        Some(sni) if pattern.starts_with('*') => sni.ends_with(&pattern[1..]),
        Some(sni) if pattern.ends_with('*') => sni.starts_with(&pattern[..pattern.len() - 1]),
        Some(sni) => sni == pattern,
    };
    (spec.methods.is_empty() || spec.methods.iter().any(|m| m == query.method))
        && spec.headers.iter().all(header)
        && (spec.snis.is_empty() || spec.snis.iter().any(sni))
        && (spec.hosts.is_empty() || spec.hosts.iter().any(|h| host_matches(h, query)))
}

/// The best route that matches: all parts of all routes, ranked by key and id.
fn oracle(specs: &[RouteSpec], options: Options, query: &Query<'_>) -> Option<u32> {
    let mut best: Option<(order::Key, String, std::cmp::Reverse<u32>)> = None;
    for spec in specs.iter().filter(|s| rest_matches(s, query)) {
        let mut groups: std::collections::BTreeMap<String, Vec<&str>> = std::collections::BTreeMap::new();
        for path in &spec.paths {
            let group = match options.flavor {
                RouterFlavor::Traditional => String::new(),
                _ if path.starts_with('~') => "true".to_owned(),
                _ => path.len().to_string(),
            };
            groups.entry(group).or_default().push(path);
        }
        if groups.is_empty() {
            groups.insert(String::new(), Vec::new());
        }
        for (suffix, paths) in groups {
            if !paths.is_empty() && !paths.iter().any(|p| path_matches(p, query.path, options.flavor)) {
                continue;
            }
            let space = uuid::uuid!("7f145bf9-0dce-4f91-98eb-debbce4b9f6b");
            let id = match options.flavor {
                RouterFlavor::Traditional => String::new(),
                _ if spec.paths.len() < 2 => spec.id.clone(),
                _ => uuid::Uuid::new_v5(&space, format!("{}#{suffix}", spec.id).as_bytes()).to_string(),
            };
            let place = (order::key(spec, &paths, options), id, std::cmp::Reverse(spec.index));
            if best.as_ref().is_none_or(|b| place > *b) {
                best = Some(place);
            }
        }
    }
    best.map(|(.., std::cmp::Reverse(index))| index)
}

#[test]
fn the_index_finds_what_reading_every_route_finds() {
    let seed =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_nanos() as u64);
    let mut random = Random(seed | 1);
    let options =
        [(false, false), (false, true), (true, false)].map(|(traditional, documented_order)| Options {
            flavor: if traditional { RouterFlavor::Traditional } else { RouterFlavor::TraditionalCompatible },
            documented_order,
        });
    let mut found = 0;
    for _ in 0..60 {
        let specs: Vec<_> = (0..=random.below(30)).map(|i| random_route(&mut random, i)).collect();
        let options = options[random.below(3)];
        let (router, errors) = Router::new(specs.clone(), options);
        assert_eq!(errors, [], "seed {seed}");
        for _ in 0..60 {
            let mut fields = Fields::default();
            for name in ["X-A", "x-b", "x-a"] {
                if random.chance(40) {
                    fields.push(name.as_bytes(), ["one", "TWO", "three"][random.below(3)].as_bytes());
                }
            }
            let query = Query {
                method: METHODS[random.below(3)],
                host: REQUEST_HOSTS[random.below(6)],
                port: [80, 81][random.below(2)],
                path: REQUEST_PATHS[random.below(12)],
                query: "",
                fields: &fields,
                sni: [None, Some("s.test"), Some("s.org"), Some("")][random.below(4)],
                source: "192.0.2.7:1".parse().unwrap(),
                destination: "192.0.2.1:80".parse().unwrap(),
            };
            let expected = oracle(&specs, options, &query);
            let actual = router.find(&query).map(|m| m.route);
            assert_eq!(actual, expected, "seed {seed}\n{query:?}\n{options:?}\n{specs:#?}");
            let ranked = router.rank(&query).into_iter().find(|c| c.matched).map(|c| c.route);
            assert_eq!(ranked, expected, "seed {seed}: rank differs");
            found += usize::from(expected.is_some());
        }
    }
    assert!(found > 500, "the requests hardly ever match: {found} of 3600");
}
