use super::*;
use crate::model::schema::{HEADER, PORT, STR, TEXT};
use crate::yaml::{self, Budget};

const INNER: &[Field] = &[
    Field::new("host", TEXT, "A host.").required(),
    Field::new("port", PORT, "A port.").default("6379"),
    Field::new("password", Kind::Str(Rule::Uuid), "A secret.").secret(),
];

const TABLE: &[Field] = &[
    Field::new("name", TEXT, "A name."),
    Field::new("mode", Kind::Enum(&["local", "redis"]), "A mode.").default("\"local\""),
    Field::new("count", Kind::Int { min: 1, max: 10 }, "A count."),
    Field::new("big", Kind::Int { min: 1, max: i64::MAX }, "A big count."),
    Field::new("ratio", Kind::Num { min: 0.0, max: 1.0 }, "A ratio."),
    Field::new("on", Kind::Bool, "A switch.").default("true"),
    Field::new("names", Kind::List(&STR), "Names.").default("[\"x\"]"),
    Field::new("kinds", Kind::Set(&Kind::Enum(&["exp", "nbf"])), "Kinds."),
    Field::new("labels", Kind::Map(&STR), "Labels."),
    Field::new("header", HEADER, "A header."),
    Field::new("redis", Kind::Record(INNER), "Redis."),
    Field::new("any", Kind::Any, "Anything."),
    Field::new("service", Kind::Ref("services"), "A service."),
];

/// The record in short, and the findings with the text that they point at.
fn outcome(text: &str) -> (String, Vec<String>) {
    let mut sources = Sources::default();
    let file = sources.add("t.yaml", text);
    let yaml::Parsed { tree, mut diags, .. } = yaml::parse(&sources, file, &Budget::default());
    let tree = tree.unwrap_or_else(|| panic!("{text}: {diags:?}"));
    let record = Reader::new(&sources, &mut diags).record(&tree, TABLE, "a thing");
    let shown =
        record.fields.iter().filter(|f| f.given).map(|f| format!("{}={}", f.name, show(&f.value.value)));
    let shown = shown.collect::<Vec<_>>().join(" ");
    (shown, diags.iter().map(|d| format!("[{}] {}", sources.text(d.primary.span), d.message)).collect())
}

fn show(value: &Val) -> String {
    match value {
        Val::Null => "null".to_owned(),
        Val::Bool(b) => b.to_string(),
        Val::Int(n) => n.to_string(),
        Val::Num(n) => format!("{n:?}"),
        Val::Str(s) => s.clone(),
        Val::List(items) => {
            format!("[{}]", items.iter().map(|i| show(&i.value)).collect::<Vec<_>>().join(","))
        }
        Val::Map(entries) => {
            format!(
                "{{{}}}",
                entries
                    .iter()
                    .map(|(k, v)| format!("{}:{}", k.value, show(&v.value)))
                    .collect::<Vec<_>>()
                    .join(",")
            )
        }
        Val::Record(r) => format!(
            "({})",
            r.fields
                .iter()
                .map(|f| format!("{}={}", f.name, show(&f.value.value)))
                .collect::<Vec<_>>()
                .join(" ")
        ),
    }
}

#[track_caller]
fn check(text: &str, record: &str, findings: &[&str]) {
    let (got, found) = outcome(text);
    assert_eq!(got, record, "{text}\n{found:?}");
    assert_eq!(found, findings, "{text}");
}

#[test]
fn values_of_every_kind_are_read() {
    check(
        "{name: a, mode: redis, count: 3, ratio: 0.5, on: false, names: [a, b], kinds: [exp, exp], labels: {a: b}, header: X-A}",
        "name=a mode=redis count=3 ratio=0.5 on=false names=[a,b] kinds=[exp] labels={a:b} header=X-A",
        &[],
    );
    check(
        "{count: 3.0, redis: {host: h}, any: [1, {a: b}]}",
        "count=3 redis=(host=h port=6379) any=[1,{a:b}]",
        &[],
    );
    check("{service: s}", "service=s", &[]);
    check("{service: {id: s}}", "service=s", &[]);
    check("{names: {}, labels: []}", "names=[] labels={}", &[]);
    check("{name: ~, _comment: x, _ignore: [1]}", "", &[]);
}

#[test]
fn every_mistake_is_found_in_one_run() {
    check(
        "nam: a\nmode: rdis\ncount: 11\nratio: x\non: yes\n",
        "",
        &[
            "[nam] unknown field `nam` in a thing",
            "[rdis] `mode`: expected one of: local, redis",
            "[11] `count`: value should be between 1 and 10",
            "[x] `ratio`: expected a number",
            "[yes] `on`: expected a boolean",
        ],
    );
    check("name: 3.0", "", &["[3.0] `name`: expected a string"]);
    check("names: a", "", &["[a] `names`: expected an array"]);
    check("names: [a, 1]", "names=[a]", &["[1] `names[1]`: expected a string"]);
    check("kinds: [iss]", "kinds=[]", &["[iss] `kinds[0]`: expected one of: exp, nbf"]);
    check("count: 1.5", "", &["[1.5] `count`: expected an integer"]);
    check("count: '3'", "", &["['3'] `count`: expected an integer"]);
    check("big: 0", "", &["[0] `big`: value must be greater than 0"]);
    check("redis: {port: 1}", "redis=(port=1)", &["[port: 1] required field missing: `redis.host`"]);
    check("redis: {host: ~}", "redis=(port=6379)", &["[host] required field missing: `redis.host`"]);
    check(
        "redis: {host: h, prot: 1}",
        "redis=(host=h port=6379)",
        &["[prot] unknown field `prot` in `redis` of this record"],
    );
    check(
        "header: a b",
        "",
        &[
            "[a b] `header`: bad header name 'a b', allowed characters are letters, digits and !#$%&'*+-.^_`|~",
        ],
    );
    check("labels: [a]", "", &["[[a]] `labels`: expected a map"]);
    check("[a]", "", &["[[a]] expected a record"]);
    check("name: {vault://env/x}", "", &["[vault://env/x] `name`: expected a string"]);
}

#[test]
fn defaults_are_filled_in_and_null_takes_them_away() {
    let read = |text: &str| {
        let mut sources = Sources::default();
        let file = sources.add("t.yaml", text);
        let yaml::Parsed { tree, mut diags, .. } = yaml::parse(&sources, file, &Budget::default());
        let tree = tree.unwrap_or_else(|| panic!("{text}: {diags:?}"));
        let record = Reader::new(&sources, &mut diags).record(&tree, TABLE, "a thing");
        assert!(diags.is_empty(), "{diags:?}");
        record
    };
    let record = read("{}");
    assert_eq!(record.str("mode"), Some("local"));
    assert_eq!(record.bool_opt("on"), Some(true));
    assert_eq!(record.strings("names").len(), 1);
    assert!(!record.given("mode") && record.get("count").is_none());
    assert_eq!(read("{mode: ~, on: null}").str("mode"), None);
}

#[test]
fn secrets_are_not_shown() {
    let (_, found) = outcome("redis: {host: h, password: hunter2}");
    assert_eq!(found, ["[hunter2] `redis.password`: expected a valid UUID, not `(secret)`"]);
}
