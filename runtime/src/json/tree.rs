//! Documents as a whole, from their events.

use super::{Event, Json, Limits, Members, Reader};
use crate::body::Fault;

/// A list or an object that is not complete yet.
enum Open {
    List(Vec<Json>),
    Object(Members, Option<String>),
}

/// Reads a document.
///
/// # Errors
/// It is malformed, or exceeds a limit.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Json, Fault> {
    let mut reader = Reader::new(bytes, limits)?;
    let mut stack: Vec<Open> = Vec::new();
    let mut whole = Json::Null;
    while let Some(event) = reader.next()? {
        let value = match event {
            Event::Null => Json::Null,
            Event::Bool(b) => Json::Bool(b),
            Event::Number(digits) => Json::Number(digits.into()),
            Event::String(text) => Json::Text(text.into_owned()),
            Event::Name(name) => {
                if let Some(Open::Object(_, waiting)) = stack.last_mut() {
                    *waiting = Some(name.into_owned());
                }
                continue;
            }
            Event::ObjectStart => {
                stack.push(Open::Object(Members::default(), None));
                continue;
            }
            Event::ArrayStart => {
                stack.push(Open::List(Vec::new()));
                continue;
            }
            Event::ObjectEnd | Event::ArrayEnd => match stack.pop() {
                Some(Open::List(items)) => Json::List(items),
                Some(Open::Object(members, _)) => Json::Object(members),
                None => continue,
            },
        };
        match stack.last_mut() {
            Some(Open::List(items)) => items.push(value),
            Some(Open::Object(members, name)) => {
                members.insert(name.take().unwrap_or_default(), value);
            }
            None => whole = value,
        }
    }
    Ok(whole)
}
