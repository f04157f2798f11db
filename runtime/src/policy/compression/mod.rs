//! `compression`: responses are sent in a content coding that the client takes.

mod accept;
mod stream;

use super::representation::{self, list};
use super::{BodyFilter, Cx, Descriptor, Flow, Policy, media};
use crate::body::coding::{Coding, Decoder, Encoder};
use crate::diag::codes;
use crate::exchange::Exchange;
use crate::message::{FieldName, Fields, Version, names};
use crate::model::schema::{Field, Kind, Record, TEXT};
use stream::Recoder;

static PLUGIN: Descriptor = Descriptor {
    name: "compression",
    summary: "send responses in gzip, br, zstd or deflate",
    doc: "\
## What it does
Compresses the bodies of responses as they pass, if the client takes it and the body is worth it.

## Why
JSON and text become a fifth of their size or less; slow networks feel it, and so does the bill.

## Example
```yaml
plugins:
  - name: compression
    config:
      algorithms: [zstd, br, gzip]
      min_length: 1024
```

## Behaviour
The coding is the one that `Accept-Encoding` gives the highest `q`, of equal ones the first in `algorithms`. A response is
compressed if its type is in `content_types`, and its length at least `min_length` or unknown. Bodies stream: what the
upstream sends goes out when it pauses, so slow answers are not held back.

A compressed response has `Content-Encoding`, no `Content-Length`, `Accept-Ranges` or digests, and its `ETag` becomes weak
and gets the coding's name (`\"a\"` is `W/\"a-gzip\"`). Tags with such a name in `If-None-Match` and `If-Match` reach the
upstream as its own again, and its 304 the client with the name. `Vary: Accept-Encoding` is added to every response that
could have been compressed. `HEAD` gets the same fields as `GET`.

Never compressed are: partial responses (206) and those without a body, `Cache-Control: no-transform` (of the response or
the request), types that are not listed, `text/event-stream` (unless `event_streams`; each event is then sent at once),
gRPC, and bodies that are encoded already. With `recompress`, bodies in a coding that the client does not take are decoded and
compressed anew if it takes another; one that is malformed breaks off, so that the client can tell.

Other policies see the body as the upstream sent it; where these must read it, `upstream_encoding: identity` asks the
upstream for uncompressed bodies. Do not compress pages that contain both a secret and what the client sent: their length
tells of the secret (BREACH).
",
    fields: &[
        Field::new("algorithms", Kind::Set(&Kind::Enum(ALGORITHMS)), "The codings offered, the preferred one first.")
            .default(r#"["zstd","br","gzip"]"#),
        Field::new(
            "content_types",
            Kind::List(&TEXT),
            "Types that are compressed: `type/subtype`, `type/*` or `*+suffix`.",
        )
        .default(TYPES),
        Field::new(
            "min_length",
            Kind::Int { min: 0, max: i64::MAX },
            "Bodies that are known to be shorter are not compressed, in bytes.",
        )
        .default("1024"),
        Field::new("levels", Kind::Record(LEVELS), "How hard to try, by coding: each has a scale of its own.")
            .default("{}"),
        Field::new("event_streams", Kind::Bool, "Whether `text/event-stream` is compressed, event by event.")
            .default("false"),
        Field::new("recompress", Kind::Bool, "Whether codings that the client does not take are replaced.")
            .default("false"),
        Field::new(
            "upstream_encoding",
            Kind::Enum(&["client", "identity"]),
            "What the upstream is asked for: what the client takes, or uncompressed bodies.",
        )
        .default("\"client\""),
    ],
    consumer_scope: true,
    extension: true,
    identity_headers: &[],
};

const ALGORITHMS: &[&str] = &["gzip", "br", "zstd", "deflate"];

const TYPES: &str = r#"["text/*","application/json","*+json","application/xml","*+xml","application/javascript","application/x-ndjson","application/wasm","application/graphql","font/ttf","font/otf","application/vnd.ms-fontobject"]"#;

/// Levels beyond which a coding gains little on an API's bodies and costs much: see `benches/coding.rs`.
const LEVELS: &[Field] = &[
    Field::new("gzip", Kind::Int { min: 1, max: 9 }, "1 to 9.").default("4"),
    Field::new("deflate", Kind::Int { min: 1, max: 9 }, "1 to 9.").default("4"),
    Field::new("br", Kind::Int { min: 0, max: 9 }, "0 to 9.").default("4"),
    Field::new("zstd", Kind::Int { min: 1, max: 12 }, "1 to 12.").default("3"),
];

/// A pattern of content types, in lower case.
enum Type {
    Exact(String),
    /// `text/`.
    Family(String),
    /// `+json`.
    Suffix(String),
}

impl Type {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let token =
            |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_graphic() && !b"*/;,\"".contains(&b));
        if let Some(suffix) = text.strip_prefix("*+") {
            return token(suffix).then(|| Self::Suffix(format!("+{suffix}")));
        }
        let (family, sub) = text.split_once('/')?;
        match (token(family), sub) {
            (true, "*") => Some(Self::Family(format!("{family}/"))),
            (true, sub) if token(sub) => Some(Self::Exact(text)),
            _ => None,
        }
    }

    fn admits(&self, media: &str) -> bool {
        match self {
            Self::Exact(text) => media == text,
            Self::Family(start) => media.starts_with(start.as_str()),
            Self::Suffix(end) => media.ends_with(end.as_str()),
        }
    }
}

