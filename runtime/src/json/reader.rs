//! JSON (RFC 8259) as a stream of events: strict, iterative, within bounds, numbers as they are written.

use std::borrow::Cow;

use ahash::AHashSet;

use crate::body::{Fault, Kind, utf8};

/// Bounds on a document. Each is the most that is allowed.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Arrays and objects within each other.
    pub depth: usize,
    /// Values in all.
    pub values: usize,
    /// Members of one object.
    pub members: usize,
    /// Items of one array.
    pub items: usize,
    /// Bytes of a member's name.
    pub name: usize,
    /// Bytes of a string.
    pub string: usize,
    /// Whether an object may have a name twice.
    pub duplicates: bool,
}

impl Limits {
    /// Nothing but depth is bounded: for bodies whose bytes are.
    pub fn of_depth(depth: usize) -> Self {
        Self { depth, values: usize::MAX, ..Self::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        let any = usize::MAX;
        Self {
            depth: 64,
            values: 250_000,
            members: any,
            items: any,
            name: any,
            string: any,
            duplicates: false,
        }
    }
}

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    Null,
    Bool(bool),
    /// As it is written.
    Number(&'a str),
    String(Cow<'a, str>),
    /// The name of the member whose value follows.
    Name(Cow<'a, str>),
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    ValueOrEnd,
    NameOrEnd,
    Name,
    CommaOrEnd,
    Done,
}

struct Frame<'a> {
    object: bool,
    count: usize,
    names: AHashSet<Cow<'a, str>>,
}

/// Reads a document event by event.
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    limits: &'a Limits,
    stack: Vec<Frame<'a>>,
    expect: Expect,
    values: usize,
}

/// Checks a document without keeping anything of it.
///
/// # Errors
/// It is malformed, or exceeds a limit.
pub fn check(bytes: &[u8], limits: &Limits) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes, limits)?;
    while reader.next()?.is_some() {}
    Ok(())
}

