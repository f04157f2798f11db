//! Fields to a request's head, refusing what RFC 9113 8.2 and 8.3 and our limits refuse.

use super::connection::Config;
use super::frame::Code;
use super::hpack::{Field, Kind};
use crate::http1::scan::{content_length, is_target};
use crate::http1::{Framing, request as h1};
use crate::message::{RequestHead, Version, names, tags};

/// What a CONNECT asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    /// A tunnel to somewhere, without `:protocol`.
    Plain,
    /// A WebSocket (RFC 8441).
    WebSocket,
    /// Another protocol.
    Other,
}

/// What a request says about its stream and body, beside its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    pub framing: Framing,
    /// `Expect: 100-continue`.
    pub expect_continue: bool,
    /// `TE: trailers`.
    pub te_trailers: bool,
    pub connect: Option<Connect>,
    /// The status and message that the request is answered with, whatever it asks for.
    pub refused: Option<(u16, &'static str)>,
}

const METHOD: u8 = 1;
const SCHEME: u8 = 2;
const AUTHORITY: u8 = 4;
const PATH: u8 = 8;
const PROTOCOL: u8 = 16;

const BAD: (u16, &str) = (400, "Bad request");
const TOO_LARGE: (u16, &str) = (431, "Request header or cookie too large");

/// Reads the fields of one request, in their order.
pub struct Reader<'a> {
    head: &'a mut RequestHead,
    config: &'a Config,
    meta: Meta,
    /// The pseudo-fields that came.
    seen: u8,
    /// A field that is none came, so no pseudo-field may.
    fields: bool,
    malformed: bool,
    /// Bytes and number of all fields.
    size: usize,
    count: usize,
    cookie: Vec<u8>,
    length: Option<u64>,
    host: bool,
    authorization: bool,
}

impl<'a> Reader<'a> {
    /// Reads into `head`.
    pub fn new(head: &'a mut RequestHead, config: &'a Config) -> Self {
        head.clear();
        head.version = Version::H2;
        Self {
            head,
            config,
            meta: Meta::default(),
            seen: 0,
            fields: false,
            malformed: false,
            size: 0,
            count: 0,
            cookie: Vec::new(),
            length: None,
            host: false,
            authorization: false,
        }
    }

    /// Takes the next field. What is beyond the limits is not kept.
    #[inline]
    pub fn field(&mut self, field: Field<'_>) {
        self.size += field.name.len() + field.value.len() + 32;
        if self.size > self.config.header_bytes {
            self.refuse(TOO_LARGE);
            return;
        }
        match field.kind {
            Kind::Field => self.regular(field),
            Kind::Pseudo => self.pseudo(field),
            Kind::Bad => self.malformed = true,
        }
    }

