//! Path templates of `google.api.http`: `/v1/{name=shelves/*}/books/{id}:archive`.

/// A compiled template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    segments: Vec<Segment>,
    verb: Option<String>,
    pub variables: Vec<Variable>,
}

/// One segment. The order is that of preference where several templates match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    /// `*`: any one.
    One,
    /// `**`: the rest, even none.
    Rest,
}

/// A field that takes the text of some segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The path of the field: `shelf.name`.
    pub field: String,
    from: usize,
    to: usize,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, at: 0 };
        let mut this = Self { segments: Vec::new(), verb: None, variables: Vec::new() };
        if !parser.eat('/') {
            return Err("it must begin with `/`".to_owned());
        }
        if parser.rest().is_empty() {
            return Ok(this);
        }
        parser.segments(&mut this, false)?;
        if parser.eat(':') {
            let verb = parser.rest();
            if verb.is_empty() || verb.contains(['/', '{', '}', '*', ':']) {
                return Err("after `:` there must be one word at the end".to_owned());
            }
            this.verb = Some(verb.to_owned());
            parser.at = text.len();
        }
        if !parser.rest().is_empty() {
            return Err(format!("`{}` is not expected", parser.rest()));
        }
        let rest = this.segments.iter().position(|s| *s == Segment::Rest);
        if rest.is_some_and(|i| i + 1 != this.segments.len()) {
            return Err("`**` must be the last segment".to_owned());
        }
        Ok(this)
    }

    /// The texts of the variables, in their order, where the template matches a path (escaped, without query).
    pub fn matches(&self, path: &str) -> Option<Vec<String>> {
        let mut path = path.strip_prefix('/')?;
        if let Some(verb) = &self.verb {
            path = path.strip_suffix(verb.as_str())?.strip_suffix(':')?;
        }
        let found: Vec<&str> = if path.is_empty() { Vec::new() } else { path.split('/').collect() };
        let open = self.segments.last() == Some(&Segment::Rest);
        let fixed = self.segments.len() - usize::from(open);
        if found.len() < fixed || (!open && found.len() > fixed) {
            return None;
        }
        let fits = |(wanted, found): (&Segment, &&str)| match wanted {
            Segment::Literal(text) => text == found,
            Segment::One => !found.is_empty(),
            Segment::Rest => true,
        };
        if !self.segments[..fixed].iter().zip(&found).all(fits) {
            return None;
        }
        let text = |v: &Variable| {
            let to = if open && v.to == self.segments.len() { found.len() } else { v.to };
            let single = v.to - v.from == 1 && self.segments[v.from] != Segment::Rest;
            unescape(&found[v.from..to].join("/"), single)
        };
        Some(self.variables.iter().map(text).collect())
    }

    /// Sorts the more particular before the more general.
    pub fn rank(&self) -> impl Ord + use<> {
        (self.verb.is_none(), self.segments.clone())
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.rest().starts_with(c);
        self.at += if found { c.len_utf8() } else { 0 };
        found
    }

    /// `a/*/{b=c/*}`; within a variable no other variable may stand.
    fn segments(&mut self, out: &mut Template, inside: bool) -> Result<(), String> {
        loop {
            if self.eat('{') {
                if inside {
                    return Err("a variable cannot hold another one".to_owned());
                }
                self.variable(out)?;
            } else {
                let end = self.rest().find(['/', '{', '}', ':', '=']).unwrap_or(self.rest().len());
                let word = &self.rest()[..end];
                self.at += end;
                out.segments.push(match word {
                    "" => return Err("a segment is empty".to_owned()),
                    "*" => Segment::One,
                    "**" => Segment::Rest,
                    word if word.contains('*') => {
                        return Err(format!("`{word}`: `*` stands for a whole segment"));
                    }
                    word => Segment::Literal(word.to_owned()),
                });
            }
            if !self.eat('/') {
                return Ok(());
            }
        }
    }

    fn variable(&mut self, out: &mut Template) -> Result<(), String> {
        let end = self.rest().find(['=', '}']).ok_or("a `{` has no `}`")?;
        let field = self.rest()[..end].to_owned();
        let is_name =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !field.split('.').all(is_name) {
            return Err(format!("`{field}` is no field"));
        }
        if out.variables.iter().any(|v| v.field == field) {
            return Err(format!("`{field}` stands twice"));
        }
        self.at += end;
        let from = out.segments.len();
        if self.eat('=') {
            self.segments(out, true)?;
        } else {
            out.segments.push(Segment::One);
        }
        if !self.eat('}') {
            return Err("a `{` has no `}`".to_owned());
        }
        out.variables.push(Variable { field, from, to: out.segments.len() });
        Ok(())
    }
}

