//! Requests before and after their transformation.

use serde_json::json;

use super::*;
use crate::policy::testing::{self, check, compile, refuses};

type P = RequestTransformer;

#[test]
fn headers_are_transformed() {
    let add = json!({"add": {"headers": ["h1:v1", "h2:value:2"]}});
    check::<P>(add.clone(), "GET /", "next\n> h1: v1\n> h2: value:2");
    check::<P>(add, "GET /\nh1: v3", "next\n> h1: v3\n> h2: value:2");
    check::<P>(json!({"remove": {"headers": ["X-Gone"]}}), "GET /\nx-gone: 1\nx-gone: 2", "next\n> x-gone:");
    let rename = json!({"rename": {"headers": ["x-a:x-b"]}});
    check::<P>(rename.clone(), "GET /\nx-a: 1\nX-B: 2", "next\n> x-a:\n> x-b: 1");
    check::<P>(rename, "GET /\nx-b: 2", "next\n> x-b: 2");
    let replace = json!({"replace": {"headers": ["h1:v1", "host:mark.test"]}});
    check::<P>(replace.clone(), "GET /\nh1: V", "next\n> h1: v1\nhost mark.test");
    check::<P>(replace, "GET /", "next\n> h1:");
    let ignored = json!({"add": {"headers": ["host:x"]}, "append": {"headers": ["Host:x"]}});
    check::<P>(ignored, "GET /", "next\nhost");
    let append = json!({"append": {"headers": ["h1:v2", "h2:v1"]}});
    check::<P>(append, "GET /\nh1: v1", "next\n> h1: v1, v2\n> h2: v1");
    let both =
        json!({"remove": {"headers": ["Authorization"]}, "add": {"headers": ["Authorization:Basic test"]}});
    check::<P>(both, "GET /\nAuthorization: Basic x", "next\n> Authorization: Basic test");
}

#[test]
fn queries_are_transformed() {
    for (config, query, want) in [
        (json!({"remove": {"querystring": ["q1"]}}), "?q1=a&b=1%202", "b=1%202"),
        (json!({"remove": {"querystring": ["q1"]}}), "?q1=a", ""),
        (json!({"rename": {"querystring": ["a:b"]}}), "?a=1&b=2", "b=1"),
        (json!({"rename": {"querystring": ["a:b"]}}), "?b=2", "b=2"),
        (json!({"replace": {"querystring": ["q1:v1"]}}), "?q2=v2&q1=v", "q1=v1&q2=v2"),
        (json!({"replace": {"querystring": ["q1:v1"]}}), "?q2=v2", "q2=v2"),
        (json!({"add": {"querystring": ["q1:a b"]}}), "", "q1=a%20b"),
        (
            json!({"append": {"querystring": ["q1:v1", "q1:v2", "q2:v1"]}}),
            "?q1=v0",
            "q1=v0&q1=v1&q1=v2&q2=v1",
        ),
        (json!({"add": {"headers": ["a:b"]}}), "?z=+&a", "z=+&a"),
    ] {
        check::<P>(config, &format!("GET /{query}"), &format!("next\nquery {want}"));
    }
}

