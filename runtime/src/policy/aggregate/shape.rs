//! What of a part's answer is kept, and under which names.

use crate::json::{Json, Members, Pointer};

/// The steps from an answer to what is merged, in the order of the fields.
#[derive(Debug, Default)]
pub struct Shape {
    pub from: Pointer,
    pub drop: Vec<Pointer>,
    /// Empty keeps everything.
    pub select: Vec<Pointer>,
    pub rename: Vec<(Pointer, String)>,
    pub index_by: Option<String>,
}

/// Whether an object that came out of a shape has a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Has {
    Never,
    /// Nobody says that it has, nor that it has not.
    Perhaps,
    /// The shape names it.
    Stated,
}

impl Shape {
    /// Applies it; the error says what was not as expected.
    pub fn apply(&self, json: &Json) -> Result<Json, String> {
        let Some(json) = self.from.get(json) else {
            return Err(format!("there is nothing at `{}`", self.from));
        };
        let mut json = json.clone();
        self.items(&mut json);
        match &self.index_by {
            Some(member) => index(json, member),
            None => Ok(json),
        }
    }

    /// The same for a document that is not a part's.
    pub fn change(&self, json: &mut Json) {
        for pointer in &self.drop {
            pointer.remove(json);
        }
        if !self.select.is_empty() {
            let mut kept = Json::Object(Members::default());
            for pointer in &self.select {
                pointer.keep(json, &mut kept);
            }
            *json = kept;
        }
        for (pointer, name) in &self.rename {
            rename(pointer.steps(), name, json);
        }
    }

    /// Each item of a list by itself, so that what is not there in one is not there in that one alone.
    fn items(&self, json: &mut Json) {
        match json {
            Json::List(items) => items.iter_mut().for_each(|item| self.items(item)),
            Json::Object(_) => self.change(json),
            _ => {}
        }
    }

    /// Whether the object that comes out has this member.
    pub fn has(&self, name: &str) -> Has {
        if self.index_by.is_some() {
            return Has::Perhaps;
        }
        let top = |p: &Pointer, n: &str| matches!(p.steps(), [only] if only == n);
        if self.rename.iter().any(|(old, new)| old.steps().len() == 1 && new == name) {
            return Has::Stated;
        }
        if self.rename.iter().any(|(old, _)| top(old, name)) || self.drop.iter().any(|d| top(d, name)) {
            return Has::Never;
        }
        match self.select.iter().any(|s| s.steps().first().is_some_and(|first| first == name)) {
            true => Has::Stated,
            false if self.select.is_empty() => Has::Perhaps,
            false => Has::Never,
        }
    }

    /// Every member that the object can have, if the shape names them all.
    pub fn names(&self) -> Option<Vec<&str>> {
        if self.index_by.is_some() || self.select.is_empty() {
            return None;
        }
        let heads = self.select.iter().filter_map(|s| s.steps().first().map(String::as_str));
        let new = self.rename.iter().map(|(_, new)| new.as_str());
        Some(heads.chain(new).filter(|n| self.has(n) == Has::Stated).collect())
    }
}

fn rename(steps: &[String], new: &str, json: &mut Json) {
    let Some((first, rest)) = steps.split_first() else { return };
    match json {
        Json::List(items) => items.iter_mut().for_each(|item| rename(steps, new, item)),
        Json::Object(members) if rest.is_empty() => {
            let Some((at, _, value)) = members.shift_remove_full(first) else { return };
            // Another member of the new name gives way.
            let gone = members.shift_remove_full(new);
            let at = at - usize::from(gone.is_some_and(|(other, ..)| other < at));
            members.shift_insert(at, new.to_owned(), value);
        }
        Json::Object(members) => {
            if let Some(inner) = members.get_mut(first) {
                rename(rest, new, inner);
            }
        }
        _ => {}
    }
}

fn index(json: Json, member: &str) -> Result<Json, String> {
    let Json::List(items) = json else {
        return Err(format!("`index_by` needs a list, not {}", json.kind()));
    };
    let mut members = Members::default();
    for item in items {
        let Some(key) = item.get(member).and_then(Json::scalar) else {
            return Err(format!("an item has no `{member}` to index it by"));
        };
        let key = key.to_owned();
        if members.contains_key(&key) {
            return Err(format!("two items have the `{member}` `{key}`"));
        }
        members.insert(key, item);
    }
    Ok(Json::Object(members))
}
