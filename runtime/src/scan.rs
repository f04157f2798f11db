//! Reading small languages: a cursor over a text, and mistakes with their place.

use std::ops::Range;

/// What is wrong with a text, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// In bytes.
    pub range: Range<usize>,
    pub message: String,
    pub help: Option<String>,
}

impl Mistake {
    /// The same with what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A text and how far it has been read.
#[derive(Debug)]
pub struct Cursor<'a> {
    pub text: &'a str,
    /// In bytes; always between two characters.
    pub at: usize,
}

impl<'a> Cursor<'a> {
    /// At the beginning.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Goes on to what is no space.
    pub fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    /// Goes past `token` if that comes next; tells whether it did.
    pub fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// The character at hand, or the end.
    pub fn here(&self) -> Range<usize> {
        self.at..self.at + self.rest().chars().next().map_or(0, char::len_utf8)
    }

    /// A mistake at a place.
    pub fn error(&self, range: Range<usize>, message: impl Into<String>) -> Mistake {
        Mistake { range, message: message.into(), help: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_from_one_end_to_the_other() {
        let mut cursor = Cursor::new(" \té=b");
        cursor.skip_space();
        assert_eq!((cursor.rest(), cursor.here()), ("é=b", 2..4));
        assert!(!cursor.eat("=") && cursor.eat("é") && cursor.eat("=b"));
        assert_eq!((cursor.rest(), cursor.here()), ("", 6..6));
        let mistake = cursor.error(2..4, "no").with_help("yes");
        assert_eq!((mistake.range, mistake.help.as_deref()), (2..4, Some("yes")));
    }
}