#[test]
fn bodies_are_transformed() {
    let post = |media: &str, body: &str| format!("POST /\nContent-Type: {media}\n\n{body}");
    let (js, form) = ("application/json", "application/x-www-form-urlencoded");
    let add = json!({"add": {"body": ["p1:v1"]}});
    let all = json!({"remove": {"body": ["r"]}, "rename": {"body": ["o:n"]}, "replace": {"body": ["p:1"]},
                     "add": {"body": ["a:2"]}, "append": {"body": ["l:3"]}});
    for (config, media, body, want) in [
        (&add, js, r#"{"hello":"world"}"#, r#"{"hello":"world","p1":"v1"}"#),
        (&add, js, r#"{"p1":"kept"}"#, r#"{"p1":"kept"}"#),
        (&add, js, r#"{"p1":false,"x":null}"#, r#"{"p1":"v1","x":null}"#),
        (&add, js, "", r#"{"p1":"v1"}"#),
        (&add, js, "{broken", "{broken"),
        (&add, "text/plain", "x=1", "x=1"),
        (&add, form, "x=1", "p1=v1&x=1"),
        (&all, js, r#"{"r":1,"o":"x","p":"y","l":"0"}"#, r#"{"p":"1","l":["0","3"],"n":"x","a":"2"}"#),
        (&all, form, "r=1&o=x&p=y&l=0", "a=2&l=0&l=3&n=x&p=1"),
    ] {
        check::<P>(config.clone(), &post(media, body), &format!("next\nbody {want}"));
    }
    let multipart = "--b\r\nContent-Disposition: form-data; name=\"r\"\r\n\r\n1\r\n--b--\r\n";
    let policy = testing::policy::<P>(&all);
    let mut x = testing::exchange(&post("multipart/form-data; boundary=b", multipart));
    assert!(matches!(testing::request(&policy, &mut x), Flow::Next));
    let want = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n2\r\n--b--\r\n";
    assert_eq!(x.body.as_deref(), Some(want.as_bytes()));
}

#[test]
fn the_method_is_set_and_may_move_a_form_to_the_query() {
    check::<P>(json!({"http_method": "POST"}), "GET /?a=b", "next\nmethod POST\nquery a=b");
    let form = "POST /?hello=world\nContent-Type: application/x-www-form-urlencoded\n\nname=marco";
    check::<P>(json!({"http_method": "GET"}), form, "next\nmethod GET\nquery hello=world&name=marco");
    check::<P>(json!({"http_method": "PUT"}), form, "next\nmethod PUT\nquery hello=world");
}

#[test]
fn values_are_templates() {
    let get = "GET /x?q1=20\nHost: h.test\nx-old: old";
    for (config, want) in [
        (
            json!({"add": {"querystring": ["p:$(uri_captures.user1 or 'default1')"]}}),
            "query p=default1&q1=20",
        ),
        (
            json!({"add": {"headers": ["x-t:$(query_params.q1)"], "querystring": ["h:$(headers.host)"]},
                   "remove": {"querystring": ["q1"]}}),
            "query h=h.test\n> x-t: 20",
        ),
        (
            json!({"replace": {"headers": ["x-old:new"]}, "add": {"headers": ["x-copy:$(headers['x-old'])"]}}),
            "> x-old: new\n> x-copy: old",
        ),
        (
            json!({"remove": {"headers": ["x-old"]}, "add": {"headers": ["x-copy:$(headers.x_old)"]}}),
            "> x-old:\n> x-copy: old",
        ),
        (json!({"add": {"headers": ["x-t:[$(headers.none)]"]}}), "> x-t: []"),
        (json!({"replace": {"uri": "/a b/$(query_params.q1)"}}), "path /a%20b/20\nquery q1=20"),
    ] {
        check::<P>(config, get, &format!("next\n{want}"));
    }
    let fails = json!({"add": {"querystring": ["q1:$(ERROR())"]}});
    check::<P>(json!({"replace": {"headers": ["host:a$(headers.x_old) b"]}}), get, "500");
    check::<P>(fails.clone(), get, "500\nresponse {\"message\":\"An unexpected error occurred\"}");
    let (_, findings) = compile::<P>(&fails);
    assert!(findings[0].contains("there is no function `ERROR`"), "{findings:?}");
}

#[test]
fn captures_make_paths() {
    let config =
        json!({"replace": {"uri": "/requests/user2/$(uri_captures.user2)/user1/$(uri_captures[1])"}});
    let policy = testing::policy::<P>(&config);
    let mut x = testing::exchange("GET /requests/user1/foo/user2/bar");
    x.captures = vec![("1".into(), "foo".into()), ("user2".into(), "b\u{e4}r\r\n".into())];
    assert!(matches!(testing::request(&policy, &mut x), Flow::Next));
    assert_eq!(x.upstream.path, "/requests/user2/b%C3%A4r%0D%0A/user1/foo");
}

#[test]
fn mistakes_are_found_at_load() {
    refuses::<P>(json!({"add": {"querystring": ["just_a_key"]}}), "key 'just_a_key' has no value");
    refuses::<P>(json!({"rename": {"headers": ["a:b c"]}}), "'b c' is not a valid header name");
    refuses::<P>(json!({"remove": {"headers": ["a b"]}}), "'a b' is not a valid header name");
    refuses::<P>(json!({"add": {"headers": ["a:$(1 +)"]}}), "expected a value, found the end");
    refuses::<P>(json!({"replace": {"uri": "/$(os.exit())"}}), "`os` is not supported");
    let (policy, findings) = compile::<P>(&json!({"add": {"headers": ["Content-Length:5"]}}));
    assert!(policy.is_some_and(|p| p.headers.is_empty()));
    assert_eq!(findings, ["a rule for `Content-Length` has no effect"]);
}

#[test]
fn bodies_are_transformed_below_their_top_level() {
    let config = json!({
        "remove": {"body": ["$.user.password"]}, "rename": {"body": ["$.user.mail:email"]},
        "replace": {"body": ["$.items[*].unit:kg"]}, "add": {"body": ["$.meta.via:gw"]}, "append": {"body": ["$.tags:x"]},
    });
    check::<P>(
        config.clone(),
        "POST /\nContent-Type: application/json\n\n{\"user\":{\"password\":1,\"mail\":\"m\"},\"items\":[{\"unit\":\"g\"},{}],\"tags\":[]}",
        "next\nbody {\"user\":{\"email\":\"m\"},\"items\":[{\"unit\":\"kg\"},{}],\"tags\":[\"x\"],\"meta\":{\"via\":\"gw\"}}",
    );
    // A form has no such paths, and a name without `$.` is a name.
    check::<P>(
        json!({"remove": {"body": ["$.a", "b.c"]}}),
        "POST /\nContent-Type: application/x-www-form-urlencoded\n\n%24.a=1&b.c=2&d=3",
        "next\nbody %24.a=1&d=3",
    );
    refuses::<P>(json!({"remove": {"body": ["$.a["]}}), "is no path such as");
    check::<P>(json!({"remove": {"querystring": ["$.a"]}}), "GET /?$.a=1&b=2", "next\nquery b=2");
}

#[test]
fn cookies_are_transformed() {
    let config = json!({
        "remove": {"cookies": ["ad"]}, "rename": {"cookies": ["sid:session"]}, "replace": {"cookies": ["lang:de"]},
        "add": {"cookies": ["seen:yes;no"]},
    });
    check::<P>(
        config.clone(),
        "GET /\nCookie: ad=1; sid=a=b; lang=en; ad=2",
        "next\n> Cookie: session=a=b; lang=de; seen=yesno",
    );
    check::<P>(config, "GET /\nCookie: seen=x", "next\n> Cookie: seen=x");
    check::<P>(json!({"remove": {"cookies": ["ad"]}}), "GET /\nCookie: ad=1", "next\n> Cookie:");
    refuses::<P>(json!({"add": {"cookies": ["a b:1"]}}), "is not a valid cookie name");
}

#[test]
fn queries_are_normalised() {
    check::<P>(json!({"normalise_query": true}), "GET /?b=%7e&a=x+y&b=1&c", "next\nquery a=x%20y&b=~&b=1&c");
    check::<P>(json!({"normalise_query": true}), "GET /", "next\nquery");
}
