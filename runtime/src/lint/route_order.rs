//! Routes that get in each other's way.

use std::collections::HashSet;

use super::Facts;
use super::ranking::{Atom, atoms, hosts_overlap, pairs};
use crate::diag::{Diagnostic, Diags, codes};

pub const DUPLICATE_DOC: &str = "\
## What it does
Finds routes that ask exactly the same of a request.

## Why
Only one of them can win, the other never gets a request. Which one is hard to foresee: of equal routes the one with the
greater id wins, and where the file gives none the id is computed from the name.

## Example
```yaml
routes:
  - { name: a, paths: [/orders] }
  - { name: b, paths: [/orders] }
```

## Use instead
Delete one, or let them differ: `methods`, `hosts`, `headers` or a longer path.
";

pub const SHADOWED_DOC: &str = "\
## What it does
Finds routes, or single paths of them, that another route hides: it matches every request that they match, and wins.

## Why
The hidden route is dead, and its plugins with it: an authenticator on it never asks anybody.

## Example
```yaml
routes:
  - { name: all, paths: [\"~/api\"] }            # a regex beats every prefix
  - { name: users, paths: [/api/users] }
```

## Use instead
Make the hidden route more specific, or the hiding one narrower. `gw explain METHOD URL` shows which route a request
takes.
";

pub const BOUNDARY_DOC: &str = "\
## What it does
Finds prefixes that also match the beginning of another route's longer name, where requests can fall through to them.

## Why
A prefix is compared byte by byte: `/admin` matches `/admin-api` too. Requests that the longer route does not take, for
example because of their method, then land on the shorter one, with its service and its plugins.

## Example
```yaml
routes:
  - { name: admin, paths: [/admin] }
  - { name: api, paths: [/admin-api], methods: [GET] }    # POST /admin-api goes to admin
```

## Use instead
End the prefix with a slash, or use a regex that ends the segment:
```yaml
paths: [\"~/admin(/|$)\"]
```
";

pub const ORDER_DOC: &str = "\
## What it does
Finds pairs of routes for which Kong's real order and its documented order pick different winners.

## Why
The documentation says that the number of kinds of conditions counts first. What Kong computes puts routes with plain
hosts first, then regex paths, then the number of kinds. gw does what Kong does, so that a migrated config behaves as
before; whoever wrote it by the documentation is in for a surprise.

## Example
```yaml
routes:
  - { name: a, paths: [\"~/x\"] }
  - { name: b, paths: [/x], methods: [GET] }     # documented winner for GET /x; the real one is a
```

## Use instead
Make the conditions disjoint, or choose the documented order: `gateway: { router_order: documented }`.
";

/// Reports routes and paths that are never reached.
pub fn hidden(facts: &Facts<'_>, diags: &mut Diags) {
    let atoms = atoms(facts);
    let documented = facts.model.gateway.router_order_documented;
    let mut seen = HashSet::new();
    pairs(&atoms, |a, b| {
        for (winner, loser) in [(a, b), (b, a)] {
            if winner.covers(loser)
                && winner.beats(loser, documented)
                && seen.insert(std::ptr::from_ref(loser))
            {
                diags.push(hidden_by(facts, winner, loser));
            }
        }
    });
}

fn hidden_by(facts: &Facts<'_>, winner: &Atom<'_>, loser: &Atom<'_>) -> Diagnostic {
    let (win, lose) = (facts.route_name(winner.route), facts.route_name(loser.route));
    let what = match loser.path {
        Some(path) if loser.entity.name.is_some() => format!("path `{}` of route {lose}", path.value),
        _ => format!("route {lose}"),
    };
    let same = loser.covers(winner);
    let (code, why) = match same {
        true => (&codes::DUPLICATE_ROUTE, "asks the same of a request and wins"),
        false => (&codes::SHADOWED_ROUTE, "matches all its requests and wins"),
    };
    let tie = winner.prefix() == loser.prefix() && winner.is_regex() == loser.is_regex();
    let d = Diagnostic::new(code, loser.span(facts), format!("{what} is never reached: route {win} {why}"))
        .label("no request gets here")
        .also(winner.span(facts), "this one gets them all");
    match (same, winner.is_regex() && !loser.is_regex()) {
        (true, _) => d
            .note("of equal routes the one with the greater id wins; without an `id` it is computed from the name")
            .help("delete one of them, or let them differ in `methods`, `hosts`, `headers` or path"),
        (false, true) => d
            .note("a regex path wins over every prefix")
            .help("make the regex narrower, or this path a regex with a greater `regex_priority`"),
        (false, false) if tie => {
            d.note("where all else is equal the greater id wins").help("narrow the route that wins, or delete this one")
        }
        (false, false) => d.help("narrow the route that wins, or add conditions to this one"),
    }
}

