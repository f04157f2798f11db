//! Paths into JSON for the transformers' rules: `$.user.name`, `$.items[*].price`, `$.list[0]`, `$['odd name']`.

use serde_json::{Map, Value};

/// A path below the top level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath {
    /// One at least.
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
    /// Every item of an array.
    All,
}

/// A rule's name for what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A member of the top level.
    Name(String),
    Path(JsonPath),
}

impl Target {
    /// What a rule's name means: a path if it begins with `$.` or `$[`.
    ///
    /// # Errors
    /// It begins like a path and is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("$.") || text.starts_with("$[") {
            JsonPath::parse(text).map(Self::Path)
        } else {
            Ok(Self::Name(text.to_owned()))
        }
    }
}

impl JsonPath {
    fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no path such as `$.user.name` or `$.items[*].price`");
        let mut rest = text.strip_prefix('$').ok_or_else(bad)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(quoted) = rest.strip_prefix("['") {
                let end = quoted.find("']").ok_or_else(bad)?;
                steps.push(Step::Name(quoted[..end].to_owned()));
                rest = &quoted[end + 2..];
            } else if let Some(inner) = rest.strip_prefix('[') {
                let end = inner.find(']').ok_or_else(bad)?;
                steps.push(match &inner[..end] {
                    "*" => Step::All,
                    digits => Step::Index(digits.parse().map_err(|_| bad())?),
                });
                rest = &inner[end + 1..];
            } else {
                let name = rest.strip_prefix('.').ok_or_else(bad)?;
                let end = name.find(['.', '[']).unwrap_or(name.len());
                if end == 0 {
                    return Err(bad());
                }
                steps.push(Step::Name(name[..end].to_owned()));
                rest = &name[end..];
            }
        }
        match steps.is_empty() {
            true => Err(bad()),
            false => Ok(Self { steps }),
        }
    }

    /// Removes what is there; tells whether anything was.
    pub fn remove(&self, root: &mut Map<String, Value>) -> bool {
        let mut found = false;
        self.visit(root, false, &mut |parent, last| match (parent, last) {
            (Value::Object(map), Step::Name(name)) => found |= map.shift_remove(name).is_some(),
            (Value::Array(items), Step::Index(i)) if *i < items.len() => {
                items.remove(*i);
                found = true;
            }
            (Value::Array(items), Step::All) => {
                found |= !items.is_empty();
                items.clear();
            }
            _ => {}
        });
        found
    }

    /// Gives what is there another name in the same object.
    pub fn rename(&self, root: &mut Map<String, Value>, new: &str) -> bool {
        let mut found = false;
        self.visit(root, false, &mut |parent, last| {
            if let (Value::Object(map), Step::Name(old)) = (parent, last)
                && old != new
                && let Some(value) = map.shift_remove(old)
            {
                map.insert(new.to_owned(), value);
                found = true;
            }
        });
        found
    }

    /// Puts a value in the place of what is there.
    pub fn replace(&self, root: &mut Map<String, Value>, value: &Value) -> bool {
        let mut found = false;
        self.visit(root, false, &mut |parent, last| {
            for slot in slots(parent, last) {
                *slot = value.clone();
                found = true;
            }
        });
        found
    }

    /// Puts a value where there is none; objects on the way are made.
    pub fn add(&self, root: &mut Map<String, Value>, value: &Value) -> bool {
        let mut added = false;
        self.visit(root, true, &mut |parent, last| {
            if let (Value::Object(map), Step::Name(name)) = (parent, last)
                && !map.contains_key(name)
            {
                map.insert(name.clone(), value.clone());
                added = true;
            }
        });
        added
    }

    /// Adds a value to what is there, which becomes a list; objects on the way are made.
    pub fn append(&self, root: &mut Map<String, Value>, value: &Value) -> bool {
        let mut changed = false;
        self.visit(root, true, &mut |parent, last| match (parent, last) {
            (Value::Object(map), Step::Name(name)) => {
                super::form::append_json(map, name, value.clone());
                changed = true;
            }
            (Value::Array(items), Step::All) => {
                items.push(value.clone());
                changed = true;
            }
            _ => {}
        });
        changed
    }

    /// Calls `f` with every value that the path's last step is within, and that step.
    fn visit(&self, root: &mut Map<String, Value>, make: bool, f: &mut dyn FnMut(&mut Value, &Step)) {
        let Some((last, way)) = self.steps.split_last() else { return };
        let mut whole = Value::Object(std::mem::take(root));
        walk(&mut whole, way, last, make, f);
        if let Value::Object(map) = whole {
            *root = map;
        }
    }
}

