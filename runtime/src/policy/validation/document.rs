//! Schemas and documents in a config: written in place, or as text, and found again when something is wrong with them.

use serde_json::{Map, Number, Value};

use crate::diag::{Diagnostic, codes};
use crate::model::schema::{Record, Val};
use crate::policy::Cx;
use crate::policy::config::Reported;
use crate::source::{Sources, Span, Spanned};
use crate::yaml::Core;
use crate::yaml::{self, Node};

/// A document and where its parts stand.
pub struct Document {
    pub value: Value,
    written: Written,
}

enum Written {
    InPlace(Spanned<Val>),
    Text(Text),
}

/// A document that is a text, of the config or of a file that it names.
struct Text {
    /// Where the config has it, or its file's name.
    span: Span,
    /// The file's name.
    file: Option<String>,
    text: String,
}

/// The document in a field, if the field is given.
///
/// # Errors
/// It is neither JSON nor YAML.
pub fn read(config: &Record, field: &str, cx: &mut Cx<'_>) -> Result<Option<Document>, Reported> {
    let Some(found) = config.get(field) else { return Ok(None) };
    let span = found.value.span;
    match &found.value.value {
        Val::Str(text) if text.trim().is_empty() => Ok(None),
        Val::Str(text) => match parse(text) {
            Ok(value) => {
                let written = Written::Text(Text { span, file: None, text: text.clone() });
                Ok(Some(Document { value, written }))
            }
            Err(what) => {
                let message = format!("`{field}` is neither JSON nor YAML: {what}");
                cx.report(&codes::INVALID_VALUE, span, message);
                Err(Reported)
            }
        },
        value => {
            let json = json_of(value);
            Ok(Some(Document { value: json, written: Written::InPlace(found.value.clone()) }))
        }
    }
}

/// The longest document, in bytes.
const LONGEST: u64 = 16 << 20;

/// The document in the file that a field names; `None` where it may be missing (see [`Cx::file`]).
///
/// # Errors
/// It cannot be read, or is neither JSON nor YAML; that was reported.
pub fn read_file(field: &str, path: &Spanned<String>, cx: &mut Cx<'_>) -> Result<Option<Document>, Reported> {
    let Some(found) = cx.file(field, path, LONGEST)? else { return Ok(None) };
    match parse(&found.text) {
        Ok(value) => {
            let written = Text { span: path.span, file: Some(found.shown), text: found.text };
            Ok(Some(Document { value, written: Written::Text(written) }))
        }
        Err(what) => {
            let message = format!("`{field}`: `{}` is neither JSON nor YAML: {what}", found.shown);
            cx.report(&codes::INVALID_VALUE, path.span, message);
            Err(Reported)
        }
    }
}

impl Document {
    /// Where the value at a JSON pointer stands, or the last part on the way to it.
    pub fn span(&self, pointer: &str) -> Span {
        let mut at = match &self.written {
            Written::Text(text) => return text.span,
            Written::InPlace(value) => value,
        };
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            let next = match &at.value {
                Val::Map(entries) => entries.iter().find(|(k, _)| k.value == step).map(|(_, v)| v),
                Val::List(items) => step.parse::<usize>().ok().and_then(|i| items.get(i)),
                _ => None,
            };
            match next {
                Some(next) => at = next,
                None => break,
            }
        }
        at.span
    }

    /// Reports that a schema in the document is none.
    pub fn report(&self, pointer: &str, error: &jsonschema::ValidationError<'_>, cx: &mut Cx<'_>) {
        // What is wrong with a schema is what its meta-schema says of it: the place is in the "instance".
        let place = format!("{pointer}{}", error.instance_path());
        let mut diagnostic = Diagnostic::new(
            &codes::INVALID_VALUE,
            self.span(&place),
            format!("this is no JSON schema: {error}"),
        );
        if let Some(note) = self.note(&place) {
            diagnostic = diagnostic.note(note);
        }
        cx.diags.push(diagnostic);
    }

    /// Where the value at a JSON pointer, or the last part on the way to it, stands in the text that the document is.
    pub fn note(&self, pointer: &str) -> Option<String> {
        let Written::Text(Text { file, text, .. }) = &self.written else { return None };
        let mut sources = Sources::default();
        // JSON is YAML, as far as places go.
        let id = sources.add("text", text.as_str());
        let parsed = yaml::parse(&sources, id, &yaml::Budget::default());
        let place = parsed.tree.as_ref().map(|tree| sources.line_col(span_in(tree, pointer)));
        Some(match (place, file) {
            (Some(at), Some(file)) => format!("at {file}:{}:{} (`{pointer}`)", at.line, at.col),
            (Some(at), None) => format!("at line {}, column {} of the text (`{pointer}`)", at.line, at.col),
            (None, _) => format!("at `{pointer}` in the text"),
        })
    }
}

/// The place of a value in a tree, or of the last part on the way to it.
fn span_in(tree: &Node<'_>, pointer: &str) -> Span {
    let mut at = tree;
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        let next = match &at.value {
            yaml::Value::Mapping(entries) => entries.iter().find(|e| e.key == step).map(|e| &e.value),
            yaml::Value::Sequence(items) => step.parse::<usize>().ok().and_then(|i| items.get(i)),
            _ => None,
        };
        match next {
            Some(next) => at = next,
            None => break,
        }
    }
    at.span
}

/// Text as JSON, else as YAML.
fn parse(text: &str) -> Result<Value, String> {
    let json = match serde_json::from_str(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if text.trim_start().starts_with(['{', '[']) {
        return Err(json.to_string());
    }
    let mut sources = Sources::default();
    let file = sources.add("text", text);
    let parsed = yaml::parse(&sources, file, &yaml::Budget::default());
    if let Some(first) = parsed.diags.first() {
        let line = sources.line_col(first.primary.span).line;
        return Err(format!("line {line}: {}", first.message));
    }
    parsed.tree.as_ref().map(json_of_node).ok_or_else(|| "it is empty".to_owned())
}

fn json_of_node(node: &Node<'_>) -> Value {
    match &node.value {
        yaml::Value::Scalar(s) => match s.core() {
            Core::Null => Value::Null,
            Core::Bool(b) => Value::Bool(b),
            Core::Int(n) => Value::from(n),
            Core::Float(n) => Number::from_f64(n).map_or(Value::Null, Value::Number),
            _ => Value::from(s.text.as_ref()),
        },
        yaml::Value::Sequence(items) => items.iter().map(json_of_node).collect(),
        yaml::Value::Mapping(entries) => Value::Object(
            entries.iter().map(|e| (e.key.clone().into_owned(), json_of_node(&e.value))).collect(),
        ),
        yaml::Value::Broken => Value::Null,
    }
}

/// A config's value as JSON.
pub fn json_of(value: &Val) -> Value {
    match value {
        Val::Null => Value::Null,
        Val::Bool(b) => Value::Bool(*b),
        Val::Int(n) => Value::from(*n),
        Val::Num(n) => Number::from_f64(*n).map_or(Value::Null, Value::Number),
        Val::Str(s) => Value::from(s.as_str()),
        Val::List(items) => items.iter().map(|i| json_of(&i.value)).collect(),
        Val::Map(entries) => {
            Value::Object(entries.iter().map(|(k, v)| (k.value.clone(), json_of(&v.value))).collect())
        }
        Val::Record(record) => Value::Object(
            record.fields.iter().map(|f| (f.name.to_owned(), json_of(&f.value.value))).collect::<Map<_, _>>(),
        ),
    }
}
