//! A tree node read against a table of [`Field`]s: known fields only, each of its kind, defaults filled in.
//!
//! Every finding is made in one run, and one cause gives one finding: what is broken already is passed over in silence.

mod defaults;
mod values;

use crate::diag::{Applicability, Diagnostic, Diags, codes, suggest};
use crate::source::{Sources, Span, Spanned};
use crate::yaml::{Core, Entry, Node, Scalar, Value};

use super::schema::{Field, Kind, Record, RecordField, Rule, STR, Val};
use super::{CredentialKind, rules};

/// Keys that the top level and every entity may have and that mean nothing.
pub(super) const IGNORED: &[Field] = &[
    Field::new("_comment", STR, "A note for people."),
    Field::new("_ignore", Kind::List(&Kind::Any), "Anything at all: nobody reads it."),
];

/// Reads nodes; findings go to `diags`.
pub struct Reader<'s, 'd> {
    pub sources: &'s Sources,
    pub diags: &'d mut Diags,
    /// Names of fields and indices from the entity down to the value being read.
    path: Vec<Step>,
    /// A field on the way is secret, so nothing below it may be shown.
    secret: bool,
    /// Places whose text must not be shown, because it is a secret or nothing says that it is none.
    pub hidden: Vec<Span>,
}

enum Step {
    Field(&'static str),
    Index(usize),
    Key(String),
}

/// An entity as read, and what is nested in it.
pub struct Entity<'n, 'a> {
    pub record: Record,
    /// Entries of the entity that hold other entities, in order of appearance.
    pub children: Vec<(&'static str, &'n Node<'a>)>,
    /// Fields that unknown ones are probably meant to be: not having them is the same mistake.
    pub misspelt: Vec<&'static str>,
}

impl<'s, 'd> Reader<'s, 'd> {
    /// A reader of nodes of `sources`.
    pub fn new(sources: &'s Sources, diags: &'d mut Diags) -> Self {
        Self { sources, diags, path: Vec::new(), secret: false, hidden: Vec::new() }
    }

    /// Keeps what is written at a node out of all output.
    pub fn hide(&mut self, node: &Node<'_>) {
        node.leaves(&mut self.hidden);
    }

    /// Reads a record. `what` names it in findings: "a route".
    pub fn record(&mut self, node: &Node<'_>, fields: &'static [Field], what: &str) -> Record {
        self.entity(node, fields, &[], what).record
    }

    /// Reads something that lies below a field that is not of any table's.
    pub fn within<T>(&mut self, field: &'static str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(Step::Field(field));
        let out = read(self);
        self.path.pop();
        out
    }

    /// Reads one of some words.
    pub fn one_of(
        &mut self,
        node: &Node<'_>,
        field: &'static str,
        words: &'static [&'static str],
    ) -> Option<String> {
        let value = self.within(field, |r| r.value(node, &Kind::Enum(words)))?;
        match value.value {
            Val::Str(word) => Some(word),
            _ => None,
        }
    }

    /// Reads true or false; null is neither.
    pub fn flag(&mut self, node: &Node<'_>, field: &'static str) -> Option<bool> {
        if node.is_null() {
            return None;
        }
        match self.within(field, |r| r.value(node, &Kind::Bool))?.value {
            Val::Bool(flag) => Some(flag),
            _ => None,
        }
    }

    /// Reads whatever is there.
    pub fn anything(&mut self, node: &Node<'_>) -> Option<Spanned<Val>> {
        self.value(node, &Kind::Any)
    }

    /// Reads a record that may have other entities nested in it under the names `nested`.
    pub fn entity<'n, 'a>(
        &mut self,
        node: &'n Node<'a>,
        fields: &'static [Field],
        nested: &'static [&'static str],
        what: &str,
    ) -> Entity<'n, 'a> {
        let mut record = Record { span: node.span, fields: Vec::with_capacity(fields.len()) };
        let (mut children, mut misspelt) = (Vec::new(), Vec::new());
        match &node.value {
            Value::Mapping(entries) => {
                for entry in entries {
                    let name = entry.key.as_ref();
                    if let Some(field) = fields.iter().find(|f| f.name == name) {
                        self.field(field, entry, &mut record);
                    } else if let Some(child) = nested.iter().find(|n| **n == name) {
                        children.push((*child, &entry.value));
                    } else if let Some(field) = IGNORED.iter().find(|f| f.name == name) {
                        self.ignored(field, &entry.value);
                    } else {
                        misspelt.extend(self.unknown(entry, fields, nested, what));
                    }
                }
            }
            // An empty table is `[]` as well as `{}` to those who write JSON from Lua or PHP.
            Value::Sequence(items) if items.is_empty() => {}
            Value::Broken => return Entity { record, children, misspelt },
            _ => {
                if has_secret(fields) {
                    self.hide(node);
                }
                self.wrong_type(node, "a record");
                return Entity { record, children, misspelt };
            }
        }
        let head = node.head();
        for field in fields {
            match node.entries().iter().find(|e| e.key == field.name) {
                Some(entry) if !entry.value.is_null() => {}
                // An explicit null takes a default away.
                Some(_) if !field.required => {}
                Some(entry) => self.missing(field, entry.key_span, what),
                None if field.required && misspelt.contains(&field.name) => {}
                None => self.absent(field, node, head, what, &mut record),
            }
        }
        Entity { record, children, misspelt }
    }