    fn refuse(&mut self, why: (u16, &'static str)) {
        self.meta.refused.get_or_insert(why);
    }

    fn pseudo(&mut self, field: Field<'_>) {
        let value = field.value;
        let which = match field.name {
            b":method" => METHOD,
            b":scheme" => SCHEME,
            b":authority" => AUTHORITY,
            b":path" => PATH,
            b":protocol" => PROTOCOL,
            _ => 0,
        };
        if which == 0 || self.fields || self.seen & which != 0 {
            self.malformed = true;
            return;
        }
        self.seen |= which;
        match which {
            METHOD => self.method(value),
            PATH => self.path(value),
            AUTHORITY if h1::set_host(&mut self.head.host, value).is_err() => self.refuse(BAD),
            PROTOCOL => {
                let websocket = value.eq_ignore_ascii_case(b"websocket");
                self.meta.connect = Some(if websocket { Connect::WebSocket } else { Connect::Other });
            }
            _ => {}
        }
    }

    fn method(&mut self, value: &[u8]) {
        match (h1::check_method(value), std::str::from_utf8(value)) {
            (Ok(()), Ok(method)) => self.head.method.push_str(method),
            (Err(reject), _) => self.refuse((reject.status, BAD.1)),
            _ => self.refuse(BAD),
        }
        if value == b"TRACE" {
            self.refuse((405, "Method not allowed"));
        }
    }

    fn path(&mut self, value: &[u8]) {
        if value.is_empty() {
            self.malformed = true;
        } else if value.len() > self.config.uri {
            self.refuse((414, "URI too long"));
        } else if value == b"*" {
            self.head.raw_path.push('*');
        } else if value[0] != b'/' || !is_target(value) {
            self.refuse(BAD);
        } else {
            h1::set_target(self.head, value);
        }
    }

    fn regular(&mut self, field: Field<'_>) {
        let Field { tag, name, value, .. } = field;
        self.fields = true;
        self.count += 1;
        if self.count > self.config.header_count {
            self.refuse(TOO_LARGE);
            return;
        }
        match tag {
            // Fields of one connection (RFC 9113 8.2.2).
            tags::CONNECTION
            | tags::KEEP_ALIVE
            | tags::PROXY_CONNECTION
            | tags::TRANSFER_ENCODING
            | tags::UPGRADE => {
                self.malformed = true;
            }
            tags::TE => match value.eq_ignore_ascii_case(b"trailers") {
                true => self.meta.te_trailers = true,
                false => self.malformed = true,
            },
            tags::HOST => self.host_field(value),
            tags::CONTENT_LENGTH => match content_length(value) {
                Ok(n) if self.length.is_none_or(|l| l == n) => self.length = Some(n),
                _ => self.malformed = true,
            },
            tags::EXPECT => match value.eq_ignore_ascii_case(b"100-continue") {
                true => self.meta.expect_continue = true,
                false => self.refuse((417, "Expectation failed")),
            },
            // Crumbs of one field (RFC 9113 8.2.3).
            tags::COOKIE => {
                if !self.cookie.is_empty() {
                    self.cookie.extend_from_slice(b"; ");
                }
                self.cookie.extend_from_slice(value);
            }
            tags::AUTHORIZATION if std::mem::replace(&mut self.authorization, true) => self.refuse(BAD),
            _ => self.head.fields.push_tagged(tag, name, value),
        }
    }

    /// RFC 9113 8.3.1: it must not differ from the authority. Nor may there be two.
    fn host_field(&mut self, value: &[u8]) {
        if std::mem::replace(&mut self.host, true) {
            self.refuse(BAD);
        } else if self.seen & AUTHORITY != 0 {
            if !self.head.host.as_bytes().eq_ignore_ascii_case(value) {
                self.refuse(BAD);
            }
        } else if h1::set_host(&mut self.head.host, value).is_err() {
            self.refuse(BAD);
        }
    }

    /// The head is whole; `end` says that no body follows.
    ///
    /// # Errors
    /// The request is malformed: its stream is taken back.
    pub fn finish(mut self, end: bool) -> Result<Meta, Code> {
        if self.malformed {
            return Err(Code::PROTOCOL_ERROR);
        }
        if !self.cookie.is_empty() {
            self.head.fields.put(&names::COOKIE, &self.cookie);
        }
        // What is missing may be beyond the limit.
        if self.meta.refused != Some(TOO_LARGE) {
            self.complete()?;
        }
        if self.head.raw_path.is_empty() {
            self.head.raw_path.push('/');
        }
        self.meta.framing = match (end, self.length) {
            (true, None | Some(0)) => Framing::None,
            (true, Some(_)) => return Err(Code::PROTOCOL_ERROR),
            (false, Some(n)) => Framing::Length(n),
            (false, None) => Framing::Chunked,
        };
        Ok(self.meta)
    }

    fn complete(&mut self) -> Result<(), Code> {
        let has = |which| self.seen & which == which;
        match (self.head.method == "CONNECT", has(PROTOCOL)) {
            (false, true) => return Err(Code::PROTOCOL_ERROR),
            (true, false) if has(PATH) || has(SCHEME) => return Err(Code::PROTOCOL_ERROR),
            (true, false) => {
                self.meta.connect = Some(Connect::Plain);
                self.refuse((405, "Method not allowed"));
            }
            _ if !has(METHOD | PATH | SCHEME) => return Err(Code::PROTOCOL_ERROR),
            (true, true) if !self.config.connect_protocol || self.meta.connect == Some(Connect::Other) => {
                self.refuse((501, "Not implemented"));
            }
            _ => {}
        }
        if self.head.host.is_empty() {
            self.refuse(BAD);
        }
        if self.head.raw_path == "*" && self.head.method != "OPTIONS" {
            self.refuse(BAD);
        }
        Ok(())
    }
}
