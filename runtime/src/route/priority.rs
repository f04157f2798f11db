//! Which of two matching routes wins.

use std::cmp::{Ordering, Reverse};

use super::{Options, RouteSpec};
use crate::model::gateway::RouterFlavor;

/// What a virtual route is ranked by: a route with several paths is one virtual route per length of prefix, and one
/// for all its regexes.
#[derive(Clone, Debug)]
pub struct Rank {
    kinds: usize,
    plain_hosts: bool,
    headers: usize,
    regex: bool,
    regex_priority: i64,
    prefix_len: usize,
    id: String,
    categories: u8,
    created_at: i64,
    priority: u64,
}

impl Rank {
    /// The rank of the virtual route `id` of `spec`, with a regex path or a prefix of so many bytes.
    pub fn new(spec: &RouteSpec, regex: bool, prefix_len: usize, id: String) -> Self {
        let kinds = [
            !spec.hosts.is_empty(),
            !spec.headers.is_empty(),
            !spec.paths.is_empty(),
            !spec.methods.is_empty(),
            !spec.snis.is_empty(),
            !spec.sources.is_empty(),
            !spec.destinations.is_empty(),
        ];
        Self {
            kinds: kinds.iter().filter(|k| **k).count(),
            plain_hosts: !spec.hosts.is_empty() && spec.hosts.iter().all(|h| !h.contains('*')),
            headers: spec.headers.len().min(255),
            regex,
            regex_priority: if regex { spec.regex_priority } else { 0 },
            prefix_len,
            id,
            categories: kinds.iter().fold(0, |bits, k| bits << 1 | u8::from(*k)),
            created_at: spec.created_at,
            priority: spec.priority,
        }
    }

    /// `Less` means that `self` is tried first.
    pub fn order(&self, other: &Self, options: Options) -> Ordering {
        other.priority.cmp(&self.priority).then_with(|| match options.flavor {
            RouterFlavor::Traditional => self.traditional().cmp(&other.traditional()),
            _ if options.documented_order => self.documented().cmp(&other.documented()),
            _ => self.real(other),
        })
    }

    /// The order that Kong documents.
    fn documented(&self) -> impl Ord + use<'_> {
        (
            Reverse((
                self.kinds,
                self.plain_hosts,
                self.headers,
                self.regex,
                self.regex_priority,
                self.prefix_len,
            )),
            Reverse(self.id.as_str()),
        )
    }

    /// The order that Kong really has: its bit shifts wrap. Routes with four or five kinds, where Kong itself is not
    /// stable, come first in the documented order.
    fn real(&self, other: &Self) -> Ordering {
        match (self.kinds > 3, other.kinds > 3) {
            (true, true) => self.documented().cmp(&other.documented()),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => {
                let key =
                    |r: &Self| (r.plain_hosts, r.regex, r.kinds, r.headers, r.regex_priority, r.prefix_len);
                key(other).cmp(&key(self)).then_with(|| other.id.cmp(&self.id))
            }
        }
    }

    /// The order of the old flavor: kinds, then which they are, then age.
    fn traditional(&self) -> impl Ord + use<> {
        (
            Reverse((self.kinds, self.categories, self.plain_hosts, self.headers)),
            Reverse((self.regex, self.regex_priority, self.prefix_len)),
            self.created_at,
        )
    }
}
