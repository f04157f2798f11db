//! JSON Pointer (RFC 6901), and what aggregation does with one.

use super::{Json, Members};

/// A place in a document: `/a/b`, `` for the whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Reads a pointer: empty, or steps that each begin with `/`; `~1` is a slash in a name and `~0` a tilde.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text == "/" {
            return Some(Self::default());
        }
        let steps = text.strip_prefix('/')?.split('/');
        steps
            .map(|step| {
                let broken = step.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1']));
                (!broken && !step.is_empty()).then(|| step.replace("~1", "/").replace("~0", "~"))
            })
            .collect::<Option<Vec<_>>>()
            .map(Self)
    }

    /// The names on the way.
    pub fn steps(&self) -> &[String] {
        &self.0
    }

    /// Whether it is the whole document.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The steps below `above`, if this lies at or below it.
    pub fn below(&self, above: &Self) -> Option<&[String]> {
        self.0.strip_prefix(above.0.as_slice())
    }

    /// This place and a step further.
    #[must_use]
    pub fn then(&self, step: &str) -> Self {
        Self(self.0.iter().cloned().chain([step.to_owned()]).collect())
    }

    /// The value there. A number steps into a list.
    pub fn get<'a>(&self, json: &'a Json) -> Option<&'a Json> {
        self.0.iter().try_fold(json, |at, step| match at {
            Json::Object(members) => members.get(step),
            Json::List(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Removes what is there. In a list every item is meant: `/items/price` drops the price of each.
    pub fn remove(&self, json: &mut Json) {
        remove(&self.0, json);
    }

    /// The part of `json` that lies at this place, in a document of its own; lists as in [`Pointer::remove`].
    pub fn keep(&self, json: &Json, into: &mut Json) {
        keep(&self.0, json, into);
    }
}

impl std::fmt::Display for Pointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|s| write!(f, "/{}", s.replace('~', "~0").replace('/', "~1")))
    }
}

fn remove(steps: &[String], json: &mut Json) {
    let Some((first, rest)) = steps.split_first() else { return };
    match json {
        Json::List(items) => items.iter_mut().for_each(|item| remove(steps, item)),
        Json::Object(members) if rest.is_empty() => {
            members.shift_remove(first);
        }
        Json::Object(members) => {
            if let Some(inner) = members.get_mut(first) {
                remove(rest, inner);
            }
        }
        _ => {}
    }
}

fn keep(steps: &[String], json: &Json, into: &mut Json) {
    let Some((first, rest)) = steps.split_first() else {
        into.clone_from(json);
        return;
    };
    match json {
        Json::List(items) => {
            if !matches!(into, Json::List(_)) {
                *into = Json::List(vec![Json::Object(Members::default()); items.len()]);
            }
            if let Json::List(kept) = into {
                kept.iter_mut().zip(items).for_each(|(kept, item)| keep(steps, item, kept));
            }
        }
        Json::Object(members) => {
            let Some(inner) = members.get(first) else { return };
            if !matches!(into, Json::Object(_)) {
                *into = Json::Object(Members::default());
            }
            if let Json::Object(kept) = into {
                keep(rest, inner, kept.entry(first.clone()).or_insert(Json::Object(Members::default())));
            }
        }
        _ => {}
    }
}