impl<'a> Reader<'a> {
    /// A reader of a document.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn new(bytes: &'a [u8], limits: &'a Limits) -> Result<Self, Fault> {
        let text = utf8(bytes)?;
        let reader = Self { text, at: 0, limits, stack: Vec::new(), expect: Expect::Value, values: 0 };
        if text.starts_with('\u{feff}') {
            return Err(reader.bad(0, "a byte order mark is not part of JSON"));
        }
        Ok(reader)
    }

    fn bad(&self, at: usize, what: impl Into<String>) -> Fault {
        Fault::at(self.text.as_bytes(), at, Kind::Malformed, what)
    }

    fn excess(&self, at: usize, what: String) -> Fault {
        Fault::at(self.text.as_bytes(), at, Kind::Excessive, what)
    }

    fn skip_space(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')).count();
    }

    /// The next event; none after the document's end.
    ///
    /// # Errors
    /// The document is malformed, or exceeds a limit. Reading on is pointless then.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator of results would go on after the first error"
    )]
    pub fn next(&mut self) -> Result<Option<Event<'a>>, Fault> {
        loop {
            self.skip_space();
            let at = self.at;
            let Some(&byte) = self.text.as_bytes().get(at) else {
                return match self.expect {
                    Expect::Done => Ok(None),
                    _ if at == 0 || self.values == 0 => Err(self.bad(at, "the document is empty")),
                    _ => Err(self.bad(at, "the document ends too early")),
                };
            };
            match (self.expect, byte) {
                (Expect::Done, _) => return Err(self.bad(at, "nothing may follow the document's value")),
                (Expect::CommaOrEnd, b',') => {
                    self.at += 1;
                    let object = self.stack.last().is_some_and(|f| f.object);
                    self.expect = if object { Expect::Name } else { Expect::Value };
                }
                (Expect::CommaOrEnd | Expect::NameOrEnd, b'}') if self.in_object(true) => {
                    return Ok(Some(self.close(Event::ObjectEnd)));
                }
                (Expect::CommaOrEnd | Expect::ValueOrEnd, b']') if self.in_object(false) => {
                    return Ok(Some(self.close(Event::ArrayEnd)));
                }
                (Expect::CommaOrEnd, _) => {
                    let end = if self.in_object(true) { '}' } else { ']' };
                    return Err(self.bad(at, format!("expected `,` or `{end}`")));
                }
                (Expect::NameOrEnd | Expect::Name, b'"') => return self.name().map(Some),
                (Expect::NameOrEnd | Expect::Name, _) => {
                    return Err(self.bad(at, "expected the name of a member, in double quotes"));
                }
                (Expect::Value | Expect::ValueOrEnd, _) => return self.value(byte).map(Some),
            }
        }
    }

    fn in_object(&self, object: bool) -> bool {
        self.stack.last().is_some_and(|f| f.object == object)
    }

    fn close(&mut self, event: Event<'a>) -> Event<'a> {
        self.at += 1;
        self.stack.pop();
        self.after_value();
        event
    }

    fn after_value(&mut self) {
        self.expect = if self.stack.is_empty() { Expect::Done } else { Expect::CommaOrEnd };
    }

    fn name(&mut self) -> Result<Event<'a>, Fault> {
        let at = self.at;
        let name = self.string()?;
        if name.len() > self.limits.name {
            return Err(self.excess(at, format!("a name is longer than {} bytes", self.limits.name)));
        }
        self.count(at, "members", |l| l.members)?;
        if !self.limits.duplicates
            && let Some(frame) = self.stack.last_mut()
            && !frame.names.insert(name.clone())
        {
            return Err(self.bad(at, "the object has this name already"));
        }
        self.skip_space();
        if self.text.as_bytes().get(self.at) != Some(&b':') {
            return Err(self.bad(self.at, "expected `:`"));
        }
        self.at += 1;
        self.expect = Expect::Value;
        Ok(Event::Name(name))
    }

    /// Counts a member or item in.
    fn count(&mut self, at: usize, what: &str, limit: fn(&Limits) -> usize) -> Result<(), Fault> {
        let most = limit(self.limits);
        let Some(frame) = self.stack.last_mut() else { return Ok(()) };
        frame.count += 1;
        match frame.count > most {
            true => Err(self.excess(at, format!("more than {most} {what}"))),
            false => Ok(()),
        }
    }

    fn value(&mut self, byte: u8) -> Result<Event<'a>, Fault> {
        let at = self.at;
        self.values += 1;
        if self.values > self.limits.values {
            return Err(self.excess(at, format!("more than {} values", self.limits.values)));
        }
        if self.in_object(false) {
            self.count(at, "items in an array", |l| l.items)?;
        }
        let event = match byte {
            b'{' | b'[' => {
                let object = byte == b'{';
                if self.stack.len() >= self.limits.depth {
                    return Err(self.excess(at, format!("nested deeper than {}", self.limits.depth)));
                }
                self.stack.push(Frame { object, count: 0, names: AHashSet::new() });
                self.at += 1;
                self.expect = if object { Expect::NameOrEnd } else { Expect::ValueOrEnd };
                return Ok(if object { Event::ObjectStart } else { Event::ArrayStart });
            }
            b'"' => {
                let text = self.string()?;
                if text.len() > self.limits.string {
                    return Err(
                        self.excess(at, format!("a string is longer than {} bytes", self.limits.string))
                    );
                }
                Event::String(text)
            }
            b'-' | b'0'..=b'9' => Event::Number(self.number()?),
            _ => self.word()?,
        };
        self.after_value();
        Ok(event)
    }

    fn word(&mut self) -> Result<Event<'a>, Fault> {
        let rest = &self.text[self.at..];
        let length = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        let event = match &rest[..length] {
            "null" => Event::Null,
            "true" => Event::Bool(true),
            "false" => Event::Bool(false),
            _ => return Err(self.bad(self.at, "expected a value")),
        };
        self.at += length;
        Ok(event)
    }

    fn number(&mut self) -> Result<&'a str, Fault> {
        let bytes = &self.text.as_bytes()[self.at..];
        let length = number_length(bytes).map_err(|at| self.bad(self.at + at, "malformed number"))?;
        let text = &self.text[self.at..self.at + length];
        self.at += length;
        Ok(text)
    }

    /// A string in quotes, which begins here.
    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut out: Option<String> = None;
        let (mut from, mut at) = (start, start);
        loop {
            let plain = bytes[at..].iter().take_while(|b| **b >= 0x20 && !matches!(b, b'"' | b'\\')).count();
            at += plain;
            match bytes.get(at) {
                None => return Err(self.bad(self.at, "a string does not end")),
                Some(b'"') => {
                    self.at = at + 1;
                    let last = &self.text[from..at];
                    return Ok(match out {
                        None => Cow::Borrowed(last),
                        Some(mut text) => {
                            text.push_str(last);
                            Cow::Owned(text)
                        }
                    });
                }
                Some(b'\\') => {
                    let out = out.get_or_insert_default();
                    out.push_str(&self.text[from..at]);
                    let (c, length) = self.escape(at)?;
                    out.push(c);
                    at += length;
                    from = at;
                }
                Some(_) => return Err(self.bad(at, "a control character in a string must be escaped")),
            }
        }
    }

    /// The character that an escape stands for, and its length.
    fn escape(&self, at: usize) -> Result<(char, usize), Fault> {
        let bytes = self.text.as_bytes();
        let c = match bytes.get(at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(at),
            _ => return Err(self.bad(at, "malformed escape")),
        };
        Ok((c, 2))
    }

    fn unicode(&self, at: usize) -> Result<(char, usize), Fault> {
        let bytes = self.text.as_bytes();
        let hex = |from: usize| -> Option<u32> {
            let digits = bytes.get(from..from + 4)?;
            digits.iter().try_fold(0, |n, b| Some(n * 16 + char::from(*b).to_digit(16)?))
        };
        let high = hex(at + 2).ok_or_else(|| self.bad(at, "malformed escape"))?;
        if let Some(c) = char::from_u32(high) {
            return Ok((c, 6));
        }
        let low = match bytes.get(at + 6..at + 8) {
            Some(b"\\u") => hex(at + 8).filter(|low| (0xdc00..0xe000).contains(low)),
            _ => None,
        };
        match low.filter(|_| high < 0xdc00) {
            Some(low) => {
                let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                // Two surrogates always make a character; should they not, the fault is the same.
                char::from_u32(code).map(|c| (c, 12)).ok_or_else(|| self.bad(at, "malformed escape"))
            }
            None => Err(self.bad(at, "a surrogate without its other half is no character")),
        }
    }
}

