//! The fields that both sides know from the start (RFC 7541 appendix A).

use crate::message::name::{OTHER, tag_of};

/// Names and values, of which the first has number 1.
pub const FIELDS: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// How many there are.
pub const COUNT: usize = FIELDS.len();

/// The number of the first field of this lower-case name, 0 if there is none.
pub fn number_of(name: &[u8]) -> usize {
    // Those of pseudo-fields are never asked for: they are written by number.
    FIELDS[14..].iter().position(|(n, _)| n.as_bytes() == name).map_or(0, |at| at + 15)
}

/// The tags of the fields' names.
pub fn tags() -> &'static [u8; COUNT] {
    static TAGS: std::sync::LazyLock<[u8; COUNT]> = std::sync::LazyLock::new(|| {
        let mut tags = [OTHER; COUNT];
        for (tag, (name, _)) in tags.iter_mut().zip(FIELDS) {
            *tag = tag_of(name.as_bytes());
        }
        tags
    });
    &TAGS
}
