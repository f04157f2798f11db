//! Putting parts into one document: in the order of their declaration, whatever the order of their answers.

use crate::json::{Json, Members, Pointer};

/// What holds where something is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    #[default]
    Error,
    First,
    Last,
    Deep,
}

/// Where a part goes.
#[derive(Debug, Default)]
pub struct Place {
    pub into: Pointer,
    pub concat: bool,
    pub on_conflict: OnConflict,
}

/// Why a part cannot be merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    #[error("there is something at `{0}` already")]
    Taken(Pointer),
    #[error("it is {0} and cannot be merged into the top level")]
    NoObject(&'static str),
    #[error("only lists can be concatenated at `{0}`")]
    NoList(Pointer),
}

/// Puts a value in its place. A document that a conflict was found in is not to be used.
pub fn put(document: &mut Json, place: &Place, value: Json) -> Result<(), Conflict> {
    if place.into.is_root() && !matches!(value, Json::Object(_)) {
        return Err(Conflict::NoObject(value.kind()));
    }
    let mut slot = document;
    for (depth, step) in place.into.steps().iter().enumerate() {
        if !matches!(slot, Json::Object(_)) {
            match place.on_conflict {
                OnConflict::Error => return Err(Conflict::Taken(upto(&place.into, depth))),
                OnConflict::First => return Ok(()),
                OnConflict::Last | OnConflict::Deep => *slot = Json::Object(Members::default()),
            }
        }
        let Json::Object(members) = slot else { return Ok(()) };
        if depth + 1 == place.into.steps().len() && !members.contains_key(step) {
            members.insert(step.clone(), value);
            return Ok(());
        }
        slot = members.entry(step.clone()).or_insert_with(|| Json::Object(Members::default()));
    }
    if place.concat {
        return match (slot, value) {
            (Json::List(there), Json::List(more)) => {
                there.extend(more);
                Ok(())
            }
            _ => Err(Conflict::NoList(place.into.clone())),
        };
    }
    join(slot, value, place.on_conflict, &place.into)
}

/// Puts null where nothing is.
pub fn put_null(document: &mut Json, into: &Pointer) {
    let place = Place { into: into.clone(), concat: false, on_conflict: OnConflict::First };
    if !into.is_root() {
        // The first wins, so there is no conflict.
        let _ = put(document, &place, Json::Null);
    }
}

fn join(slot: &mut Json, value: Json, mode: OnConflict, at: &Pointer) -> Result<(), Conflict> {
    match (slot, value) {
        (Json::Object(there), Json::Object(more)) => {
            for (name, value) in more {
                match there.get_mut(&name) {
                    None => {
                        there.insert(name, value);
                    }
                    Some(_) if mode == OnConflict::Error => return Err(Conflict::Taken(at.then(&name))),
                    Some(_) if mode == OnConflict::First => {}
                    Some(old) if mode == OnConflict::Deep => join(old, value, mode, &at.then(&name))?,
                    Some(old) => *old = value,
                }
            }
            Ok(())
        }
        (slot, value) => match mode {
            OnConflict::Error => Err(Conflict::Taken(at.clone())),
            OnConflict::First => Ok(()),
            OnConflict::Last | OnConflict::Deep => {
                *slot = value;
                Ok(())
            }
        },
    }
}

fn upto(pointer: &Pointer, steps: usize) -> Pointer {
    pointer.steps()[..steps].iter().fold(Pointer::default(), |p, step| p.then(step))
}
