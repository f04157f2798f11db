use prost_reflect::{DescriptorPool, ReflectMessage as _};
use serde_json::{Value as Json, json};

use super::*;
use crate::message::Fields;
use crate::policy::testing::exchange;

const PROTO: &str = r#"
syntax = "proto3";
package lib;
import "google/api/annotations.proto";
import "google/api/httpbody.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/any.proto";
enum Kind { ANY = 0; NOVEL = 1; }
message Author { string given_name = 1; int32 born = 2; }
message Book {
  string name = 1; Kind kind = 2; int64 copies = 3; bytes cover = 4; repeated string tags = 5; Author author = 6;
  google.protobuf.Timestamp added = 7; google.protobuf.Duration loan = 8; google.protobuf.BoolValue lent = 9;
  google.protobuf.Struct extra = 10; double price = 11; bool rare = 12; map<string, int32> marks = 13;
  google.protobuf.Any about = 14; oneof place { string shelf = 15; uint32 box = 16; }
}
message Create { string parent = 1; Book book = 2; bool dry_run = 3; }
message Books { repeated Book books = 1; }
service Library {
  rpc Get(Book) returns (Book) {
    option (google.api.http) = { get: "/v1/{name=shelves/*/books/*}" additional_bindings { get: "/v1/books/{name}" } };
  }
  rpc Create(Create) returns (Book) { option (google.api.http) = { post: "/v1/{parent=shelves/*}/books" body: "book" }; }
  rpc Put(Book) returns (Book) { option (google.api.http) = { put: "/v1/{author.given_name}/book" body: "*" }; }
  rpc List(Book) returns (Books) { option (google.api.http) = { get: "/v1/books" response_body: "books" }; }
  rpc Watch(Book) returns (stream Book) { option (google.api.http) = { get: "/v1/watch" }; }
  rpc Load(stream Book) returns (Books) { option (google.api.http) = { post: "/v1/load" body: "*" }; }
  rpc Page(Book) returns (google.api.HttpBody) { option (google.api.http) = { custom: { kind: "*" path: "/page" } }; }
  rpc Hidden(Book) returns (Book);
}
"#;

fn pool_of(text: &str) -> DescriptorPool {
    struct One(String);
    impl protox::file::FileResolver for One {
        fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
            match name {
                "t.proto" => protox::file::File::from_source(name, &self.0),
                _ => proto::Api.open_file(name),
            }
        }
    }
    let mut all = protox::file::ChainFileResolver::new();
    all.add(One(text.to_owned()));
    all.add(protox::file::GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(all);
    compiler.open_file("t.proto").and_then(|c| c.open_file("google/rpc/status.proto")).expect("it compiles");
    compiler.descriptor_pool()
}

fn policy(strict: bool, defaults: bool) -> GrpcGateway {
    let mapping = Mapping {
        write: SerializeOptions::new().skip_default_fields(!defaults),
        read: DeserializeOptions::new().deny_unknown_fields(strict),
        strict,
    };
    GrpcGateway { rules: Some(Rules::read(&pool_of(PROTO)).expect("the rules are right")), mapping }
}

/// Asserts which method a request is for, and its messages as JSON, or how it is refused.
fn asks(request: (&str, &str, &str), want: Result<(&str, Json), &str>) {
    let policy = policy(true, false);
    let (verb, target, body) = request;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let got = match policy.rules.as_ref().expect("rules").find(verb, path) {
        Found::Nothing => Err("nothing".to_owned()),
        Found::OtherMethods(verbs) => Err(format!("only {}", verbs.join(","))),
        Found::Rule(_, rule, captures) => {
            policy.messages(rule, &captures, query, body.as_bytes()).map(|messages| {
                let json = |m: &DynamicMessage| {
                    // Over the wire and back.
                    let m = transcode::decode(&m.descriptor(), &transcode::encode(m)).expect("a message");
                    let bytes = policy.mapping.write(&m, None, 10_000).expect("it has a form in JSON");
                    serde_json::from_slice::<Json>(&bytes).expect("JSON")
                };
                (rule.method.name().to_owned(), Json::Array(messages.iter().map(json).collect()))
            })
        }
    };
    match want {
        Ok((method, json)) => assert_eq!(got, Ok((method.to_owned(), json)), "{request:?}"),
        Err(part) => {
            let error = got.expect_err(&format!("{request:?}"));
            assert!(error.contains(part), "{request:?}: {error}");
        }
    }
}

