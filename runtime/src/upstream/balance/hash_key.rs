//! What of a request decides its place on the hash ring.

use std::borrow::Cow;

use crate::exchange::Exchange;
use crate::message::{FieldName, names, query_pairs};
use crate::snapshot::upstream::{HashInput, UpstreamConfig};

/// The text to hash. Where neither input finds anything it is empty, which is one peer for all such requests. A cookie
/// that a client lacks is made, and added to the response.
pub fn key(x: &mut Exchange, upstream: &UpstreamConfig) -> String {
    for input in [&upstream.hash_on, &upstream.hash_fallback] {
        if let Some(found) = find(x, input) {
            return found.into_owned();
        }
        if let HashInput::Cookie(name) = input {
            let value = uuid::Uuid::new_v4().to_string();
            let field = format!("{name}={value}; Path={}; SameSite=Lax; HttpOnly", upstream.cookie_path);
            x.response_fields.append(&FieldName::new("Set-Cookie"), field);
            return value;
        }
    }
    String::new()
}

fn find<'a>(x: &'a Exchange, input: &'a HashInput) -> Option<Cow<'a, str>> {
    match input {
        HashInput::None => None,
        HashInput::Consumer => {
            let consumer = x.consumer().map(|c| c.id.as_str());
            let credential = || x.identity.as_ref()?.credential_id.as_deref();
            consumer.or_else(credential).map(Cow::Borrowed)
        }
        HashInput::Ip => Some(x.client.ip.to_string().into()),
        HashInput::Header(name) => {
            let mut values = x.request.fields.all(name).map(String::from_utf8_lossy);
            let first = values.next()?;
            Some(values.fold(first, |all, v| format!("{all}, {v}").into()))
        }
        HashInput::Cookie(name) => cookie(x, name).map(Cow::Owned),
        HashInput::Path => Some(x.request.path.as_str().into()),
        HashInput::QueryArg(name) => {
            let pairs = query_pairs(x.request.query.as_deref().unwrap_or(""));
            let mut values: Vec<String> =
                pairs.filter(|(k, _)| k == name).map(|(_, v)| v.unwrap_or_default()).collect();
            values.sort_unstable();
            (!values.is_empty()).then(|| values.join(",").into())
        }
        HashInput::UriCapture(name) => {
            x.captures.iter().find(|(n, _)| n == name).map(|(_, text)| text.as_str().into())
        }
    }
}

fn cookie(x: &Exchange, name: &str) -> Option<String> {
    for field in x.request.fields.all(&names::COOKIE) {
        for pair in field.split(|b| *b == b';') {
            let at = pair.iter().position(|b| *b == b'=');
            if let Some(at) = at
                && pair[..at].trim_ascii() == name.as_bytes()
            {
                return Some(String::from_utf8_lossy(pair[at + 1..].trim_ascii()).into_owned());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing;

    fn check(hash_on: HashInput, fallback: HashInput, want: &str) {
        let mut x = testing::exchange("GET /orders/7?a=2&b=%20&a=1");
        x.request.path = "/orders/7".into();
        x.request.query = Some("a=2&b=%20&a=1".into());
        x.client.ip = [10, 0, 0, 9].into();
        x.captures = vec![("0".into(), "/orders/7".into()), ("id".into(), "7".into())];
        for (name, value) in
            [("X-Tenant", "t1"), ("X-Many", "a"), ("X-Many", "b"), ("Cookie", "a=1; sid= abc ")]
        {
            x.request.fields.append(&FieldName::new(name), value);
        }
        let upstream = UpstreamConfig { hash_on, hash_fallback: fallback, ..UpstreamConfig::default() };
        assert_eq!(key(&mut x, &upstream), want, "{upstream:?}");
        assert_eq!(x.response_fields.iter().count(), 0);
    }

    #[test]
    fn every_input_is_found() {
        use HashInput::*;
        let header = |n: &str| Header(FieldName::new(n));
        check(None, None, "");
        check(Ip, None, "10.0.0.9");
        check(header("x-tenant"), None, "t1");
        check(header("X-Many"), None, "a, b");
        check(header("X-None"), Path, "/orders/7");
        check(header("X-None"), None, "");
        check(Consumer, Ip, "10.0.0.9");
        check(Cookie("sid".into()), None, "abc");
        check(Path, None, "/orders/7");
        check(QueryArg("a".into()), None, "1,2");
        check(QueryArg("b".into()), None, " ");
        check(QueryArg("c".into()), QueryArg("b".into()), " ");
        check(UriCapture("id".into()), None, "7");
        check(UriCapture("0".into()), None, "/orders/7");
        check(UriCapture("none".into()), Cookie("a".into()), "1");
    }

    #[test]
    fn a_client_without_the_cookie_gets_one() {
        let mut x = testing::exchange("GET /orders/7?a=2&b=%20&a=1");
        let upstream = UpstreamConfig {
            hash_on: HashInput::Cookie("sid".into()),
            cookie_path: "/api".into(),
            ..UpstreamConfig::default()
        };
        let made = key(&mut x, &upstream);
        assert_eq!(made.len(), 36);
        let want = format!("sid={made}; Path=/api; SameSite=Lax; HttpOnly");
        assert_eq!(x.response_fields.text(&FieldName::new("set-cookie")), Some(want.as_str()));
    }
}
