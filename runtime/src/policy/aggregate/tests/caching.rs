use super::*;

const PART: &str = "name: a, service: users, path: /a, into: /x, cache_for: 60, forward_headers: [X-User]";

fn of(user: &str) -> String {
    format!("GET /\nX-User: {user}")
}

#[test]
fn a_fresh_answer_is_given_again_to_the_same_call_alone() {
    let policy = policy(&format!("parts: [{{ {PART} }}]"));
    let first = World::new("users GET /a 1 200 {\"of\":1}\n  Cache-Control: max-age=100\n  Age: 40");
    let (answer, fields, _) = ask(&policy, &mut first.clone(), &of("ann"));
    assert_eq!((answer.as_str(), parts(&fields).as_str()), (r#"200 {"x":{"of":1}}"#, "a;status=200"));
    let mut second = World::new("users GET /a 1 200 {\"of\":2}");
    let (answer, fields, _) = ask(&policy, &mut second, &of("ann"));
    assert_eq!((answer.as_str(), parts(&fields).as_str()), (r#"200 {"x":{"of":1}}"#, "a;status=200;cached"));
    assert_eq!(second.log, Vec::<String>::new());
    let cache_control = fields.iter().find(|(n, _)| n == "Cache-Control").map(|(_, v)| v.as_str());
    assert_eq!(cache_control, Some("max-age=60"));
    let (answer, ..) = ask(&policy, &mut second, &of("bob"));
    assert_eq!(answer, r#"200 {"x":{"of":2}}"#);
}

#[test]
fn what_may_not_be_kept_is_asked_for_again() {
    for (given, fields) in [
        ("200 1", "Cache-Control: no-store"),
        ("200 1", "Cache-Control: private"),
        ("200 1", "Set-Cookie: a=1"),
        ("404 1", "Cache-Control: max-age=60"),
        ("200 nojson", "Cache-Control: max-age=60"),
    ] {
        let policy = policy(&format!("parts: [{{ {PART}, fallback: null }}]"));
        ask(&policy, &mut World::new(&format!("users GET /a 1 {given}\n  {fields}")), &of("ann"));
        let mut second = World::new("users GET /a 1 200 2");
        let (answer, ..) = ask(&policy, &mut second, &of("ann"));
        assert_eq!(answer, r#"200 {"x":2}"#, "{given} {fields}");
    }
}

#[test]
fn parts_that_wait_go_on_from_what_is_kept_and_lists_ask_for_the_rest() {
    let config = "
parts:
- { name: list, service: inventory, path: /list, cache_for: 60, into: /list }
- { name: each, service: users, path: \"/u/$(item)\", for_each: $(parts.list), cache_for: 60, into: /each }
";
    let policy = policy(config);
    let first = "inventory GET /list 1 200 [1,2]\nusers GET /u/1 1 200 \"a\"\nusers GET /u/2 1 200 \"b\"\n  Cache-Control: no-store";
    ask(&policy, &mut World::new(first), "GET /");
    let mut second = World::new("users GET /u/2 1 200 \"c\"");
    let (answer, ..) = ask(&policy, &mut second, "GET /");
    assert_eq!(answer, r#"200 {"list":[1,2],"each":["a","c"]}"#);
    assert_eq!(second.log, ["0 users GET /u/2"]);
}

#[test]
fn clients_that_have_the_answer_are_told_so() {
    let policy = policy("parts: [{ name: a, service: users, path: /a }]");
    let world = World::new("users GET /a 1 200 {\"of\":1}\n  Cache-Control: max-age=9");
    let tag = |fields: &[(String, String)]| {
        fields.iter().find(|(n, _)| n.eq_ignore_ascii_case("etag")).map(|(_, v)| v.clone())
    };
    let (answer, fields, _) = ask(&policy, &mut world.clone(), "GET /");
    assert_eq!(answer, r#"200 {"of":1}"#);
    let own = tag(&fields).expect("a tag");
    for (given, want) in [
        (format!("If-None-Match: {own}"), "304 "),
        (format!("If-None-Match: \"x\", W/{own}"), "304 "),
        ("If-None-Match: \"x\"".to_owned(), r#"200 {"of":1}"#),
    ] {
        let (answer, fields, _) = ask(&policy, &mut world.clone(), &format!("GET /\n{given}"));
        assert_eq!((answer.as_str(), tag(&fields)), (want, Some(own.clone())), "{given}");
        assert!(fields.iter().any(|(n, _)| n == "Cache-Control"), "{given}");
    }
    let silent = World::new("users GET /a 1 200 {}\n  Cache-Control: no-store");
    let (_, fields, _) = ask(&policy, &mut silent.clone(), "GET /");
    assert_eq!(tag(&fields), None);
    let (_, found) = compiled(
        "parts: [{ name: a, service: users, path: /a, method: POST, unsafe: true, cache_for: 1 }]",
        &Arc::default(),
    );
    assert!(found.iter().any(|f| f.contains("answers to `POST` are not kept")), "{found:?}");
}
