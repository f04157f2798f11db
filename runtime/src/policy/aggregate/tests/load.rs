//! What is known before a request comes: mistakes, and the worst case.

use super::*;

#[test]
fn mistakes_are_found_at_load() {
    let a = "- { name: a, service: users, path: /a";
    for (config, want) in [
        (
            "parts:\n- { name: a, service: users, path: \"/$(parts.b.x)\" }\n- { name: b, service: users, path: \"/$(parts.c.x)\" }\n\
             - { name: c, service: users, path: \"/$(parts.a.x)\" }\n",
            "2:40 error parts wait for each other: a -> b -> c -> a [3:40 `b` needs `c`] [4:40 `c` needs `a`]",
        ),
        (
            "parts: [{ name: a, service: users, path: \"/$(parts.a)\" }]",
            "error parts wait for each other: a -> a",
        ),
        (&format!("parts:\n{a}/$(parts.b.c) }}\n"), "2:41 error there is no part `b`"),
        (
            &format!("parts:\n{a}, into: /x }}\n{a}, into: /y }}\n"),
            "3:11 error two parts are called `a` [2:11 the first one]",
        ),
        ("parts: [{ name: a-b, service: users, path: /a }]", "error `a-b` cannot be the name of a part"),
        ("parts: [{ name: a, service: user, path: /a }]", "error there is no service `user`"),
        ("parts: [{ name: a, service: calls, path: /a }]", "error the service `calls` speaks gRPC alone"),
        ("parts: [{ name: a, service: users, path: a }]", "error the path of a part begins with `/`"),
        ("parts: [{ name: a, service: users, path: /a, method: POST }]", "error `POST` may change something"),
        ("parts: []", "error an aggregate without parts"),
        ("parts: [{ name: a, service: users, path: \"/$(item.x)\" }]", "error there is no `item`"),
        (
            "parts: [{ name: a, service: users, path: \"/$(parts)\" }]",
            "error which part is meant must be plain",
        ),
        ("parts: [{ name: a, service: users, path: /a, fallback: oops }]", "error `oops` is no fallback"),
        (
            "parts: [{ name: a, service: users, path: /a, fallback: [], required: true }]",
            "error a part that is required has no use",
        ),
        ("parts: [{ name: a, service: users, path: /a, into: \"/x~\" }]", "error `/x~` is no JSON pointer"),
        (
            "parts: [{ name: a, service: users, path: /a, for_each: \"$(body.l)\" }]",
            "error `a` is a list and cannot be merged",
        ),
        (
            "parts: [{ name: a, service: users, path: /a, into: /x, for_each: \"x$(body.l)\" }]",
            "error `for_each` is one",
        ),
        (&format!("parts:\n{a} }}\nvariants: [{{ drop: [/a] }}]"), "error a variant for everybody"),
        (
            &format!("parts:\n{a} }}\nvariants: [{{ when: {{ consumer_group: [gld] }} }}]"),
            "error there is no consumer group `gld`",
        ),
        (
            &format!("parts:\n{a} }}\nvariants: [{{ when: {{ header: {{ x: '~(' }} }} }}]"),
            "error `~(` is no regular expression",
        ),
        (
            &format!("parts:\n{a} }}\nresponse_headers: [{{ name: X, from: [b] }}]"),
            "error there is no part `b`",
        ),
        (
            &format!("parts:\n{a} }}\n- {{ name: b, service: users, path: /b, into: /price }}\n"),
            "3:46 warning `a` and `b` may both write `/price` [2:11 `a` writes here]",
        ),
        (
            &format!(
                "parts:\n{a}, select: [price] }}\n- {{ name: b, service: users, path: /b, into: /price }}\n"
            ),
            "3:46 error `a` and `b` both write `/price` [2:11 `a` writes here]",
        ),
    ] {
        let (_, found) = compiled(config, &Arc::default());
        assert!(found.iter().any(|f| f.contains(want)), "{config}\n{found:#?}\nlacks {want}");
        assert_eq!(found.len(), 1, "{config}\n{found:#?}");
    }
    for fine in [
        format!("parts:\n{a}, select: [n] }}\n- {{ name: b, service: users, path: /b, into: /price }}\n"),
        format!("parts:\n{a}, drop: [price] }}\n- {{ name: b, service: users, path: /b, into: /price }}\n"),
        format!(
            "parts:\n{a}, rename: {{ price: old }} }}\n- {{ name: b, service: users, path: /b, into: /price }}\n"
        ),
        format!(
            "parts:\n{a} }}\n- {{ name: b, service: users, path: /b, into: /price, on_conflict: last }}\n"
        ),
        format!("parts:\n{a}, select: [x] }}\n- {{ name: b, service: users, path: /b, select: [y] }}\n"),
    ] {
        assert_eq!(compiled(&fine, &Arc::default()).1, Vec::<String>::new(), "{fine}");
    }
}

#[test]
fn the_worst_case_is_the_longest_chain() {
    let config = "deadline: 1000\nparts:\n- { name: a, service: users, path: /a, into: /a, timeout: 100 }\n\
                  - { name: b, service: users, path: \"/$(parts.a.x)\", into: /b, timeout: 50, for_each: \"$(parts.a.l)\", max_items: 7 }\n\
                  - { name: c, service: users, path: /c, into: /c, timeout: 120 }\n\
                  - { name: d, service: users, path: \"/$(parts.c.x)\", into: /d }\n";
    assert_eq!(policy(config).plan().worst_case(), (vec![100, 200, 120, 1000], 1000));
}
