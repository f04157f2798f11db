//! RFC 9110, sections 13 and 14: what a kept answer becomes for a request with conditions or a range.

use bytes::Bytes;

use super::freshness::date;
use crate::message::{FieldName, Fields, names};
use crate::policy::Reply;
use crate::policy::proxy_cache::store::Entry;

/// The fields of a kept answer.
pub fn fields_of(entry: &Entry) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in &entry.fields {
        fields.append(name, value);
    }
    fields
}

/// What a 304 keeps of the fields.
const OF_304: &[&str] = &[
    "Cache-Control",
    "CDN-Cache-Control",
    "Content-Location",
    "Date",
    "ETag",
    "Expires",
    "Last-Modified",
    "Vary",
];

/// The answer to a request from a kept one.
pub fn reply(request: &Fields, entry: &Entry, is_head: bool) -> Reply {
    let kept = fields_of(entry);
    let mut reply = Reply {
        status: entry.status,
        body: entry.body.clone(),
        fields: entry.fields.clone(),
        ..Reply::default()
    };
    if entry.status != 200 {
        return reply;
    }
    if is_unchanged(request, &kept) {
        reply.status = 304;
        reply.body = Bytes::new();
        reply.fields.retain(|(name, _)| OF_304.iter().any(|n| n.eq_ignore_ascii_case(name.as_str())));
    } else if !is_head && let Some(range) = range(request, &kept, entry.body.len()) {
        let whole = entry.body.len();
        let content_range = FieldName::new("Content-Range");
        match range {
            Some((from, to)) => {
                reply.status = 206;
                reply.body = entry.body.slice(from..=to);
                reply.fields.push((content_range, format!("bytes {from}-{to}/{whole}")));
            }
            None => {
                reply.status = 416;
                reply.body = Bytes::new();
                reply.fields = vec![(content_range, format!("bytes */{whole}"))];
            }
        }
    }
    reply
}

/// Whether the client has this already: `If-None-Match`, else `If-Modified-Since`.
fn is_unchanged(request: &Fields, kept: &Fields) -> bool {
    if request.contains(&FieldName::new("If-None-Match")) {
        return kept.text(&names::ETAG).is_some_and(|etag| has_tag(request, etag));
    }
    let since = date(request, "If-Modified-Since");
    let modified = date(kept, "Last-Modified").or_else(|| date(kept, "Date"));
    matches!((since, modified), (Some(since), Some(modified)) if modified <= since)
}

/// Whether `If-None-Match` names this tag, by the weak comparison.
pub fn has_tag(request: &Fields, etag: &str) -> bool {
    let weak = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    request
        .all(&FieldName::new("If-None-Match"))
        .filter_map(|v| std::str::from_utf8(v).ok())
        .any(|list| list.trim() == "*" || tags(list).iter().any(|tag| weak(tag) == weak(etag)))
}

/// The entity tags of a list; commas within quotes belong to a tag.
fn tags(list: &str) -> Vec<String> {
    let (mut all, mut tag, mut quoted) = (Vec::new(), String::new(), false);
    for c in list.chars() {
        match c {
            ',' if !quoted => all.push(std::mem::take(&mut tag)),
            c => {
                quoted ^= c == '"';
                tag.push(c);
            }
        }
    }
    all.push(tag);
    all
}

/// The one range that is asked for: `Some(None)` where it lies beyond the end. Several ranges are answered whole.
fn range(request: &Fields, kept: &Fields, whole: usize) -> Option<Option<(usize, usize)>> {
    let spec = request.text(&FieldName::new("Range"))?.trim();
    let (unit, range) = spec.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") || range.contains(',') {
        return None;
    }
    if let Some(condition) = request.text(&FieldName::new("If-Range")).map(str::trim) {
        let by_tag = kept.text(&names::ETAG).is_some_and(|e| e == condition && !e.starts_with("W/"));
        let by_date = kept.text(&FieldName::new("Last-Modified")).is_some_and(|d| d == condition);
        if !by_tag && !by_date {
            return None;
        }
    }
    let (from, to) = range.trim().split_once('-')?;
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if !digits(from) || !digits(to) {
        return None;
    }
    match (from.parse::<usize>(), to.parse::<usize>()) {
        (Ok(from), Ok(to)) if from > to => None,
        (Ok(from), _) if from >= whole => Some(None),
        (Ok(from), Ok(to)) => Some(Some((from, to.min(whole - 1)))),
        (Ok(from), Err(_)) if to.is_empty() => Some(Some((from, whole - 1))),
        (Err(_), Ok(last)) if from.is_empty() => match last.min(whole) {
            0 => Some(None),
            last => Some(Some((whole - last, whole - 1))),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &[(&str, &str)], want: (u16, &str)) {
        let mut fields = Fields::default();
        for (name, value) in request {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let field = |n: &str, v: &str| (FieldName::new(n), v.to_owned());
        let entry = Entry {
            status: 200,
            fields: vec![
                field("ETag", "\"a,b\""),
                field("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
                field("X-Other", "1"),
            ],
            body: Bytes::from_static(b"0123456789"),
            at_s: 0,
            ttl_s: 1,
        };
        let got = reply(&fields, &entry, false);
        assert_eq!((got.status, &*String::from_utf8_lossy(&got.body)), want, "{request:?}");
    }

    #[test]
    fn conditions_and_ranges_are_answered() {
        let (same, before) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:36 GMT");
        check(&[], (200, "0123456789"));
        check(&[("If-None-Match", "\"x\", W/\"a,b\"")], (304, ""));
        check(&[("If-None-Match", "*")], (304, ""));
        check(&[("If-None-Match", "\"x\""), ("If-Modified-Since", same)], (200, "0123456789"));
        check(&[("If-Modified-Since", same)], (304, ""));
        check(&[("If-Modified-Since", before)], (200, "0123456789"));
        check(&[("Range", "bytes=2-4")], (206, "234"));
        check(&[("Range", "bytes=8-99")], (206, "89"));
        check(&[("Range", "bytes=7-")], (206, "789"));
        check(&[("Range", "bytes=-2")], (206, "89"));
        check(&[("Range", "bytes=10-")], (416, ""));
        check(&[("Range", "bytes=-0")], (416, ""));
        check(&[("Range", "bytes=4-2")], (200, "0123456789"));
        check(&[("Range", "bytes=0-1,3-4")], (200, "0123456789"));
        check(&[("Range", "bytes=+1-2")], (200, "0123456789"));
        check(&[("Range", "lines=0-1")], (200, "0123456789"));
        check(&[("Range", "bytes=2-4"), ("If-Range", "\"a,b\"")], (206, "234"));
        check(&[("Range", "bytes=2-4"), ("If-Range", "\"x\"")], (200, "0123456789"));
    }
}
