use serde_json::{Value, json};

use super::*;
use crate::json::Json;
use crate::policy::testing::{check, check_proxied, policy, refuses};

type P = JsonXml;

fn with(config: Value) -> P {
    let mut all = json!({"service": "xml"});
    for (name, value) in config.as_object().expect("an object") {
        all[name] = value.clone();
    }
    policy(&all)
}

fn to_json(p: &P, xml: &str) -> String {
    match p.convert(Format::Xml, xml.as_bytes()) {
        Ok(bytes) => String::from_utf8(bytes).expect("UTF-8"),
        Err(fault) => format!("! {fault}"),
    }
}

/// Without the declaration; what another reader refuses is a failure.
fn to_xml(p: &P, json: &str) -> String {
    match p.convert(Format::Json, json.as_bytes()) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).expect("UTF-8");
            roxmltree::Document::parse(&text).unwrap_or_else(|e| panic!("{json}: {text}: {e}"));
            text.split_once("?>").expect("a declaration").1.to_owned()
        }
        Err(fault) => format!("! {fault}"),
    }
}

#[test]
fn xml_becomes_json() {
    let p = with(json!({}));
    for (xml, want) in [
        // An attribute and a child of one name.
        (r#"<a id="1"><id>2</id></a>"#, r#"{"a":{"@id":"1","id":"2"}}"#),
        ("<a><b>1</b></a>", r#"{"a":{"b":"1"}}"#),
        ("<a><b>1</b><b>2</b></a>", r#"{"a":{"b":["1","2"]}}"#),
        ("<r><a>1</a><b>2</b><a>3</a></r>", r#"{"r":{"a":["1","3"],"b":"2"}}"#),
        ("<a>x<b/>y</a>", "! `/a`: text and elements are mixed, which has no form in JSON"),
        ("<a><![CDATA[<b>&]]></a>", r#"{"a":"<b>&"}"#),
        (
            r#"<a xmlns="u" xmlns:p="v"><p:b xmlns=""><c/></p:b></a>"#,
            r#"{"a":{"@xmlns":"u","@xmlns:p":"v","p:b":{"@xmlns":"","c":null}}}"#,
        ),
        ("<a/>", r#"{"a":null}"#),
        ("<a></a>", r#"{"a":null}"#),
        ("<a> </a>", r#"{"a":" "}"#),
        (r#"<a b=""/>"#, r#"{"a":{"@b":""}}"#),
        (r#"<a b="1">x</a>"#, r##"{"a":{"@b":"1","#text":"x"}}"##),
        (
            "<a>\n  <b>007</b>\n  <b>1e5</b><b>9007199254740993</b><b>true</b>\n</a>",
            r#"{"a":{"b":["007","1e5","9007199254740993","true"]}}"#,
        ),
        ("<a><?p x?><b><!-- c -->1<!-- d -->2</b></a>", r#"{"a":{"b":"12"}}"#),
        ("\u{feff}<a/>", r#"{"a":null}"#),
        ("<a><b><c><d>x</d></c></b></a>", r#"{"a":{"b":{"c":{"d":"x"}}}}"#),
        ("<a>", "! line 1, column 1: the element `a` does not end"),
        ("<!DOCTYPE a><a/>", "! line 1, column 1: a document type declaration is not allowed"),
    ] {
        assert_eq!(to_json(&p, xml), want, "{xml}");
    }
    let p = with(json!({"arrays": ["/a/b", "/a/*/d"], "types": "infer", "mixed": "ordered"}));
    for (xml, want) in [
        ("<a><b/></a>", r#"{"a":{"b":[null]}}"#),
        ("<a><b>1</b><b>2</b><c><d>x</d></c></a>", r#"{"a":{"b":[1,2],"c":{"d":["x"]}}}"#),
        (
            "<a><x>007</x><x>1e5</x><x>9007199254740993</x><x>true</x><x>-1.50</x><x>-0</x></a>",
            r#"{"a":{"x":["007","1e5","9007199254740993",true,-1.50,"-0"]}}"#,
        ),
        ("<a>x <i>y</i> z</a>", r##"{"a":{"#content":["x ",{"i":"y"}," z"]}}"##),
    ] {
        assert_eq!(to_json(&p, xml), want, "{xml}");
    }
}

#[test]
fn json_becomes_xml() {
    let p = with(json!({}));
    for (json, want) in [
        (r#"{"a":1.0}"#, "<a>1.0</a>"),
        (r#"{"a":9007199254740993}"#, "<a>9007199254740993</a>"),
        (r#"{"a":{"b":[1,2,null,true,""]}}"#, "<a><b>1</b><b>2</b><b/><b>true</b><b/></a>"),
        (r#"{"a":1,"b":2}"#, "<Root><a>1</a><b>2</b></Root>"),
        (r#"{"a":[1,2]}"#, "<Root><a>1</a><a>2</a></Root>"),
        ("[1,[2,3]]", "<Array><Item>1</Item><Item><Item>2</Item><Item>3</Item></Item></Array>"),
        ("[]", "<Array/>"),
        ("{}", "<Root/>"),
        ("\"x\"", "<Root>x</Root>"),
        ("null", "<Root/>"),
        (
            r##"{"a":{"@b":"<&\"\n>","#text":"<&]]>"}}"##,
            "<a b=\"&lt;&amp;&quot;&#10;&gt;\">&lt;&amp;]]&gt;</a>",
        ),
        (r#"{"a":{"@b":null}}"#, "<a b=\"\"/>"),
        (r#"{"a":{"@b":{}}}"#, "! `/a/@b`: an attribute must be a scalar"),
        (r#"{"@a":1}"#, "<Root a=\"1\"/>"),
        (r#"{"a":{"@":1}}"#, "! `/a/@`: `` cannot be a name in XML"),
        (r#"{"a":{"":1}}"#, "! `/a/`: `` cannot be a name in XML"),
        (r#"{"1a":1}"#, "! `/1a`: `1a` cannot be a name in XML"),
        (r#"{"a b":1}"#, "! `/a b`: `a b` cannot be a name in XML"),
        (r#"{"a/b~":{"c d":1}}"#, "! `/a~1b~0`: `a/b~` cannot be a name in XML"),
        (r#"{"p:a":1}"#, "! `/p:a`: the prefix `p` of the name `p:a` is not declared"),
        (r#"{"p:a":{"@xmlns:p":"u","p:b":{"@p:c":1}}}"#, "<p:a xmlns:p=\"u\"><p:b p:c=\"1\"/></p:a>"),
        (
            r#"{"a":{"b":{"@xmlns:p":"u"},"p:c":1}}"#,
            "! `/a/p:c`: the prefix `p` of the name `p:c` is not declared",
        ),
        (r#"{"a":{"@xmlns:p":""}}"#, "<a/>"),
        (r#"{"a":{"@xmlns:xml":"u"}}"#, "! `/a/@xmlns:xml`: this namespace cannot be declared"),
        (
            r#"{"a":{"@xmlns:p":"u","@xmlns:q":"u","@p:x":1,"@q:x":2}}"#,
            "! `/a/@q:x`: the element has the attribute `q:x` already",
        ),
        (r#"{"a":"\u0001"}"#, "! `/a`: the character U+0001 is not allowed in XML"),
        (r#"{"a":"\ufffe"}"#, "! `/a`: the character U+FFFE is not allowed in XML"),
        (r#"{"a":"\r\n\t"}"#, "<a>&#13;\n\t</a>"),
        (r#"{"a":"\ud83d\ude00"}"#, "<a>\u{1f600}</a>"),
        (r#"{"a":"\ud83d"}"#, "! line 1, column 7: a surrogate without its other half is no character"),
        (r#"{"a":1,"a":2}"#, "! line 1, column 8: the object has this name already"),
        (r#"{"a":1"#, "! line 1, column 7: the document ends too early"),
    ] {
        assert_eq!(to_xml(&p, json), want, "{json}");
    }
    let p =
        with(json!({"invalid_names": "replace", "mixed": "ordered", "root": "r", "item": "i", "array": "l"}));
    for (json, want) in [
        (r#"{"1st %%name":1,"":2,"p:x":3}"#, "<r><_1st___name>1</_1st___name><_>2</_><p_x>3</p_x></r>"),
        (r##"{"a":{"#content":["x ",{"i":"y"},1]}}"##, "<a>x <i>y</i>1</a>"),
        ("[[1]]", "<l><i><i>1</i></i></l>"),
    ] {
        assert_eq!(to_xml(&p, json), want, "{json}");
    }
    let many: String = (0..300).map(|i| format!("\"@a{i}\":1,")).collect();
    assert_eq!(to_xml(&p, &format!("{{\"a\":{{{many}\"b\":1}}}}")), "! `/a/@a256`: more than 256 attributes");
}

#[test]
fn presets_are_what_they_are_called_after() {
    let badgerfish = with(json!({"preset": "badgerfish"}));
    for (xml, json) in [
        ("<alice>bob</alice>", r#"{"alice":{"$":"bob"}}"#),
        (
            "<alice><bob>charlie</bob><david>edgar</david></alice>",
            r#"{"alice":{"bob":{"$":"charlie"},"david":{"$":"edgar"}}}"#,
        ),
        (
            "<alice><bob>charlie</bob><bob>david</bob></alice>",
            r#"{"alice":{"bob":[{"$":"charlie"},{"$":"david"}]}}"#,
        ),
        ("<alice charlie=\"david\">bob</alice>", r#"{"alice":{"@charlie":"david","$":"bob"}}"#),
        (
            "<alice xmlns=\"http://some-namespace\" xmlns:charlie=\"http://other\"><bob>david</bob><charlie:edgar>frank</charlie:edgar></alice>",
            r#"{"alice":{"@xmlns":{"$":"http://some-namespace","charlie":"http://other"},"bob":{"@xmlns":{"$":"http://some-namespace","charlie":"http://other"},"$":"david"},"charlie:edgar":{"@xmlns":{"$":"http://some-namespace","charlie":"http://other"},"$":"frank"}}}"#,
        ),
        (
            "<a xmlns:p=\"u\"><p:b xmlns:p=\"v\"/><p:c/></a>",
            r#"{"a":{"@xmlns":{"p":"u"},"p:b":{"@xmlns":{"p":"v"}},"p:c":{"@xmlns":{"p":"u"}}}}"#,
        ),
        ("<a/>", r#"{"a":{}}"#),
    ] {
        assert_eq!(to_json(&badgerfish, xml), json);
        assert_eq!(to_xml(&badgerfish, json), xml);
    }
    let parker = with(json!({"preset": "parker"}));
    for (xml, json) in [
        ("<root>test</root>", "\"test\""),
        ("<root><name>Xml</name><p:e xmlns:p=\"u\" a=\"1\"/></root>", r#"{"name":"Xml","e":null}"#),
        ("<root><item>1</item><item>2</item><item>three</item></root>", r#"{"item":["1","2","three"]}"#),
    ] {
        assert_eq!(to_json(&parker, xml), json);
    }
    assert_eq!(to_xml(&parker, r#"{"name":"Xml"}"#), "<Root><name>Xml</name></Root>");
    let apigee = with(json!({"preset": "apigee"}));
    assert_eq!(
        to_json(&apigee, "<p:a xmlns:p=\"u\" b=\"1\"><b>2</b><c/><d e=\"3\">x</d></p:a>"),
        r##"{"a":{"b":["1","2"],"c":{},"d":{"e":"3","#text":"x"}}}"##
    );
    assert_eq!(
        to_xml(
            &apigee,
            r##"{"n:a":{"#namespaces":{"$default":"d","n":"u"},"#attrs":{"x":1},"@y":2,"First%%%Name":"z"}}"##
        ),
        "<n:a xmlns=\"d\" xmlns:n=\"u\" x=\"1\" y=\"2\"><First___Name>z</First___Name></n:a>"
    );
}

/// A small generator of documents that both formats can hold without loss.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }

    fn text(&mut self) -> String {
        const PARTS: [&str; 12] =
            ["a", "<", "&", "\"", "\r", "\n", " ", "\u{e9}", "\u{1f600}", "]]>", "1e5", "'"];
        (0..=self.below(4)).map(|_| PARTS[self.below(PARTS.len())]).collect()
    }

    /// Members have distinct names, arrays two items or more, strings are not empty.
    fn value(&mut self, depth: usize, in_array: bool) -> Json {
        match self.below(if depth == 0 { 2 } else { 5 }) {
            0 => Json::Null,
            1 => Json::Text(self.text()),
            2 if !in_array => {
                Json::List((0..2 + self.below(3)).map(|_| self.value(depth - 1, true)).collect())
            }
            _ => {
                let mut members = Vec::new();
                for i in 0..1 + self.below(3) {
                    members.push((format!("n{i}"), self.value(depth - 1, false)));
                }
                if self.below(2) == 0 {
                    members.insert(0, ("@x".to_owned(), Json::Text(self.text())));
                }
                Json::Object(members.into_iter().collect())
            }
        }
    }
}

#[test]
fn there_and_back_again_nothing_is_lost() {
    let p = with(json!({}));
    let mut random = Random(0x1234_5678_9abc_def1);
    for _ in 0..3_000 {
        let mut value = random.value(4, true);
        if matches!(value, Json::List(_)) {
            value = Json::Null;
        }
        let json = Json::one("root".to_owned(), value).to_string();
        let xml = p.convert(Format::Json, json.as_bytes()).unwrap_or_else(|e| panic!("{json}: {e}"));
        let back = p.convert(Format::Xml, &xml).unwrap_or_else(|e| panic!("{json}: {e}"));
        assert_eq!(String::from_utf8_lossy(&back), json);
        let again = p.convert(Format::Json, &back).expect("it went once");
        assert_eq!(again, xml);
    }
}

#[test]
fn requests_are_converted_or_refused() {
    let config = json!({"service": "xml"});
    check::<P>(
        config.clone(),
        "POST /\nContent-Type: application/json; charset=utf-8\nContent-MD5: x\n\n{\"a\":1}",
        "next\nbody <?xml version=\"1.0\" encoding=\"UTF-8\"?><a>1</a>\n> Content-MD5:\n> Content-Length:\n> Content-Type: application/xml; charset=utf-8\n> Accept: application/xml",
    );
    check::<P>(
        config.clone(),
        "POST /\nContent-Type: application/json\nAccept: text/html\n\n{",
        "400\nbody <h1>Error</h1>",
    );
    for (head, body, want) in [
        ("Content-Type: text/xml", "<a>", "next\nbody <a>"),
        ("Content-Type: application/json", "", "next"),
        (
            "Content-Type: application/json",
            "{",
            "400\nbody The body is no JSON that can be converted: line 1, column 2",
        ),
        ("Content-Type: application/json", "{\"a b\":1}", "400\nbody `/a b`: `a b` cannot be a name in XML"),
        ("Content-Type: application/json; charset=latin1", "{}", "415\nbody charset must be UTF-8"),
        ("Content-Type: application/json\nContent-Encoding: gzip", "{}", "415\nbody must not be compressed"),
        (
            "Content-Type: text/plain",
            "x",
            "415\nbody must be JSON or XML\n< Accept: application/json, application/xml",
        ),
        ("X: y", "x", "415"),
    ] {
        check::<P>(config.clone(), &format!("POST /\n{head}\n\n{body}"), want);
    }
    let deep = "[".repeat(100);
    check::<P>(
        config.clone(),
        &format!("POST /\nContent-Type: application/json\n\n{deep}"),
        "413\nbody line 1, column 65: nested deeper than 64",
    );
    check::<P>(
        json!({"service": "xml", "other_types": "pass"}),
        "POST /\nContent-Type: text/plain\n\nx",
        "next\nbody x",
    );
    check::<P>(
        json!({"service": "xml", "request": "pass"}),
        "POST /\nContent-Type: application/json\n\n{",
        "next\nbody {",
    );
    check::<P>(
        json!({"service": "json"}),
        "POST /\nContent-Type: application/soap+xml\n\n<a><b>1</b></a>",
        "next\nbody {\"a\":{\"b\":\"1\"}}\n> Content-Type: application/json",
    );
    check::<P>(
        json!({"service": "json"}),
        "POST /\nContent-Type: application/xml\nAccept: application/xml\n\n<a>\n<b></a>",
        "400\nbody line 2, column 4: expected the end of the element `b`\n< Content-Type: application/xml; charset=utf-8",
    );
}

#[test]
fn responses_follow_accept() {
    let xml = "200\nContent-Type: application/xml\nETag: \"1\"\nContent-Length: 16\nDigest: x\nAccept-Ranges: bytes\n\n<a><b>1</b></a>";
    let converted = "next\nresponse {\"a\":{\"b\":\"1\"}}\n< Content-Type: application/json\n< ETag: W/\"1-json\"\n\
        < Content-Length:\n< Digest:\n< Accept-Ranges:\n< Vary: Accept\n> Accept: application/xml\n> Accept-Encoding:\n> Range:";
    let same =
        "next\nresponse <a><b>1</b></a>\n< Content-Type: application/xml\n< ETag: \"1\"\n< Vary: Accept";
    for (request, want) in [
        ("GET /", same),
        ("GET /\nAccept: */*", same),
        ("GET /\nAccept: text/html", same),
        ("GET /\nAccept: application/xml;q=0.5, application/json;q=0.4", same),
        ("GET /\nAccept: application/json\nAccept-Encoding: gzip\nRange: bytes=0-1", converted),
        ("GET /\nAccept: application/vnd.x+json, */*;q=0.1", converted),
        ("GET /\nAccept: application/xml;q=0, application/*", converted),
        ("POST /\nContent-Type: application/json\n\n{}", converted),
        ("POST /\nContent-Type: application/json\nAccept: application/xml\n\n{}", same),
    ] {
        check_proxied::<P>(json!({"service": "xml"}), request, xml, want);
    }
    let always = json!({"service": "xml", "response": "convert"});
    check_proxied::<P>(always.clone(), "GET /", xml, "next\nresponse {\"a\":{\"b\":\"1\"}}\n< Vary:");
    check_proxied::<P>(
        json!({"service": "xml", "response": "pass"}),
        "GET /\nAccept: application/json",
        xml,
        "next\nresponse <a><b>1</b></a>\n< Vary:",
    );
    check_proxied::<P>(
        always.clone(),
        "GET /",
        "200\nContent-Type: text/plain\n\nx",
        "next\nresponse x\n< Content-Type: text/plain",
    );
    check_proxied::<P>(
        always.clone(),
        "GET /\nIf-None-Match: W/\"1-json\", \"2\"",
        "304\nETag: \"1\"",
        "next\n> If-None-Match: \"1\", \"2\"\n< ETag: W/\"1-json\"",
    );
    for bad in [
        "200\nContent-Type: application/xml\n\n<a>",
        "200\nContent-Type: application/xml; charset=iso-8859-1\n\n<a/>",
        "200\nContent-Type: application/xml\nContent-Encoding: gzip\n\n<a/>",
        "200\nContent-Type: application/xml\nContent-Encoding: compress\n\n<a/>",
    ] {
        let want = "next\n< Content-Type: application/json; charset=utf-8\n< Content-Encoding:";
        check_proxied::<P>(always.clone(), "GET /", bad, want);
    }
}

#[test]
fn mistakes_are_found_at_load() {
    refuses::<P>(json!({"service": "xml", "root": "1a"}), "`1a` cannot be the name of an element");
    refuses::<P>(json!({"service": "xml", "arrays": ["a/b"]}), "`a/b` is no path of names");
    refuses::<P>(json!({"service": "xml", "arrays": ["/a//b"]}), "`/a//b` is no path of names");
}