fn walk(value: &mut Value, way: &[Step], last: &Step, make: bool, f: &mut dyn FnMut(&mut Value, &Step)) {
    let Some((step, way)) = way.split_first() else { return f(value, last) };
    if make
        && let (Value::Object(map), Step::Name(name)) = (&mut *value, step)
        && !map.contains_key(name)
        && way.iter().all(|s| matches!(s, Step::Name(_)))
    {
        map.insert(name.clone(), Value::Object(Map::new()));
    }
    for slot in slots(value, step) {
        walk(slot, way, last, make, f);
    }
}

/// The values that a step leads to.
fn slots<'v>(value: &'v mut Value, step: &Step) -> Vec<&'v mut Value> {
    match (value, step) {
        (Value::Object(map), Step::Name(name)) => map.get_mut(name).into_iter().collect(),
        (Value::Array(items), Step::Index(i)) => items.get_mut(*i).into_iter().collect(),
        (Value::Array(items), Step::All) => items.iter_mut().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> JsonPath {
        JsonPath::parse(text).unwrap()
    }

    fn after(f: impl FnOnce(&mut Map<String, Value>) -> bool) -> (bool, String) {
        let mut value = json!({"a": {"b": 1, "c.d": 2}, "l": [{"x": 1}, {"y": 2}, 3], "s": "t"});
        let changed = f(value.as_object_mut().unwrap());
        (changed, value.to_string())
    }

    #[test]
    fn paths_lead_to_what_they_name() {
        let same = r#"{"a":{"b":1,"c.d":2},"l":[{"x":1},{"y":2},3],"s":"t"}"#;
        let nine = json!(9);
        for ((changed, got), want) in [
            (after(|m| path("$.a.b").remove(m)), r#"{"a":{"c.d":2},"l":[{"x":1},{"y":2},3],"s":"t"}"#),
            (after(|m| path("$.a['c.d']").remove(m)), r#"{"a":{"b":1},"l":[{"x":1},{"y":2},3],"s":"t"}"#),
            (after(|m| path("$.l[0]").remove(m)), r#"{"a":{"b":1,"c.d":2},"l":[{"y":2},3],"s":"t"}"#),
            (after(|m| path("$.l[*].x").remove(m)), r#"{"a":{"b":1,"c.d":2},"l":[{},{"y":2},3],"s":"t"}"#),
            (after(|m| path("$.l[9]").remove(m)), same),
            (after(|m| path("$.s.t").remove(m)), same),
            (
                after(|m| path("$.a.b").rename(m, "z")),
                r#"{"a":{"c.d":2,"z":1},"l":[{"x":1},{"y":2},3],"s":"t"}"#,
            ),
            (
                after(|m| path("$.l[*].x").replace(m, &nine)),
                r#"{"a":{"b":1,"c.d":2},"l":[{"x":9},{"y":2},3],"s":"t"}"#,
            ),
            (
                after(|m| path("$.l[2]").replace(m, &nine)),
                r#"{"a":{"b":1,"c.d":2},"l":[{"x":1},{"y":2},9],"s":"t"}"#,
            ),
            (after(|m| path("$.a.z").replace(m, &nine)), same),
            (
                after(|m| path("$.l[*].x").add(m, &nine)),
                r#"{"a":{"b":1,"c.d":2},"l":[{"x":1},{"y":2,"x":9},3],"s":"t"}"#,
            ),
            (
                after(|m| path("$.n.o.p").add(m, &nine)),
                r#"{"a":{"b":1,"c.d":2},"l":[{"x":1},{"y":2},3],"s":"t","n":{"o":{"p":9}}}"#,
            ),
            (after(|m| path("$.a.b").add(m, &nine)), same),
            (after(|m| path("$.s.t.u").add(m, &nine)), same),
            (
                after(|m| path("$.a.b").append(m, &nine)),
                r#"{"a":{"b":[9],"c.d":2},"l":[{"x":1},{"y":2},3],"s":"t"}"#,
            ),
            (
                after(|m| path("$.l[*]").append(m, &nine)),
                r#"{"a":{"b":1,"c.d":2},"l":[{"x":1},{"y":2},3,9],"s":"t"}"#,
            ),
        ] {
            assert_eq!((changed, got.as_str()), (want != same, want));
        }
    }

    #[test]
    fn what_is_no_path_is_told() {
        for bad in ["$.", "$..a", "$.a[", "$.a[x]", "$['a", "$.a]b[", "$[0]x"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
        for name in ["a.b", "$", "$a", "a[0]"] {
            assert_eq!(Target::parse(name), Ok(Target::Name(name.to_owned())));
        }
    }
}
