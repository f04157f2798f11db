//! Finding the route of a request.

use super::index::{ASKS_MORE, Entry, Few, Hit, Index, NO_CONDITIONS, PathRule};
use super::{Match, Query};

/// What is left to try of a list: a range of entries, not empty.
#[derive(Clone, Copy, Default)]
struct Cursor {
    /// Of the next entry.
    rank: u32,
    next: u32,
    end: u32,
    /// Bytes of the path that the list's beginning covers.
    len: u32,
}

impl Index {
    /// See [`super::Router::find`].
    pub(super) fn find(&self, query: &Query<'_>) -> Option<Match> {
        let (mut best, mut best_rank) = (None, u32::MAX);
        // What could not be tried at once, because lists with shorter beginnings have entries that come before it.
        let mut later = Few::<Cursor>::default();
        self.lists_for(query.host, query.path, |Hit { list, len }| {
            let mut cursor = Cursor { rank: list.rank, next: list.first, end: list.end, len };
            if list.asks != ASKS_MORE {
                if self.conditions_hold(list.asks, query) {
                    let found = Match { route: list.route, matched_len: len as usize, captures: Vec::new() };
                    (best, best_rank) = (Some(found), list.rank);
                    return best_rank;
                }
                self.advance(&mut cursor);
            }
            if let Some(found) = self.try_before(&mut cursor, best_rank.min(list.shorter), query) {
                (best, best_rank) = (Some(found), cursor.rank);
            } else if cursor.rank < best_rank {
                later.push(cursor);
            }
            best_rank
        });
        loop {
            let cursor = later.iter_mut().filter(|c| c.rank < best_rank).min_by_key(|c| c.rank);
            let Some(cursor) = cursor else { return best };
            let one = cursor.rank + 1;
            if let Some(found) = self.try_before(cursor, one, query) {
                return Some(found);
            }
        }
    }

    /// Tries what is left of a list and comes before a rank. The cursor stays at what matched.
    fn try_before(&self, cursor: &mut Cursor, rank: u32, query: &Query<'_>) -> Option<Match> {
        while cursor.rank < rank {
            let entry = &self.entries[cursor.next as usize];
            if let Some(found) = self.try_entry(entry, cursor.len as usize, query) {
                return Some(found);
            }
            self.advance(cursor);
        }
        None
    }

    fn advance(&self, cursor: &mut Cursor) {
        cursor.next += 1;
        let next = self.entries.get(cursor.next as usize).filter(|_| cursor.next < cursor.end);
        cursor.rank = next.map_or(u32::MAX, |entry| entry.rank);
    }

    /// Whether an entry matches whose host pattern and beginning of the path already do.
    #[inline]
    fn try_entry(&self, entry: &Entry, prefix_len: usize, query: &Query<'_>) -> Option<Match> {
        if entry.port.is_some_and(|port| port != query.port) || !self.conditions_hold(entry.conditions, query)
        {
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

    #[inline]
    fn conditions_hold(&self, conditions: u32, query: &Query<'_>) -> bool {
        conditions == NO_CONDITIONS
            || self.parts.conditions[conditions as usize].iter().all(|c| c.holds(query))
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
