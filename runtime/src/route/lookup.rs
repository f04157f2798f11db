//! Finding the route of a request.

use super::index::{Entry, Index, List, NO_CONDITIONS, PathRule};
use super::{Match, Query};

/// What is left to try of a list: a range of entries.
#[derive(Clone, Copy, Default)]
struct Cursor {
    next: u32,
    end: u32,
    /// Bytes of the path that the list's beginning covers.
    len: u32,
}

/// More lists than this are possible only where that many prefixes of one path are routes; then memory is taken.
const INLINE: usize = 16;

/// The lists of one request.
#[derive(Default)]
struct Cursors {
    inline: [Cursor; INLINE],
    count: usize,
    more: Vec<Cursor>,
}

impl Cursors {
    fn push(&mut self, list: &List) {
        let cursor = Cursor { next: list.first, end: list.end, len: list.len };
        if self.count < INLINE {
            self.inline[self.count] = cursor;
            self.count += 1;
        } else {
            self.more.push(cursor);
        }
    }

    /// The entry that comes first in order of rank; taken.
    fn next<'a>(&mut self, entries: &'a [Entry]) -> Option<(&'a Entry, u32)> {
        let mut best: Option<(&'a Entry, &mut Cursor)> = None;
        for cursor in self.inline[..self.count].iter_mut().chain(&mut self.more) {
            if cursor.next == cursor.end {
                continue;
            }
            let entry = &entries[cursor.next as usize];
            let order = |e: &Entry| (e.rank, e.alternative);
            if best.as_ref().is_none_or(|(first, _)| order(entry) < order(first)) {
                best = Some((entry, cursor));
            }
        }
        let (entry, cursor) = best?;
        cursor.next += 1;
        Some((entry, cursor.len))
    }
}

impl Index {
    /// See [`super::Router::find`].
    pub(super) fn find(&self, query: &Query<'_>) -> Option<Match> {
        let mut cursors = Cursors::default();
        self.lists_for(query.host, query.path, |list| cursors.push(list));
        while let Some((entry, len)) = cursors.next(&self.entries) {
            if let Some(found) = self.try_entry(entry, len as usize, query) {
                return Some(found);
            }
        }
        None
    }

    /// Whether an entry matches whose host pattern and beginning of the path already do.
    #[inline]
    fn try_entry(&self, entry: &Entry, prefix_len: usize, query: &Query<'_>) -> Option<Match> {
        if entry.port.is_some_and(|port| port != query.port) || !self.conditions_hold(entry, query) {
            return None;
        }
        let (matched_len, captures) = match entry.rule {
            PathRule::Any => (0, Vec::new()),
            PathRule::Prefix => (prefix_len, Vec::new()),
            PathRule::Regex(id) => match_regex(&self.parts.regexes[id as usize], query.path)?,
            PathRule::Expression(id) => self.parts.expressions[id as usize].eval(query)?,
        };
        Some(Match { route: entry.route, matched_len, captures })
    }

    fn conditions_hold(&self, entry: &Entry, query: &Query<'_>) -> bool {
        entry.conditions == NO_CONDITIONS
            || self.parts.conditions[entry.conditions as usize].iter().all(|c| c.holds(query))
    }
}

/// How much a regular expression matched, and its groups as text.
pub(super) type Matched = (usize, Vec<(String, String)>);

/// Matches a regular expression against a text.
pub(super) fn match_regex(regex: &regex::Regex, text: &str) -> Option<Matched> {
    if regex.captures_len() == 1 {
        return regex.find(text).map(|m| (m.len(), Vec::new()));
    }
    let groups = regex.captures(text)?;
    let mut captures = Vec::with_capacity(2 * groups.len());
    for (number, group) in groups.iter().enumerate().skip(1) {
        captures.extend(group.map(|m| (number.to_string(), m.as_str().to_owned())));
    }
    for name in regex.capture_names().flatten() {
        captures.extend(groups.name(name).map(|m| (name.to_owned(), m.as_str().to_owned())));
    }
    Some((groups[0].len(), captures))
}
