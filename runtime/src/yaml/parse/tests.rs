use std::fmt::Write as _;

use super::*;
use crate::yaml::Core;

/// A tree as JSON-like text, plain scalars as they mean, texts in quotes.
fn show(node: &Node<'_>) -> String {
    match &node.value {
        Value::Scalar(s) => match s.core() {
            Core::Null => "null".to_owned(),
            Core::Bool(b) => b.to_string(),
            Core::Int(n) => n.to_string(),
            Core::Float(n) => format!("{n:?}"),
            Core::Text => format!("{:?}", s.text),
        },
        Value::Sequence(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Mapping(entries) => {
            let entries: Vec<_> = entries.iter().map(|e| format!("{}: {}", e.key, show(&e.value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Broken => "BROKEN".to_owned(),
    }
}

/// The tree and the findings as `LINE:COL message`.
fn outcome(text: &str) -> (String, Vec<String>) {
    let mut sources = Sources::default();
    let file = sources.add("t.yaml", text);
    let Parsed { tree, diags, .. } = parse(&sources, file, &Budget::default());
    let found = diags.iter().map(|d| {
        let p = sources.line_col(d.primary.span);
        format!("{}:{} {}", p.line, p.col, d.message)
    });
    (tree.as_ref().map_or_else(|| "NONE".to_owned(), show), found.collect())
}

#[track_caller]
fn check(text: &str, tree: &str, findings: &[&str]) {
    let (got, found) = outcome(text);
    assert_eq!(got, tree, "{text}");
    assert_eq!(found.len(), findings.len(), "{text}\n{found:#?}");
    for (got, expected) in found.iter().zip(findings) {
        assert!(got.contains(expected), "{got:?} lacks {expected:?}");
    }
}

#[test]
fn texts_become_trees() {
    check("a: 1\nb: [x, 'y', \"z\\n\"]\n", r#"{a: 1, b: ["x", "y", "z\n"]}"#, &[]);
    check("v: \"3.0\"\nw: 3.0\nx: yes\ny: ~\nz:\n", r#"{v: "3.0", w: 3.0, x: "yes", y: null, z: null}"#, &[]);
    check("{\"a\": {\"b\": [1, true, null, \"é\\u00e9\"]}}", r#"{a: {b: [1, true, null, "éé"]}}"#, &[]);
    check("{\n\t\"a\": [\n\t\t1,\n\t\t2\n\t]\n}\n", "{a: [1, 2]}", &[]);
    check(
        "cert: |\n  -----BEGIN-----\n  abc\nnext: >-\n  a\n  b\n",
        r#"{cert: "-----BEGIN-----\nabc\n", next: "a b"}"#,
        &[],
    );
    check("- - a\n  - b\n- {}\n- []\n", r#"[["a", "b"], {}, []]"#, &[]);
    check("a: !!str 3\nb: ! 4\nc: !!int 5\n", r#"{a: "3", b: "4", c: 5}"#, &[]);
    check(
        "path: ~/a/[0-9]+$\nre: a#b\nurl: http://x:80/y\n",
        r##"{path: "~/a/[0-9]+$", re: "a#b", url: "http://x:80/y"}"##,
        &[],
    );
    check("\u{feff}a: 1\r\nb: 2\r\n", "{a: 1, b: 2}", &[]);
    check("", "NONE", &[]);
    check("# only a comment\n", "NONE", &[]);
    check("---\na: 1\n...\n", "{a: 1}", &[]);
}

#[test]
fn anchors_aliases_and_merge_keys_are_resolved() {
    check("a: &x {b: 1}\nc: *x\n", "{a: {b: 1}, c: {b: 1}}", &[]);
    check("d: &d {a: 1, b: 2}\ne: {<<: *d, b: 3}\n", "{d: {a: 1, b: 2}, e: {b: 3, a: 1}}", &[]);
    check("e: {<<: [{a: 1}, {a: 2, b: 3}]}\n", "{e: {a: 1, b: 3}}", &[]);
    check("e: {'<<': 1}\n", "{e: {<<: 1}}", &[]);
    check("e: {<<: 1}\n", "{e: {}}", &["1:5 a merge key"]);
    check("a: &anchor 1\nb: *anchr\n", "{a: 1, b: BROKEN}", &["2:4 no anchor `&anchr`"]);
    check("a: &x [*x]\n", "{a: [BROKEN]}", &["1:8 an alias cannot stand inside"]);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    check("a: 1\nb: 2\na: 3\n", "{a: 1, b: 2}", &["3:1 the key `a` stands twice"]);
    check("a: 1\n---\nb: 2\n", "NONE", &["2:1 the file has more than one YAML document"]);
    check("a: [1, 2\n", "NONE", &["1:"]);
    check("a: \"x\n", "NONE", &["1:"]);
    check("a:\n\t- b\n", "NONE", &["2:"]);
    check("a: b: c\n", "NONE", &["1:"]);
    check("{{ x }}: 1\n", "BROKEN", &["a key must be text"]);
    check("a: !thing 1\n", r#"{a: "1"}"#, &["1:4 a tag means nothing"]);
    check("a: {secret: ${X}}\n", "NONE", &["1:"]);
}

#[test]
fn budgets_stop_bombs() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..9 {
        let _ = writeln!(bomb, "a{i}: &a{i} [{}]", vec![format!("*a{}", i - 1); 10].join(", "));
    }
    check(&bomb, "NONE", &["aliases copy more than 10000 values"]);
    check(&format!("{}{}", "[".repeat(100), "]".repeat(100)), "NONE", &["nested more than 64 levels deep"]);
    check(&"- ".repeat(100), "NONE", &["nested more than 64 levels deep"]);
}

#[test]
fn spans_cover_what_they_name() {
    let mut sources = Sources::default();
    let text = "a:\n  b: [1, 'é']\n  c: {d: e}\nf: g\n";
    let file = sources.add("t.yaml", text);
    let Parsed { tree, .. } = parse(&sources, file, &Budget::default());
    let tree = tree.expect("the text is well-formed");
    let a = tree.get("a").expect("the key is there");
    for (node, expected) in [
        (a, "b: [1, 'é']\n  c: {d: e}"),
        (a.get("b").expect("the key is there"), "[1, 'é']"),
        (a.get("c").expect("the key is there"), "{d: e}"),
        (tree.get("f").expect("the key is there"), "g"),
    ] {
        assert_eq!(sources.text(node.span), expected);
    }
    assert_eq!(sources.text(tree.entries()[1].key_span), "f");
    assert_eq!(sources.text(a.get("c").expect("the key is there").head()), "d: e");
}

#[test]
fn a_big_file_is_read_in_linear_time() {
    let mut text = String::from("routes:\n");
    for i in 0..5_000 {
        let _ = writeln!(
            text,
            "  - name: route-{i}\n    paths: [\"/api/{i}\"]\n    methods: [GET, POST]\n    strip_path: false"
        );
    }
    let mut sources = Sources::default();
    let file = sources.add("big.yaml", text);
    let Parsed { tree, diags, .. } = parse(&sources, file, &Budget::default());
    assert!(diags.is_empty());
    let tree = tree.expect("the text is well-formed");
    assert!(
        matches!(&tree.get("routes").expect("the key is there").value, Value::Sequence(s) if s.len() == 5_000)
    );
}