/// The length of the number that `bytes` begin with, or where it goes wrong.
pub fn number_length(bytes: &[u8]) -> Result<usize, usize> {
    let digits = |at: usize| bytes[at.min(bytes.len())..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && bytes[at] == b'0') {
        return Err(at);
    }
    at += whole;
    if bytes.get(at) == Some(&b'.') {
        let n = digits(at + 1);
        if n == 0 {
            return Err(at);
        }
        at += 1 + n;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let n = digits(at + 1 + sign);
        if n == 0 {
            return Err(at);
        }
        at += 1 + sign + n;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &[u8], limits: &Limits) -> Option<String> {
        check(text, limits).err().map(|f| f.to_string())
    }

    #[test]
    fn only_json_is_read() {
        let limits = Limits::default();
        for good in [
            "null",
            " [] ",
            "{}",
            "[1,-0,1.5e+10,0.1,1E5]",
            "\"\\u00e9\\ud83d\\ude00\\n\"",
            "[{\"a\":[]},{}]",
            "\"\u{7f}\"",
        ] {
            assert_eq!(fault(good.as_bytes(), &limits), None, "{good}");
            assert!(serde_json::from_str::<serde_json::Value>(good).is_ok(), "{good}");
        }
        for (bad, want) in [
            ("", "line 1, column 1: the document is empty"),
            ("  ", "line 1, column 3: the document is empty"),
            ("{", "line 1, column 2: the document ends too early"),
            ("[1,]", "line 1, column 4: expected a value"),
            ("[1 2]", "line 1, column 4: expected `,` or `]`"),
            ("{\"a\":1,}", "line 1, column 8: expected the name of a member, in double quotes"),
            ("{\"a\" 1}", "line 1, column 6: expected `:`"),
            ("{\n\"\u{e9}\":1 \"b\"}", "line 2, column 7: expected `,` or `}`"),
            ("{a:1}", "line 1, column 2: expected the name of a member, in double quotes"),
            ("[01]", "line 1, column 2: malformed number"),
            ("1.", "line 1, column 2: malformed number"),
            ("-", "line 1, column 2: malformed number"),
            ("1e", "line 1, column 2: malformed number"),
            ("nul", "line 1, column 1: expected a value"),
            ("NaN", "line 1, column 1: expected a value"),
            ("1 1", "line 1, column 3: nothing may follow the document's value"),
            ("[}", "line 1, column 2: expected a value"),
            ("\"\t\"", "line 1, column 2: a control character in a string must be escaped"),
            ("\"\\x\"", "line 1, column 2: malformed escape"),
            ("\"\\u12\"", "line 1, column 2: malformed escape"),
            ("\"\\ud800\"", "line 1, column 2: a surrogate without its other half is no character"),
            ("\"\\udc00\\ud800\"", "line 1, column 2: a surrogate without its other half is no character"),
            ("\"abc", "line 1, column 1: a string does not end"),
            ("\u{feff}{}", "line 1, column 1: a byte order mark is not part of JSON"),
            ("{\"a\":1,\"\\u0061\":2}", "line 1, column 8: the object has this name already"),
        ] {
            assert_eq!(fault(bad.as_bytes(), &limits).as_deref(), Some(want), "{bad}");
        }
        assert_eq!(
            fault(b"\xff\xfe{\0}\0", &limits).unwrap(),
            "line 1, column 1: the text is UTF-16, where UTF-8 is wanted"
        );
        assert_eq!(fault(b"\"\xc3\x28\"", &limits).unwrap(), "line 1, column 2: the text is not UTF-8");
    }

    #[test]
    fn limits_hold_to_the_last_one() {
        let limits =
            Limits { depth: 2, values: 6, members: 2, items: 3, name: 3, string: 4, duplicates: true };
        for (text, want) in [
            ("[[1]]", None),
            ("[[[1]]]", Some("nested deeper than 2")),
            ("[1,2,3]", None),
            ("[1,2,3,4]", Some("more than 3 items in an array")),
            ("{\"a\":1,\"a\":2}", None),
            ("{\"a\":1,\"b\":2,\"c\":3}", Some("more than 2 members")),
            ("[[1],[2],[3]]", Some("more than 6 values")),
            ("{\"abcd\":1}", Some("a name is longer than 3 bytes")),
            ("\"abcd\"", None),
            ("\"abcde\"", Some("a string is longer than 4 bytes")),
        ] {
            let got = check(text.as_bytes(), &limits).err();
            assert_eq!(got.as_ref().map(|f| f.what.as_str()), want, "{text}");
            assert!(got.is_none_or(|f| f.kind == Kind::Excessive), "{text}");
        }
        let deep = "[".repeat(1_000_000);
        assert_eq!(check(deep.as_bytes(), &Limits::default()).unwrap_err().what, "nested deeper than 64");
    }
}
