//! What a message's head says of its representation, and what must change when a policy gives it another.

use crate::body::coding::Coding;
use crate::message::{FieldName, Fields, names};

/// Fields that hold for the bytes of one representation only.
const OF_BYTES: &[&str] = &["Content-MD5", "Digest", "Content-Digest", "Repr-Digest", "Accept-Ranges"];

/// Removes what an answer's or request's head says of bytes that are not sent any more.
pub fn forget_bytes(fields: &mut Fields) {
    fields.remove(&names::CONTENT_LENGTH);
    fields.retain(|_, name, _| !is_of_bytes(name));
}

/// Whether a field holds for the bytes of one representation only.
pub fn is_of_bytes(name: &[u8]) -> bool {
    OF_BYTES.iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes()))
}

/// Most codings on top of each other: more are no honest sender's.
const LAYERS: usize = 2;

/// The codings of a body in the order in which they were put on; `None` if one is unknown, or there are too many.
pub fn codings(fields: &Fields) -> Option<Vec<Coding>> {
    if !fields.contains(&names::CONTENT_ENCODING) {
        return Some(Vec::new());
    }
    let names = list(fields, &names::CONTENT_ENCODING);
    let names = names.split(',').map(str::trim);
    let names = names.filter(|n| !n.is_empty() && !n.eq_ignore_ascii_case("identity"));
    names.map(Coding::parse).collect::<Option<Vec<_>>>().filter(|c| c.len() <= LAYERS)
}

/// All values of a field that is a list.
pub fn list(fields: &Fields, name: &FieldName) -> String {
    let mut out = String::new();
    for value in fields.all(name) {
        if !out.is_empty() {
            out.push(',');
        }
        out.push_str(&String::from_utf8_lossy(value));
    }
    out
}

/// Adds a name to `Vary`, unless that says so already.
pub fn vary(fields: &mut Fields, name: &str) {
    let says = |v: &[u8]| {
        let text = String::from_utf8_lossy(v);
        text.split(',').map(str::trim).any(|n| n == "*" || n.eq_ignore_ascii_case(name))
    };
    if !fields.all(&names::VARY).any(says) {
        fields.append(&names::VARY, name);
    }
}

/// Marks the `ETag` as that of the variant `name`: weak, because two conversions of one representation need not be equal
/// byte by byte, and with a suffix, because the variants must be told apart.
pub fn mark_etag(fields: &mut Fields, name: &str) {
    let Some(tag) = fields.text(&names::ETAG) else { return };
    let opaque = tag.strip_prefix("W/").unwrap_or(tag);
    let Some(inner) = opaque.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else {
        fields.remove(&names::ETAG);
        return;
    };
    let marked = format!("W/\"{inner}-{name}\"");
    fields.set(&names::ETAG, marked);
}

/// Takes the marks of these variants off the tags that a client sends back, so that the upstream knows its own again.
/// Gives back which was taken off, if any.
pub fn unmark_conditions<'n>(fields: &mut Fields, variants: &[&'n str]) -> Option<&'n str> {
    let mut found = None;
    for name in ["If-None-Match", "If-Match"].map(FieldName::new) {
        let Some(text) = fields.text(&name) else { continue };
        let mut changed = false;
        let tags: Vec<String> = split_tags(text)
            .map(|tag| {
                let opaque = tag.strip_prefix("W/").unwrap_or(tag);
                let inner = opaque.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
                let of = |v: &&'n str| Some((*v, inner?.strip_suffix(v)?.strip_suffix('-')?));
                match variants.iter().find_map(of) {
                    Some((variant, inner)) => {
                        (found, changed) = (Some(variant), true);
                        format!("\"{inner}\"")
                    }
                    None => tag.to_owned(),
                }
            })
            .collect();
        if changed {
            fields.set(&name, tags.join(", "));
        }
    }
    found
}

/// The entity tags of a list; a comma within quotes belongs to the tag.
fn split_tags(list: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    list.split(move |c| {
        quoted ^= c == '"';
        c == ',' && !quoted
    })
    .map(str::trim)
    .filter(|t| !t.is_empty())
}

/// Whether `Cache-Control` has this directive.
pub fn cache_control_says(fields: &Fields, directive: &str) -> bool {
    fields.all(&FieldName::new("Cache-Control")).any(|v| {
        let text = String::from_utf8_lossy(v);
        text.split(',').any(|d| d.trim().eq_ignore_ascii_case(directive))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in pairs {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    #[test]
    fn tags_are_marked_and_known_again() {
        for (tag, want) in [
            ("\"a\"", Some("W/\"a-gzip\"")),
            ("W/\"a,b\"", Some("W/\"a,b-gzip\"")),
            ("a", None),
            ("\"\"", Some("W/\"-gzip\"")),
        ] {
            let mut f = fields(&[("ETag", tag)]);
            mark_etag(&mut f, "gzip");
            assert_eq!(f.text(&names::ETAG), want, "{tag}");
        }
        for (list, want, found) in [
            ("W/\"a-gzip\"", "\"a\"", Some("gzip")),
            ("\"x\", W/\"a,b-br\" , \"y\"", "\"x\", \"a,b\", \"y\"", Some("br")),
            ("*", "*", None),
            ("\"a\"", "\"a\"", None),
        ] {
            let mut f = fields(&[("If-None-Match", list)]);
            assert_eq!(unmark_conditions(&mut f, &["gzip", "br"]), found, "{list}");
            assert_eq!(f.text(&FieldName::new("If-None-Match")), Some(want), "{list}");
        }
    }

    #[test]
    fn vary_and_bytes() {
        let mut f = fields(&[("Vary", "accept, Origin"), ("Digest", "x"), ("X", "y")]);
        vary(&mut f, "Accept");
        vary(&mut f, "Accept-Encoding");
        forget_bytes(&mut f);
        assert_eq!(f.all(&names::VARY).count(), 2);
        assert_eq!(f.len(), 3);
        assert!(cache_control_says(&fields(&[("Cache-Control", "max-age=1, No-Transform")]), "no-transform"));
    }
}
