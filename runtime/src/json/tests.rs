use super::*;

fn document(text: &str) -> Json {
    parse(text.as_bytes(), &Limits::default()).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn what_is_read_is_written_again() {
    for text in [
        "null",
        "true",
        "[false,[],{}]",
        r#"{"a":1.10,"b":12345678901234567890,"c":-0,"d":1E+9,"e":"\"\\\n\u0001ü😀"}"#,
    ] {
        assert_eq!(document(text).to_string(), text);
    }
    assert_eq!(document(r#" [ "\u00fc\ud83d\ude00\/" , 1 ] "#).to_string(), "[\"ü😀/\",1]");
}

/// Documents of all shapes, by a generator of our own, so that a failure names its seed.
fn made(seed: &mut u64, depth: usize) -> Json {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let n = *seed >> 33;
    let text = |n: u64| ["", "a", "ü\u{1}", "x\"y\\", "\u{1f600}", "~/"][(n % 6) as usize].to_owned();
    match n % if depth == 0 { 4 } else { 6 } {
        0 => Json::Null,
        1 => Json::Bool(n & 64 > 0),
        2 => Json::Number(["0", "-1.50", "1e5", "98765432109876543210"][(n / 64 % 4) as usize].into()),
        3 => Json::Text(text(n / 64)),
        4 => Json::List((0..n / 64 % 4).map(|_| made(seed, depth - 1)).collect()),
        _ => Json::Object((0..n / 64 % 4).map(|i| (text(n / 64 + i), made(seed, depth - 1))).collect()),
    }
}

#[test]
fn every_document_survives_writing_and_reading() {
    for seed in 0..2000 {
        let json = made(&mut { seed }, 5);
        assert_eq!(document(&json.to_string()), json, "seed {seed}");
    }
}

#[test]
fn no_bytes_make_the_reader_fail_otherwise_than_by_an_error() {
    for seed in 0..2000_u64 {
        let mut bytes = made(&mut { seed }, 4).to_vec();
        let at = (seed as usize * 7919) % bytes.len();
        bytes[at] = (seed * 31) as u8;
        if let Ok(json) = parse(&bytes, &Limits::default()) {
            assert_eq!(parse(&json.to_vec(), &Limits::default()).as_ref(), Ok(&json), "seed {seed}");
        }
    }
}

#[test]
fn pointers_find_keep_and_drop() {
    let json = document(r#"{"a":{"b":1,"c":2},"l":[{"x":1,"y":2},{"x":3}],"s/~":0}"#);
    for (pointer, get, kept, dropped) in [
        ("/a/b", "1", r#"{"a":{"b":1}}"#, r#"{"a":{"c":2},"l":[{"x":1,"y":2},{"x":3}],"s/~":0}"#),
        ("/l/x", "-", r#"{"l":[{"x":1},{"x":3}]}"#, r#"{"a":{"b":1,"c":2},"l":[{"y":2},{}],"s/~":0}"#),
        ("/l/1/x", "3", r#"{"l":[{},{}]}"#, r#"{"a":{"b":1,"c":2},"l":[{"x":1,"y":2},{"x":3}],"s/~":0}"#),
        ("/s~1~0", "0", r#"{"s/~":0}"#, r#"{"a":{"b":1,"c":2},"l":[{"x":1,"y":2},{"x":3}]}"#),
        ("/none", "-", "{}", r#"{"a":{"b":1,"c":2},"l":[{"x":1,"y":2},{"x":3}],"s/~":0}"#),
    ] {
        let at = Pointer::parse(pointer).unwrap_or_else(|| panic!("{pointer}"));
        assert_eq!(at.to_string(), pointer);
        assert_eq!(at.get(&json).map_or("-".to_owned(), Json::to_string), get, "{pointer}");
        let mut into = Json::Object(Members::default());
        at.keep(&json, &mut into);
        assert_eq!(into.to_string(), kept, "{pointer}");
        let mut rest = json.clone();
        at.remove(&mut rest);
        assert_eq!(rest.to_string(), dropped, "{pointer}");
    }
    for bad in ["a", "/a~", "/a~2", "//"] {
        assert_eq!(Pointer::parse(bad), None, "{bad}");
    }
}
