//! Field names. The names that the data plane itself looks at have a tag, so that finding one is a comparison of
//! bytes, not of texts.

use std::borrow::Cow;

/// The name of a header field: compared without case, written as given.
#[derive(Clone, Debug)]
pub struct FieldName {
    tag: u8,
    text: Cow<'static, str>,
}

/// The tag of a name that has none of its own.
pub const OTHER: u8 = 0;

impl FieldName {
    const fn known(tag: u8, text: &'static str) -> Self {
        Self { tag, text: Cow::Borrowed(text) }
    }

    /// A name chosen by a config. Make it at load, not per request.
    pub fn new(text: &str) -> Self {
        Self { tag: tag_of(text.as_bytes()), text: Cow::Owned(text.to_owned()) }
    }

    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The tag, [`OTHER`] if the name has none.
    pub const fn tag(&self) -> u8 {
        self.tag
    }

    /// Whether a field with this tag and name is meant.
    #[inline]
    pub fn is(&self, tag: u8, name: &[u8]) -> bool {
        self.tag == tag && (tag != OTHER || name.eq_ignore_ascii_case(self.text.as_bytes()))
    }
}

impl PartialEq for FieldName {
    fn eq(&self, other: &Self) -> bool {
        self.is(other.tag, other.text.as_bytes())
    }
}

macro_rules! names {
    ($($name:ident = $tag:literal $text:literal;)*) => {
        /// The names with a tag of their own.
        pub mod names {
            use super::FieldName;
            $(#[doc = $text] pub const $name: FieldName = FieldName::known($tag, $text);)*
        }
        /// The tags themselves, for matching.
        pub mod tags {
            $(#[doc = $text] pub const $name: u8 = $tag;)*
        }
        const TEXTS: &[(u8, &str)] = &[$(($tag, $text)),*];
    };
}

names! {
    CONNECTION = 1 "Connection";
    KEEP_ALIVE = 2 "Keep-Alive";
    PROXY_CONNECTION = 3 "Proxy-Connection";
    TRANSFER_ENCODING = 4 "Transfer-Encoding";
    TE = 5 "TE";
    TRAILER = 6 "Trailer";
    UPGRADE = 7 "Upgrade";
    CONTENT_LENGTH = 8 "Content-Length";
    CONTENT_TYPE = 9 "Content-Type";
    EXPECT = 10 "Expect";
    AUTHORIZATION = 11 "Authorization";
    PROXY_AUTHORIZATION = 12 "Proxy-Authorization";
    COOKIE = 13 "Cookie";
    ORIGIN = 14 "Origin";
    ACCEPT = 15 "Accept";
    USER_AGENT = 16 "User-Agent";
    X_FORWARDED_FOR = 17 "X-Forwarded-For";
    X_FORWARDED_PROTO = 18 "X-Forwarded-Proto";
    X_FORWARDED_HOST = 19 "X-Forwarded-Host";
    X_FORWARDED_PORT = 20 "X-Forwarded-Port";
    X_FORWARDED_PATH = 21 "X-Forwarded-Path";
    X_FORWARDED_PREFIX = 22 "X-Forwarded-Prefix";
    X_REAL_IP = 23 "X-Real-IP";
    VIA = 24 "Via";
    DATE = 25 "Date";
    SERVER = 26 "Server";
    HOST = 27 "Host";
    PROXY = 28 "Proxy";
    LOCATION = 29 "Location";
    VARY = 30 "Vary";
    WWW_AUTHENTICATE = 31 "WWW-Authenticate";
    X_KONG_REQUEST_ID = 32 "X-Kong-Request-Id";
    ETAG = 33 "ETag";
    CONTENT_ENCODING = 34 "Content-Encoding";
    RETRY_AFTER = 35 "Retry-After";
    HTTP2_SETTINGS = 36 "HTTP2-Settings";
    X_FORWARDED_CLIENT_CERT = 37 "X-Forwarded-Client-Cert";
}

// Sets of tags are kept as the bits of one word.
const _: () = assert!(TEXTS.len() < 64);

/// How many slots the look-up table has; with this multiplier no two tagged names share one.
const SLOTS: usize = 256;

const fn slot(name: &[u8]) -> usize {
    let n = name.len();
    if n == 0 {
        return 0;
    }
    let a = (name[0] | 0x20) as usize;
    let b = (name[n - 1] | 0x20) as usize;
    let c = (name[n / 2] | 0x20) as usize;
    (n * 19 + a * 7 + b * 31 + c * 5) % SLOTS
}

/// Up to four tags share a slot of the table.
static TABLE: [[u8; 4]; SLOTS] = {
    let mut table = [[OTHER; 4]; SLOTS];
    let mut i = 0;
    while i < TEXTS.len() {
        let s = slot(TEXTS[i].1.as_bytes());
        let mut k = 0;
        while table[s][k] != OTHER {
            k += 1;
        }
        table[s][k] = TEXTS[i].0;
        i += 1;
    }
    table
};

/// The tag of a name in any case.
#[inline]
pub fn tag_of(name: &[u8]) -> u8 {
    for &tag in &TABLE[slot(name)] {
        if tag == OTHER {
            return OTHER;
        }
        // Tags are numbered from 1 in the order of TEXTS; a test holds the table to it.
        if TEXTS[tag as usize - 1].1.as_bytes().eq_ignore_ascii_case(name) {
            return tag;
        }
    }
    OTHER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tagged_name_is_found_in_any_case() {
        for (i, (tag, text)) in TEXTS.iter().enumerate() {
            assert_eq!(*tag as usize, i + 1);
            assert_eq!(tag_of(text.as_bytes()), *tag);
            assert_eq!(tag_of(text.to_ascii_lowercase().as_bytes()), *tag);
        }
        assert_eq!(tag_of(b"x-whatever"), OTHER);
        assert_eq!(tag_of(b""), OTHER);
    }

    #[test]
    fn names_compare_without_case() {
        assert_eq!(FieldName::new("x-USER-id"), FieldName::new("X-User-Id"));
        assert_ne!(FieldName::new("x"), FieldName::new("y"));
        assert_eq!(FieldName::new("content-LENGTH"), names::CONTENT_LENGTH);
    }
}
