//! `json-xml`: clients and services that speak JSON and XML understand each other.

mod convention;
mod to_json;
mod to_xml;

use convention::{Convention, PRESETS};

use super::representation::list;
use super::{Answer, Cx, Descriptor, Effect, Flow, Policy, Reply, media, representation};
use crate::body::coding::{Bounds, Coding, decode_all};
use crate::body::xml_chars::is_name;
use crate::body::{Fault, Kind as FaultKind, xml, xml_write};
use crate::diag::codes;
use crate::exchange::Exchange;
use crate::json;
use crate::message::{FieldName, Fields, Version, names};
use crate::model::schema::{Field, Kind, Record, TEXT};
use crate::telemetry::Why;

const COUNT: Kind = Kind::Int { min: 1, max: 10_000_000 };

static PLUGIN: Descriptor = Descriptor {
    name: "json-xml",
    summary: "let clients and services that speak JSON and XML understand each other",
    doc: "\
## What it does
Converts bodies of requests and responses between JSON and XML.

## Why
A service that speaks XML can be given to clients that speak JSON, and the other way round, without a line of code.

## Example
```yaml
plugins:
  - name: json-xml
    config:
      service: xml
      arrays: [/orders/order]
```
A client's `{\"order\":{\"@id\":7,\"item\":[\"tea\",\"milk\"]}}` reaches the service as
`<order id=\"7\"><item>tea</item><item>milk</item></order>`.

## Behaviour
**Requests.** A body of the other format is converted before the service sees anything of it. What is malformed, or has no
form in the other format, is answered 400 with the place of the fault; what exceeds a limit 413; a charset other than
UTF-8, a `Content-Encoding` (unless `request-decompression` took it off), and with `other_types: refuse` any other type, 415. Bodies in the service's own format pass
as they are.

**Responses.** With `response: accept` the client's `Accept` decides; where it has no preference, or there is none, the
format of the request's body, then the service's. The service is then asked for its own format, uncompressed and whole
(`Accept`, `Accept-Encoding` and `Range` are set for that). `Vary: Accept` is added, `ETag` marked, and tags that
clients send back are unmarked. An answer that cannot be converted, or is longer than `gateway.limits.buffered_body`, is
answered 502; nothing of it is passed on. Answers of other types pass as they are, so do those of the gateway itself.

**The convention** (`preset: gw`). An element is a member; repeated elements are an array, a single one is not unless
`arrays` lists its path. Attributes are members `@name`. Text is a string, or the member `#text` beside attributes.
An empty element is null. Prefixes are kept, declarations are `@xmlns` and `@xmlns:prefix`. Comments, processing
instructions and white space between elements are dropped, CDATA is text. Mixed text and elements are an error, or with
`mixed: ordered` the list `#content`. Values stay strings unless `types: infer`. From JSON, an object with one member
becomes that element, all else is put into `root` (an array: `array` with `item`s); numbers keep their digits; null is an
empty element. The order of differently named siblings is lost, nothing else. `badgerfish` (text always `$`, namespaces in
`@xmlns`), `parker` (no attributes, no root) and `apigee` (attributes without prefix, no namespaces; `#attrs`,
`#namespaces` and replaced names towards XML) are as those are known.

XML must be well-formed in full and namespace-correct, in UTF-8, without a document type declaration, so there are no
entities beyond XML's five; JSON must follow RFC 8259, with no name twice in an object.
",
    fields: &[
        Field::new("service", Kind::Enum(&["json", "xml"]), "The format that the service speaks.").required(),
        Field::new(
            "request",
            Kind::Enum(&["convert", "pass"]),
            "Whether request bodies of the other format are converted.",
        )
        .default("\"convert\""),
        Field::new(
            "response",
            Kind::Enum(&["accept", "convert", "pass"]),
            "Whether responses are converted: as `Accept` says, always, or never.",
        )
        .default("\"accept\""),
        Field::new(
            "other_types",
            Kind::Enum(&["refuse", "pass"]),
            "What happens to request bodies that are neither JSON nor XML.",
        )
        .default("\"refuse\""),
        Field::new("preset", Kind::Enum(PRESETS), "The convention by which JSON and XML correspond.")
            .default("\"gw\""),
        Field::new(
            "arrays",
            Kind::List(&TEXT),
            "Elements that are arrays even where there is one: paths of names such as `/orders/order`; `*` is any name.",
        )
        .default("[]"),
        Field::new("root", TEXT, "The root element for JSON that has none.").default("\"Root\""),
        Field::new("array", TEXT, "The root element for an array.").default("\"Array\""),
        Field::new("item", TEXT, "The element for an item of such an array, or of one within an array.")
            .default("\"Item\""),
        Field::new(
            "invalid_names",
            Kind::Enum(&["refuse", "replace"]),
            "What happens to names that XML cannot have; replaced characters become `_`. The preset decides if not given.",
        ),
        Field::new("mixed", Kind::Enum(&["refuse", "ordered"]), "What happens to mixed text and elements.")
            .default("\"refuse\""),
        Field::new(
            "types",
            Kind::Enum(&["strings", "infer"]),
            "Whether text that looks like a number (of up to 15 digits) or truth value becomes one.",
        )
        .default("\"strings\""),
        Field::new("max_depth", Kind::Int { min: 1, max: 200 }, "Deepest nesting.").default("64"),
        Field::new("max_nodes", COUNT, "Most values or elements of a document.").default("250000"),
        Field::new("max_attributes", Kind::Int { min: 1, max: 10_000 }, "Most attributes of an element.")
            .default("256"),
        Field::new("max_name", COUNT, "Longest name, in bytes.").default("1024"),
        Field::new("max_text", COUNT, "Longest text or string, in bytes.").default("10000000"),
    ],
    consumer_scope: true,
    extension: true,
    identity_headers: &[],
};