/// See the module.
pub struct Compression {
    /// With their levels, the preferred one first.
    offered: Vec<Coding>,
    levels: [u32; Coding::ALL.len()],
    types: Vec<Type>,
    min_length: u64,
    event_streams: bool,
    recompress: bool,
    ask_identity: bool,
    accept_encoding: FieldName,
}

/// What the client takes, and which of its tags was of a compressed response.
struct Asked {
    accept: String,
    tagged: Option<&'static str>,
}

impl Policy for Compression {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let mut types = Vec::new();
        for text in config.strings("content_types") {
            match Type::parse(&text) {
                Some(t) => types.push(t),
                None => {
                    let message = format!("`{}` is no `type/subtype`, `type/*` or `*+suffix`", text.value);
                    cx.report(&codes::INVALID_VALUE, text.span, message);
                    return None;
                }
            }
        }
        let offered: Vec<_> = config.strings("algorithms").iter().filter_map(|t| Coding::parse(t)).collect();
        if offered.is_empty() {
            let message = "`algorithms` names no coding, so nothing would be compressed";
            cx.report(&codes::INVALID_VALUE, config.span_of("algorithms"), message);
            return None;
        }
        let mut levels = [0; Coding::ALL.len()];
        for coding in Coding::ALL {
            let level = config.record("levels").and_then(|l| l.int(coding.name()));
            levels[coding as usize] = level.and_then(|n| u32::try_from(n).ok())?;
        }
        Some(Self {
            offered,
            levels,
            types,
            min_length: config.int("min_length").and_then(|n| u64::try_from(n).ok())?,
            event_streams: config.bool("event_streams"),
            recompress: config.bool("recompress"),
            ask_identity: config.str("upstream_encoding") == Some("identity"),
            accept_encoding: FieldName::new("Accept-Encoding"),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        let fields = &mut x.request.fields;
        let accept = list(fields, &self.accept_encoding);
        let tagged = representation::unmark_conditions(fields, ALGORITHMS);
        if self.ask_identity {
            fields.remove(&self.accept_encoding);
        }
        if representation::cache_control_says(fields, "no-transform") {
            return Flow::Next;
        }
        x.keep(Asked { accept, tagged });
        Flow::Next
    }

    fn filters_response(&self) -> bool {
        true
    }

    fn response_filter(&self, x: &mut Exchange, length: Option<u64>) -> Option<Box<dyn BodyFilter>> {
        if x.response.status == 304 {
            self.not_modified(x);
            return None;
        }
        if !self.may_change(x) {
            return None;
        }
        let accept = match x.kept::<Asked>() {
            Some(asked) => asked.accept.clone(),
            // An answer of the gateway itself, from before this policy's turn.
            None if x.local_response => list(&x.request.fields, &self.accept_encoding),
            None => return None,
        };
        let (decoder, length) = match Self::present_coding(&x.response.fields) {
            Present::None => (None, length),
            Present::One(coding) if self.recompress => {
                // Whether it is changed depends on what the client takes.
                representation::vary(&mut x.response.fields, "Accept-Encoding");
                if accept::takes(&accept, coding) {
                    return None;
                }
                (Some(Decoder::new(coding)), None)
            }
            Present::One(_) | Present::Other => return None,
        };
        let listed = self.is_listed(&x.response.fields);
        if listed {
            representation::vary(&mut x.response.fields, "Accept-Encoding");
        }
        let worth = listed && length.is_none_or(|n| n >= self.min_length && n > 0);
        let chosen = worth.then(|| accept::choose(&accept, &self.offered)).flatten();
        let encoder = chosen.and_then(|c| Encoder::new(c, self.levels[c as usize]).map(|e| (c, e)));
        if decoder.is_none() && encoder.is_none() {
            return None;
        }
        let fields = &mut x.response.fields;
        representation::forget_bytes(fields);
        fields.remove(&names::CONTENT_ENCODING);
        let mark = match &encoder {
            Some((coding, _)) => {
                fields.append(&names::CONTENT_ENCODING, coding.name());
                coding.name()
            }
            None => "identity",
        };
        representation::mark_etag(fields, mark);
        Some(Box::new(Recoder::new(decoder, encoder.map(|(_, e)| e))))
    }
}

enum Present {
    None,
    One(Coding),
    Other,
}

impl Compression {
    /// Whether this response's body may be changed at all.
    fn may_change(&self, x: &Exchange) -> bool {
        let fields = &x.response.fields;
        let bodiless = matches!(x.response.status, 100..=199 | 204 | 205 | 206);
        let partial = fields.contains(&FieldName::new("Content-Range"));
        let grpc = x.request.version == Version::H2
            && fields.get(&names::CONTENT_TYPE).is_some_and(super::reply::is_grpc);
        !(bodiless || partial || grpc || representation::cache_control_says(fields, "no-transform"))
    }

    fn present_coding(fields: &Fields) -> Present {
        match representation::codings(fields).as_deref() {
            Some([]) => Present::None,
            Some([one]) => Present::One(*one),
            _ => Present::Other,
        }
    }

    fn is_listed(&self, fields: &Fields) -> bool {
        let Some(text) = fields.text(&names::CONTENT_TYPE) else { return false };
        let (media, _) = media::parse(text);
        if media == "text/event-stream" {
            return self.event_streams;
        }
        self.types.iter().any(|t| t.admits(&media))
    }

    /// A 304 is about the response that the client's tag was of.
    fn not_modified(&self, x: &mut Exchange) {
        let Some(mark) = x.kept::<Asked>().and_then(|a| a.tagged) else { return };
        representation::mark_etag(&mut x.response.fields, mark);
        representation::vary(&mut x.response.fields, "Accept-Encoding");
    }
}

#[cfg(test)]
mod tests;