    /// Checks that what means nothing has at least the form that Kong demands.
    pub(super) fn ignored(&mut self, field: &'static Field, node: &Node<'_>) {
        if !node.is_null() {
            self.within(field.name, |r| r.value(node, &field.kind));
        }
    }

    fn field(&mut self, field: &'static Field, entry: &Entry<'_>, record: &mut Record) {
        // `absent` judges nulls.
        if entry.value.is_null() {
            return;
        }
        let outer = self.secret;
        self.secret |= field.secret;
        if field.secret {
            self.hide(&entry.value);
        }
        self.path.push(Step::Field(field.name));
        if let Some(value) = self.value(&entry.value, &field.kind) {
            record.fields.push(RecordField { name: field.name, key: entry.key_span, value, given: true });
        }
        self.path.pop();
        self.secret = outer;
    }

    fn absent(
        &mut self,
        field: &'static Field,
        node: &Node<'_>,
        head: Span,
        what: &str,
        record: &mut Record,
    ) {
        let value = match (field.default, &field.kind) {
            (Some(json), kind) => defaults::value(json, kind, head),
            (None, Kind::Record(inner)) if field.required => {
                // As Kong: a required record is there, made of defaults; what it must be given is asked for by name.
                self.path.push(Step::Field(field.name));
                let nothing = Node { span: head, value: Value::Mapping(Vec::new()) };
                let inner = self.record(&nothing, inner, what);
                self.path.pop();
                Val::Record(inner)
            }
            (None, _) if field.required => return self.missing(field, head, what),
            (None, _) => return,
        };
        if value != Val::Null {
            let value = Spanned::new(value, node.span);
            record.fields.push(RecordField { name: field.name, key: node.span, value, given: false });
        }
    }

    fn missing(&mut self, field: &'static Field, span: Span, what: &str) {
        self.path.push(Step::Field(field.name));
        let message = format!("required field missing: `{}`", self.location());
        self.path.pop();
        self.diags.push(
            Diagnostic::new(&codes::MISSING_FIELD, span, message)
                .label(format!("{what} needs `{}`", field.name))
                .help(format!("add `{}`: {}", field.name, lower_first(field.doc.trim_end_matches('.')))),
        );
    }

    fn unknown(
        &mut self,
        entry: &Entry<'_>,
        fields: &'static [Field],
        nested: &[&'static str],
        what: &str,
    ) -> Option<&'static str> {
        let names = || fields.iter().map(|f| f.name).chain(nested.iter().copied());
        let at =
            if self.path.is_empty() { what.to_owned() } else { format!("`{}` of {what}", self.location()) };
        let near = suggest::nearest(&entry.key, names());
        let guarded = has_secret(fields) || nested.iter().any(|n| CredentialKind::of(n).is_some());
        let mut message = format!("unknown field `{}` in {at}", entry.key);
        if guarded {
            self.hide(&entry.value);
            // `{ key:VALUE }` and `{ VALUE }` are mappings to YAML, and the secret is a name.
            if near.is_none() && entry.value.is_null() {
                self.hidden.push(entry.key_span);
                message = format!("unknown field in {at}, whose name may be a secret and is not shown");
            }
        } else if !is_flat(&entry.value) {
            // What an unknown record holds, nobody knows: credentials of a consumer under a wrong name, for instance.
            self.hide(&entry.value);
        }
        let mut diagnostic = Diagnostic::new(&codes::UNKNOWN_FIELD, entry.key_span, message);
        if let Some(near) = near {
            diagnostic = diagnostic
                .label(format!("did you mean `{near}`?"))
                .help(format!("write `{near}`"))
                .fix(entry.key_span, near, Applicability::Unsafe);
        }
        let mut all: Vec<_> = names().map(|n| format!("`{n}`")).collect();
        all.sort_unstable();
        if all.is_empty() {
            diagnostic = diagnostic.note("there are no fields here");
        } else if diagnostic.fix.is_none() {
            diagnostic = diagnostic.note(format!("the fields are {}", all.join(", ")));
        }
        if near.is_none() && entry.value.is_null() && entry.key.contains(':') {
            diagnostic = diagnostic.help("write a space after the colon");
        }
        self.diags.push(diagnostic);
        near
    }