/// A document's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Xml,
}

impl Format {
    fn of(fields: &Fields) -> Option<Self> {
        let (media, _) = media::parse(fields.text(&names::CONTENT_TYPE)?);
        if media::is_json(&media) {
            Some(Self::Json)
        } else if media::is_xml(&media) {
            Some(Self::Xml)
        } else {
            None
        }
    }

    fn other(self) -> Self {
        if self == Self::Json { Self::Xml } else { Self::Json }
    }

    /// What the format is called in messages.
    fn name(self) -> &'static str {
        if self == Self::Json { "JSON" } else { "XML" }
    }

    fn media_type(self) -> &'static str {
        if self == Self::Json { "application/json" } else { "application/xml" }
    }

    /// The content type of a converted body: JSON needs no charset, for XML it is what the declaration says.
    fn content_type(self) -> &'static str {
        if self == Self::Json { "application/json" } else { "application/xml; charset=utf-8" }
    }

    /// What the format's entity tags are marked with.
    fn mark(self) -> &'static str {
        if self == Self::Json { "json" } else { "xml" }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Accept,
    Always,
    Never,
}

/// See the module.
pub struct JsonXml {
    service: Format,
    convert_requests: bool,
    responses: When,
    refuse_others: bool,
    convention: Convention,
    json: json::Limits,
    xml: xml::Limits,
}

/// The client is to get the other format.
struct WantsOther;