/// Decodes `%XX`. In a text of several segments an escaped slash stays as it is, or it would be another segment.
fn unescape(text: &str, slashes: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[i], hex(i + 1), hex(i + 2)) {
            (b'%', Some(high), Some(low)) if slashes || high * 16 + low != u32::from(b'/') => {
                out.push((high * 16 + low) as u8);
                i += 2;
            }
            (b, ..) => out.push(b),
        }
        i += 1;
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_paths_and_give_their_variables() {
        let check = |template: &str, path: &str, want: Option<&[&str]>| {
            let parsed = Template::parse(template).unwrap_or_else(|e| panic!("{template}: {e}"));
            let want: Option<Vec<String>> = want.map(|w| w.iter().map(|&s| s.to_owned()).collect());
            assert_eq!(parsed.matches(path), want, "{template} {path}");
        };
        check("/", "/", Some(&[]));
        check("/", "/a", None);
        check("/v1/shelves", "/v1/shelves", Some(&[]));
        check("/v1/shelves", "/v1/shelves/", None);
        check("/v1/{id}", "/v1/7", Some(&["7"]));
        check("/v1/{id}", "/v1/", None);
        check("/v1/{id}", "/v1/a%2Fb%20c", Some(&["a/b c"]));
        check("/v1/{name=shelves/*}", "/v1/shelves/3", Some(&["shelves/3"]));
        check("/v1/{name=shelves/*}", "/v1/shelf/3", None);
        check(
            "/v1/{name=shelves/*/books/*}:move",
            "/v1/shelves/3/books/4:move",
            Some(&["shelves/3/books/4"]),
        );
        check("/v1/{name=shelves/*}:move", "/v1/shelves/3", None);
        check("/v1/{a.b}/x/{c}", "/v1/1/x/2", Some(&["1", "2"]));
        check("/v1/{path=**}", "/v1/a/b%2Fc/%41", Some(&["a/b%2Fc/A"]));
        check("/v1/{path=**}", "/v1", Some(&[""]));
        check("/v1/{path=f/**}:read", "/v1/f/a/b:read", Some(&["f/a/b"]));
        check("/v1/*/y", "/v1/x/y", Some(&[]));
        check("/v1/{id}", "/v1/a:b", Some(&["a:b"]));
        check("/v1/{id}", "/v1/%zz", Some(&["%zz"]));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (text, want) in [
            ("v1", "begin with `/`"),
            ("/v1/", "empty"),
            ("/v1//a", "empty"),
            ("/{a", "no `}`"),
            ("/{a={b}}", "another one"),
            ("/{a}/{a}", "twice"),
            ("/{a-b}", "no field"),
            ("/{}", "no field"),
            ("/a*", "whole segment"),
            ("/**/a", "last segment"),
            ("/a:", "one word"),
            ("/a:b/c", "one word"),
            ("/a}", "not expected"),
        ] {
            let error = Template::parse(text).expect_err(text);
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn particular_templates_come_first() {
        let mut all =
            ["/v1/**", "/v1/*", "/v1/a", "/v1/*:x"].map(|t| Template::parse(t).expect("a template"));
        all.sort_by_key(Template::rank);
        let order: Vec<_> = all.iter().map(|t| (t.segments.last().cloned(), t.verb.is_some())).collect();
        let literal = Segment::Literal("a".to_owned());
        let want = [(Segment::One, true), (literal, false), (Segment::One, false), (Segment::Rest, false)];
        assert_eq!(order, want.map(|(s, v)| (Some(s), v)));
    }
}