#[test]
fn requests_become_messages() {
    let ok = |method, json: Json| Ok((method, json));
    asks(("GET", "/v1/shelves/1/books/2", ""), ok("Get", json!([{"name": "shelves/1/books/2"}])));
    asks(("GET", "/v1/books/a%20b", ""), ok("Get", json!([{"name": "a b"}])));
    asks(
        (
            "GET",
            "/v1/books/x?kind=NOVEL&copies=9007199254740993&tags=a&tags=b&author.givenName=N&author.born=1970&lent=true&rare=true&loan=1.5s&added=2020-01-02T03:04:05Z&cover=AP8=&price=1.5&name=no",
            "",
        ),
        ok(
            "Get",
            json!([{"name": "x", "kind": "NOVEL", "copies": "9007199254740993", "tags": ["a", "b"],
            "author": {"givenName": "N", "born": 1970}, "lent": true, "rare": true, "loan": "1.500s",
            "added": "2020-01-02T03:04:05Z", "cover": "AP8=", "price": 1.5}]),
        ),
    );
    asks(("GET", "/v1/books/x?kind=1", ""), ok("Get", json!([{"name": "x", "kind": "NOVEL"}])));
    asks(("GET", "/v1/books/x?kind=nope", ""), Err("`kind`"));
    asks(("GET", "/v1/books/x?rare=yes", ""), Err("`rare`"));
    asks(("GET", "/v1/books/x?author.born=12x", ""), Err("`born`"));
    asks(("GET", "/v1/books/x?author.born=1&author.born=2", ""), Err("more than once"));
    asks(("GET", "/v1/books/x?author=1", ""), Err("cannot be given as a text"));
    asks(("GET", "/v1/books/x?marks=1", ""), Err("cannot be given as a text"));
    asks(("GET", "/v1/books/x?nope=1", ""), Err("no field `nope`"));
    asks(
        (
            "POST",
            "/v1/shelves/3/books?dry_run=true",
            r#"{"name":"n","marks":{"a":1},"extra":{"x":[1,null]}}"#,
        ),
        ok(
            "Create",
            json!([{"parent": "shelves/3", "dryRun": true, "book": {"name": "n", "marks": {"a": 1}, "extra": {"x": [1.0, null]}}}]),
        ),
    );
    asks(("POST", "/v1/shelves/3/books", ""), ok("Create", json!([{"parent": "shelves/3"}])));
    asks(
        (
            "PUT",
            "/v1/Jo/book?price=3",
            r#"{"copies":"5","author":{"given_name":"Al","born":3},"about":{"@type":"t/lib.Author","born":9}}"#,
        ),
        ok(
            "Put",
            json!([{"copies": "5", "author": {"givenName": "Jo", "born": 3}, "about": {"@type": "t/lib.Author", "born": 9}}]),
        ),
    );
    asks(("PUT", "/v1/Jo/book", "{\"copies\":1,\"copies\":2}"), Err("has this name already"));
    asks(("PUT", "/v1/Jo/book", "{\"copies\":\"x\"}"), Err("invalid"));
    asks(("PUT", "/v1/Jo/book", "{\"nope\":1}"), Err("nope"));
    asks(("PUT", "/v1/Jo/book", "[1]"), Err("invalid type"));
    asks(
        ("PUT", "/v1/Jo/book", &format!("{}1{}", "[".repeat(100), "]".repeat(100))),
        Err("nested deeper than 64"),
    );
    asks(("PUT", "/v1/Jo/book", r#"{"shelf":"a","box":1}"#), Err("oneof"));
    asks(
        ("POST", "/v1/load", "{\"name\":\"a\"}\n\n{\"name\":\"b\"}\n"),
        ok("Load", json!([{"name": "a"}, {"name": "b"}])),
    );
    asks(("POST", "/v1/load", "{\"name\":\"a\"}\n{"), Err("line 2"));
    asks(("BREW", "/page", ""), ok("Page", json!([{}])));
    asks(("DELETE", "/v1/books/x", ""), Err("only GET"));
    asks(("GET", "/v1/nothing/here", ""), Err("nothing"));
}

/// The policy's answer where the service answered so, to a request that was for `path`.
fn answer(defaults: bool, path: &str, messages: &[Json], ending: &[(&str, &str)]) -> (u16, String, String) {
    let policy = policy(false, defaults);
    let Found::Rule(rule, found, captures) = policy.rules.as_ref().expect("rules").find("GET", path) else {
        panic!("{path} has a rule")
    };
    let output = found.method.output();
    let mut body = Vec::new();
    for message in messages {
        let message = policy.mapping.message(&output, message.to_string().as_bytes()).expect("a message");
        grpc::push_frame(&mut body, &transcode::encode(&message));
    }
    let mut x = exchange(&format!("GET {path}"));
    x.keep(Asked { rule, captures });
    let mut trailers = Fields::default();
    ending.iter().for_each(|(n, v)| trailers.push(n.as_bytes(), v.as_bytes()));
    let response = CallResponse {
        status: 200,
        fields: Fields::default(),
        body: body.into(),
        trailers,
        took: std::time::Duration::ZERO,
    };
    let Flow::Reply(reply) = policy.resume(&mut x, Answer::Call(vec![Ok(response)])) else {
        panic!("a reply")
    };
    let text = String::from_utf8(reply.body.to_vec()).expect("text");
    (reply.status, reply.content_type.unwrap_or_default().into_owned(), text)
}

#[test]
fn messages_become_answers() {
    let check =
        |defaults, path: &str, messages: &[Json], ending: &[(&str, &str)], want: (u16, &str, &str)| {
            let (status, kind, body) = answer(defaults, path, messages, ending);
            assert_eq!((status, kind.as_str(), body.as_str()), want, "{path} {messages:?} {ending:?}");
        };
    let fine = [("grpc-status", "0")];
    check(
        false,
        "/v1/books/x",
        &[json!({"name": "x", "copies": "7"})],
        &fine,
        (200, JSON, r#"{"name":"x","copies":"7"}"#),
    );
    check(false, "/v1/books", &[json!({"books": [{"name": "x"}]})], &fine, (200, JSON, r#"[{"name":"x"}]"#));
    check(true, "/v1/books", &[json!({})], &fine, (200, JSON, "[]"));
    check(
        false,
        "/v1/watch",
        &[json!({"name": "a"}), json!({"name": "b"})],
        &fine,
        (200, LINES, "{\"name\":\"a\"}\n{\"name\":\"b\"}\n"),
    );
    check(
        false,
        "/v1/watch",
        &[json!({"name": "a"})],
        &[("grpc-status", "15"), ("grpc-message", "lost%21")],
        (200, LINES, "{\"name\":\"a\"}\n{\"error\":{\"code\":15,\"message\":\"lost!\",\"details\":[]}}\n"),
    );
    check(
        false,
        "/v1/watch",
        &[],
        &[("grpc-status", "7")],
        (403, JSON, r#"{"code":7,"message":"","details":[]}"#),
    );
    check(
        false,
        "/v1/books/x",
        &[],
        &[
            ("grpc-status", "5"),
            ("grpc-message", "no%20%C3%A9"),
            ("grpc-status-details-bin", "CAUSAm5vGhcKDHQvbGliLkF1dGhvchIHCgJKbxCyDw=="),
        ],
        (
            404,
            JSON,
            r#"{"code":5,"message":"no é","details":[{"@type":"t/lib.Author","givenName":"Jo","born":1970}]}"#,
        ),
    );
    let page = json!({"contentType": "text/html", "data": "PGI+"});
    check(false, "/page", &[page], &fine, (200, "text/html", "<b>"));
    check(
        false,
        "/v1/books/x",
        &[],
        &fine,
        (
            502,
            JSON,
            r#"{"code":13,"message":"the service's answer cannot be used: it has 0 messages","details":[]}"#,
        ),
    );
    let (_, _, all) = answer(true, "/v1/books/x", &[json!({})], &fine);
    let all: Json = serde_json::from_str(&all).expect("JSON");
    assert_eq!(
        all,
        json!({"name": "", "kind": "ANY", "copies": "0", "cover": "", "tags": [], "price": 0.0, "rare": false, "marks": {}})
    );
}

#[test]
fn answers_stay_within_bounds() {
    let pool = pool_of(PROTO);
    let any = pool.get_message_by_name("google.protobuf.Any").expect("it is imported");
    let mut message = DynamicMessage::new(any.clone());
    for _ in 0..20 {
        let mut outer = DynamicMessage::new(any.clone());
        outer.set_field_by_name("type_url", Value::String("t/google.protobuf.Any".to_owned()));
        outer.set_field_by_name("value", Value::Bytes(transcode::encode(&message).into()));
        message = outer;
    }
    let mapping = policy(false, true).mapping;
    assert!(mapping.write(&message, None, 1 << 20).expect_err("too deep").contains("within each other"));
    let books = pool.get_message_by_name("lib.Books").expect("it is there");
    let books = transcode::decode(&books, &[0x0a, 0].repeat(1000)).expect("a thousand empty books");
    assert!(mapping.write(&books, None, 10_000).expect_err("too long").contains("longer than allowed"));
}

#[test]
fn rules_that_cannot_be_are_refused() {
    let check = |option: &str, want: &str| {
        let text = format!(
            "syntax = \"proto3\"; package p; import \"google/api/annotations.proto\"; message M {{ string a = 1; M m = 2; \
             repeated string l = 3; }} service S {{ rpc R(M) returns (M) {{ option (google.api.http) = {{ {option} }}; }} }}"
        );
        let error = Rules::read(&pool_of(&text)).expect_err(option);
        assert!(error.contains("`p.S.R`") && error.contains(want), "{option}: {error}");
    };
    check("get: \"a\"", "must begin with `/`");
    check("get: \"/{b}\"", "no field `b`");
    check("get: \"/{m}\"", "cannot be taken from a path");
    check("get: \"/{l}\"", "cannot be taken from a path");
    check("post: \"/a\" body: \"x\"", "no field `x`");
    check("get: \"/a\" response_body: \"x\"", "no field `x`");
    check("body: \"*\"", "no path");
    check("get: \"/a\" additional_bindings { get: \"b\" }", "must begin with `/`");
}