    /// `expected a string`, with what it is instead and what to do.
    fn wrong_type(&mut self, node: &Node<'_>, expected: &str) {
        let location = self.location();
        let message = if location.is_empty() {
            format!("expected {expected}")
        } else {
            format!("`{location}`: expected {expected}")
        };
        let mut diagnostic = Diagnostic::new(&codes::WRONG_TYPE, node.head(), message)
            .label(format!("this is {}", node.kind()));
        // A fix would repeat what is written.
        let open = |s: &Scalar<'_>| !s.masked && !self.secret;
        let source = self.sources.text(node.span);
        match (&node.value, expected) {
            (Value::Scalar(_), "a string") if self.secret => {
                diagnostic = diagnostic.help("put it in quotes");
            }
            (Value::Scalar(s), "a string") if open(s) && node.span.end > node.span.start => {
                diagnostic = diagnostic.help("put it in quotes").fix(
                    node.span,
                    format!("\"{source}\""),
                    Applicability::Safe,
                );
            }
            (Value::Mapping(entries), "a string")
                if entries
                    .first()
                    .is_some_and(|e| e.key.starts_with("vault:") || e.key.starts_with("{vault:")) =>
            {
                diagnostic =
                    diagnostic.help("a vault reference must be quoted, else it is a mapping to YAML");
            }
            (Value::Scalar(s), "an array" | "a set")
                if open(s) && !source.is_empty() && !source.contains('\n') =>
            {
                diagnostic = diagnostic.help("write a list, also of one").fix(
                    node.span,
                    format!("[{source}]"),
                    Applicability::Safe,
                );
            }
            (Value::Scalar(s), "a boolean")
                if matches!(
                    s.text.to_ascii_lowercase().as_str(),
                    "yes" | "on" | "no" | "off" | "true" | "false"
                ) =>
            {
                let better = if matches!(s.text.to_ascii_lowercase().as_str(), "yes" | "on" | "true") {
                    "true"
                } else {
                    "false"
                };
                diagnostic = diagnostic.help(format!("write `{better}`, without quotes")).fix(
                    node.span,
                    better,
                    Applicability::Safe,
                );
            }
            (Value::Scalar(s), "an integer" | "a number")
                if !s.plain && matches!(Core::of(&s.text), Core::Int(_) | Core::Float(_)) && open(s) =>
            {
                diagnostic = diagnostic.help("write the number without quotes").fix(
                    node.span,
                    s.text.as_ref(),
                    Applicability::Safe,
                );
            }
            (Value::Scalar(s), "an integer" | "a number") if s.masked && !s.plain => {
                diagnostic =
                    diagnostic.help("write the reference without quotes, so that its value can be a number");
            }
            _ => {}
        }
        self.diags.push(diagnostic);
    }

    /// The path to what is being read: `config.redis.host`, `paths[1]`.
    fn location(&self) -> String {
        let mut out = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out.push_str(name);
                }
                Step::Index(i) => out.push_str(&format!("[{i}]")),
                Step::Key(key) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out.push_str(if self.secret { "***" } else { key });
                }
            }
        }
        out
    }
}

/// A scalar, or a list of scalars.
fn is_flat(node: &Node<'_>) -> bool {
    let scalar = |n: &Node<'_>| matches!(n.value, Value::Scalar(_));
    scalar(node) || matches!(&node.value, Value::Sequence(items) if items.iter().all(scalar))
}

/// Whether any of the fields is secret, at whatever depth.
fn has_secret(fields: &[Field]) -> bool {
    fields.iter().any(|f| f.secret || kind_has_secret(&f.kind))
}

fn kind_has_secret(kind: &Kind) -> bool {
    match kind {
        Kind::Record(fields) => has_secret(fields),
        Kind::List(inner) | Kind::Set(inner) | Kind::Map(inner) => kind_has_secret(inner),
        _ => false,
    }
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().to_string() + chars.as_str()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