/// The response's body is to be converted, after these codings are taken off; or cannot be.
struct Converting(Result<Vec<Coding>, &'static str>);

impl Policy for JsonXml {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let says = |field: &str, value: &str| config.str(field) == Some(value);
        let count = |field: &str| config.int(field).and_then(|n| usize::try_from(n).ok());
        let mut convention = Convention::preset(config.str("preset").unwrap_or_default());
        let mut good = true;
        for (field, slot) in
            [("root", &mut convention.root), ("array", &mut convention.array), ("item", &mut convention.item)]
        {
            let name = config.str(field)?;
            if !is_name(name) {
                let message = format!("`{name}` cannot be the name of an element");
                cx.report(&codes::INVALID_VALUE, config.span_of(field), message);
                good = false;
            }
            name.clone_into(slot);
        }
        for path in config.strings("arrays") {
            match path.strip_prefix('/').map(|p| p.split('/').map(str::to_owned).collect::<Vec<_>>()) {
                Some(names) if names.iter().all(|n| !n.is_empty()) => convention.arrays.push(names),
                _ => {
                    let message = format!("`{}` is no path of names such as `/orders/order`", path.value);
                    cx.report(&codes::INVALID_VALUE, path.span, message);
                    good = false;
                }
            }
        }
        if let Some(names) = config.str("invalid_names") {
            convention.replace_names = names == "replace";
        }
        convention.mixed = says("mixed", "ordered").then_some("#content");
        convention.infer = says("types", "infer");
        let (depth, nodes, attributes) = (count("max_depth")?, count("max_nodes")?, count("max_attributes")?);
        let (name, text) = (count("max_name")?, count("max_text")?);
        good.then_some(Self {
            service: if says("service", "json") { Format::Json } else { Format::Xml },
            convert_requests: says("request", "convert"),
            responses: match config.str("response") {
                Some("convert") => When::Always,
                Some("pass") => When::Never,
                _ => When::Accept,
            },
            refuse_others: says("other_types", "refuse"),
            convention,
            json: json::Limits { depth, values: nodes, name, string: text, ..json::Limits::default() },
            xml: xml::Limits { depth, elements: nodes, attributes, name, text, ..xml::Limits::default() },
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        self.negotiate(x);
        if !self.convert_requests || !may_have_body(x) {
            return Flow::Next;
        }
        let fields = &x.request.fields;
        let format = Format::of(fields);
        if format == Some(self.service) || (format.is_none() && !self.refuse_others) {
            return Flow::Next;
        }
        Flow::Await(Effect::ReadBody { limit: x.snapshot.gateway.limits.buffered_body })
    }

    fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
        if let Answer::Body(Err(error)) = answer {
            return Flow::Reply(Reply::unread(x, error));
        }
        let Some(body) = x.body.clone().filter(|b| !b.is_empty()) else { return Flow::Next };
        match self.convert_request(&x.request.fields, &body) {
            Ok(converted) => {
                representation::forget_bytes(&mut x.request.fields);
                x.request.fields.set(&names::CONTENT_TYPE, self.service.content_type());
                x.body = Some(converted.into());
                Flow::Next
            }
            Err((status, message)) => {
                x.keep(Why(message.clone()));
                let reply = Reply::gateway_error(&x.request, x.request_id, status, &message);
                Flow::Reply(match status {
                    415 => reply.field(names::ACCEPT, "application/json, application/xml"),
                    _ => reply,
                })
            }
        }
    }

    fn response(&self, x: &mut Exchange) {
        if x.local_response || self.responses == When::Never {
            return;
        }
        let wants_other = x.kept::<WantsOther>().is_some();
        let fields = &mut x.response.fields;
        let format = Format::of(fields);
        // A 304 need not say what type the answer would be of.
        let convertible = format == Some(self.service) || (format.is_none() && x.response.status == 304);
        if self.responses == When::Accept && (format.is_some() || x.response.status == 304) {
            representation::vary(fields, "Accept");
        }
        if !convertible || !wants_other {
            return;
        }
        let target = self.service.other();
        representation::mark_etag(fields, target.mark());
        if format.is_none() {
            return;
        }
        let (_, charset) = media::parse(fields.text(&names::CONTENT_TYPE).unwrap_or_default());
        // The service was asked for no coding, but may not have listened.
        let codings = match media::is_utf8(charset.as_deref()) {
            true => representation::codings(fields).ok_or("its content encoding is not supported"),
            false => Err("its charset is not UTF-8"),
        };
        representation::forget_bytes(fields);
        fields.remove(&names::CONTENT_ENCODING);
        fields.set(&names::CONTENT_TYPE, target.content_type());
        x.keep(Converting(codings));
    }

    fn wants_response_body(&self, x: &Exchange) -> bool {
        !x.local_response && x.kept::<Converting>().is_some()
    }

    fn response_body(&self, x: &mut Exchange, body: Vec<u8>) -> Result<Vec<u8>, Reply> {
        if body.is_empty() {
            return Ok(body);
        }
        let size = x.snapshot.gateway.limits.buffered_body;
        let plain = match x.kept::<Converting>() {
            Some(Converting(Ok(codings))) => {
                decode_all(codings, body, Bounds { size, ratio: usize::MAX }).map_err(|e| e.what().to_owned())
            }
            Some(Converting(Err(problem))) => Err((*problem).to_owned()),
            None => return Ok(body),
        };
        let what = match plain.map(|body| self.convert(self.service, &body)) {
            Ok(Ok(converted)) => return Ok(converted),
            Ok(Err(fault)) => fault.to_string(),
            Err(problem) => problem,
        };
        // The service's mistake is for the log; the client learns whose it is.
        let name = self.service.name();
        x.keep(Why(format!("the service's {name} cannot be converted: {what}")));
        let message = format!("The service's answer is no {name} that can be converted");
        Err(Reply::gateway_error(&x.request, x.request_id, 502, &message))
    }
}

impl JsonXml {
    /// Finds out which format the client is to get, and asks the service for what can be converted.
    fn negotiate(&self, x: &mut Exchange) {
        let (own, other) = (self.service, self.service.other());
        let mark = [other.mark()];
        if self.responses == When::Never {
            return;
        }
        let came_in_other = may_have_body(x) && Format::of(&x.request.fields) == Some(other);
        let fields = &mut x.request.fields;
        let wants_other = match self.responses {
            When::Always => true,
            _ => {
                let accept = list(fields, &names::ACCEPT);
                match (quality(&accept, own), quality(&accept, other)) {
                    (mine, theirs) if mine == theirs => came_in_other && (mine > 0 || accept.is_empty()),
                    (mine, theirs) => theirs > mine,
                }
            }
        };
        // Tags of the other variant mean nothing to the service; nothing is lost where there are none.
        representation::unmark_conditions(fields, &mark);
        if wants_other {
            let said = fields.text(&names::ACCEPT).or_else(|| fields.text(&names::CONTENT_TYPE));
            x.request.error_type = Some(said.unwrap_or(other.media_type()).to_owned());
            fields.set(&names::ACCEPT, own.media_type());
            for name in ["Accept-Encoding", "Accept-Charset", "Range", "If-Range"].map(FieldName::new) {
                fields.remove(&name);
            }
            x.keep(WantsOther);
        }
    }

    /// The request's body in the service's format, or what to answer.
    fn convert_request(&self, fields: &Fields, body: &[u8]) -> Result<Vec<u8>, (u16, String)> {
        let Some(format) = Format::of(fields) else {
            return Err((415, "The body must be JSON or XML".to_owned()));
        };
        let (_, charset) = media::parse(fields.text(&names::CONTENT_TYPE).unwrap_or_default());
        if !media::is_utf8(charset.as_deref()) {
            return Err((415, "The body's charset must be UTF-8".to_owned()));
        }
        if representation::codings(fields).is_none_or(|c| !c.is_empty()) {
            return Err((415, "The body must not be compressed".to_owned()));
        }
        self.convert(format, body).map_err(|fault| {
            let status = if fault.kind == FaultKind::Excessive { 413 } else { 400 };
            (status, format!("The body is no {} that can be converted: {fault}", format.name()))
        })
    }

    /// A document of this format in the other one.
    fn convert(&self, from: Format, body: &[u8]) -> Result<Vec<u8>, Fault> {
        match from {
            Format::Json => {
                let json = json::parse(body, &self.json)?;
                Ok(xml_write::document(&to_xml::convert(&json, &self.convention)?).into_bytes())
            }
            Format::Xml => {
                let root = xml::parse(body, &self.xml)?;
                Ok(to_json::convert(&root, &self.convention)?.to_vec())
            }
        }
    }
}

/// Whether the request may come with a body; on HTTP/2 only reading tells.
fn may_have_body(x: &Exchange) -> bool {
    let fields = &x.request.fields;
    let length = fields.text(&names::CONTENT_LENGTH).is_some_and(|n| n != "0");
    length
        || fields.contains(&names::TRANSFER_ENCODING)
        || (x.request.version == Version::H2 && fields.contains(&names::CONTENT_TYPE))
        || x.body.as_ref().is_some_and(|b| !b.is_empty())
}

/// How much `Accept` likes a format: the most specific range that names it decides (RFC 9110 12.5.1).
fn quality(accept: &str, format: Format) -> u16 {
    let (mut exact, mut family, mut any) = (None, None, None);
    for (range, q) in media::weighted(accept) {
        let range = range.to_ascii_lowercase();
        let named = match format {
            Format::Json => media::is_json(&range),
            Format::Xml => media::is_xml(&range),
        };
        let slot = match range.as_str() {
            _ if named => &mut exact,
            "application/*" => &mut family,
            "*/*" => &mut any,
            _ => continue,
        };
        // The list is sorted, so the first is the best.
        slot.get_or_insert(q);
    }
    exact.or(family).or(any).unwrap_or(0)
}

#[cfg(test)]
mod tests;