/// Reports prefixes that take what another route leaves.
pub fn boundary(facts: &Facts<'_>, diags: &mut Diags) {
    let atoms = atoms(facts);
    let mut seen = HashSet::new();
    pairs(&atoms, |short, long| {
        let (Some(a), Some(b)) = (short.prefix(), long.prefix()) else { return };
        let inside_segment = !a.ends_with('/') && b.as_bytes().get(a.len()).is_some_and(|c| *c != b'/');
        if !inside_segment || !hosts_overlap(short.entity, long.entity) {
            return;
        }
        let left = match (&long.entity.methods, &short.entity.methods, &long.entity.headers) {
            (long, short, _)
                if !long.is_empty() && (short.is_empty() || short.iter().any(|m| !has(long, m))) =>
            {
                "with other methods"
            }
            (_, _, headers) if !headers.is_empty() && short.entity.headers.is_empty() => {
                "without its headers"
            }
            _ => return,
        };
        if seen.insert(std::ptr::from_ref(short)) {
            let (name, other) = (facts.route_name(short.route), facts.route_name(long.route));
            diags.push(
                Diagnostic::new(
                    &codes::PREFIX_WITHOUT_BOUNDARY,
                    short.span(facts),
                    format!(
                        "route {name} takes requests for `{b}` {left}: its prefix `{a}` ends within a segment"
                    ),
                )
                .label(format!("also matches `{b}`"))
                .also(long.span(facts), format!("route {other} leaves requests {left}"))
                .help(format!("write `{a}/`, or `~{a}(/|$)` to match `{a}` itself too")),
            );
        }
    });
}

fn has(methods: &[crate::source::Spanned<String>], method: &str) -> bool {
    methods.iter().any(|m| m.value == method)
}

/// Reports pairs that the documented order would decide otherwise.
pub fn differs(facts: &Facts<'_>, diags: &mut Diags) {
    if facts.model.gateway.router_order_documented {
        return;
    }
    let atoms = atoms(facts);
    let mut seen = HashSet::new();
    pairs(&atoms, |a, b| {
        let (real, documented) = (a.beats(b, false), a.beats(b, true));
        if real == documented || !a.overlaps(b) || !seen.insert((a.route, b.route)) {
            return;
        }
        let (winner, loser) = if real { (a, b) } else { (b, a) };
        let (win, lose) = (facts.route_name(winner.route), facts.route_name(loser.route));
        diags.push(
            Diagnostic::new(
                &codes::ROUTER_ORDER_DIFFERS,
                winner.span(facts),
                format!("requests that match both routes {win} and {lose} go to {win}; by Kong's documentation {lose} wins"),
            )
            .label("wins")
            .also(loser.span(facts), "would win by the documented order")
            .note("gw picks as Kong really does")
            .help("make their conditions disjoint, or set `gateway: { router_order: documented }`"),
        );
    });
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    fn routes(lines: &[&str]) -> String {
        format!("_format_version: '3.0'\nroutes:\n{}\n", lines.join("\n"))
    }

    #[test]
    fn equal_routes_are_reported_once() {
        let id = |n: u8| format!("00000000-0000-4000-8000-00000000000{n}");
        let (a, b) = (
            format!("- {{id: {}, name: a, paths: [/x], methods: [GET, POST]}}", id(1)),
            format!("- {{id: {}, name: b, paths: [/x], methods: [POST, GET]}}", id(2)),
        );
        let found = ["3: path `/x` of route `a` is never reached: route `b` asks the same"];
        check(&codes::DUPLICATE_ROUTE, &routes(&[&a, &b]), &found);
        check(&codes::SHADOWED_ROUTE, &routes(&[&a, &b]), &[]);
    }

    #[test]
    fn a_regex_hides_the_prefixes_below_it() {
        let regex = "- {name: all, paths: ['~/api']}";
        let found =
            ["4: path `/api/users` of route `users` is never reached: route `all` matches all its requests"];
        check(&codes::SHADOWED_ROUTE, &routes(&[regex, "- {name: users, paths: [/api/users]}"]), &found);
        for other in
            ["- {name: users, paths: [/other]}", "- {name: users, paths: [/api/users], hosts: [a.test]}"]
        {
            check(&codes::SHADOWED_ROUTE, &routes(&[regex, other]), &[]);
        }
        let longer = ["- {name: a, paths: [/api]}", "- {name: b, paths: [/api/users]}"];
        check(&codes::SHADOWED_ROUTE, &routes(&longer), &[]);
    }

    #[test]
    fn a_prefix_that_ends_within_a_segment_is_dangerous_only_where_requests_fall_through() {
        let admin = "- {name: admin, paths: [/admin]}";
        let found = ["3: route `admin` takes requests for `/admin-api` with other methods"];
        let api = |rest: &str| format!("- {{name: api, paths: [/admin-api]{rest}}}");
        check(&codes::PREFIX_WITHOUT_BOUNDARY, &routes(&[admin, &api(", methods: [GET]")]), &found);
        check(&codes::PREFIX_WITHOUT_BOUNDARY, &routes(&[admin, &api("")]), &[]);
    }

    #[test]
    fn the_real_order_is_told_where_it_is_not_the_documented_one() {
        let pair = ["- {name: a, paths: ['~/x']}", "- {name: b, paths: [/x], methods: [GET]}"];
        check(
            &codes::ROUTER_ORDER_DIFFERS,
            &routes(&pair),
            &["3: requests that match both routes `a` and `b` go to `a`"],
        );
        let pair = ["- {name: a, paths: ['~/x']}", "- {name: b, paths: [/x]}"];
        check(&codes::ROUTER_ORDER_DIFFERS, &routes(&pair), &[]);
    }
}
