//! Defaults are JSON text in the tables; here they become values.

use crate::model::schema::{Field, Kind, Record, RecordField, Val};
use crate::source::{Span, Spanned};

/// The value of a default. Tables are constants, and a test reads every default of every table.
pub(super) fn value(json: &str, kind: &Kind, span: Span) -> Val {
    // The common ones without a JSON parser: a big config asks for very many defaults.
    match json {
        "true" => return Val::Bool(true),
        "false" => return Val::Bool(false),
        "null" => return Val::Null,
        _ => {}
    }
    match json.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
        Some(text) if !text.contains('\\') => return Val::Str(text.to_owned()),
        _ => {}
    }
    if let (Kind::Int { .. }, Ok(n)) = (kind, json.parse()) {
        return Val::Int(n);
    }
    let parsed = serde_json::from_str(json).unwrap_or_default();
    convert(&parsed, kind, span)
}

fn convert(json: &serde_json::Value, kind: &Kind, span: Span) -> Val {
    use serde_json::Value as J;
    match json {
        J::Null => Val::Null,
        J::Bool(b) => Val::Bool(*b),
        J::Number(n) => n.as_i64().map_or_else(|| Val::Num(n.as_f64().unwrap_or_default()), Val::Int),
        J::String(s) => Val::Str(s.clone()),
        J::Array(items) => {
            let inner = match kind {
                Kind::List(inner) | Kind::Set(inner) => inner,
                _ => &Kind::Any,
            };
            Val::List(items.iter().map(|i| Spanned::new(convert(i, inner, span), span)).collect())
        }
        J::Object(map) => match kind {
            Kind::Record(fields) => Val::Record(record(map, fields, span)),
            _ => {
                let inner = match kind {
                    Kind::Map(inner) => inner,
                    _ => &Kind::Any,
                };
                let entry = |(k, v): (&String, &J)| {
                    (Spanned::new(k.clone(), span), Spanned::new(convert(v, inner, span), span))
                };
                Val::Map(map.iter().map(entry).collect())
            }
        },
    }
}

fn record(
    given: &serde_json::Map<String, serde_json::Value>,
    fields: &'static [Field],
    span: Span,
) -> Record {
    let mut record = Record { span, fields: Vec::new() };
    for field in fields {
        let own = given.get(field.name).map(|v| convert(v, &field.kind, span));
        let inherited = || field.default.map(|json| value(json, &field.kind, span));
        if let Some(value) = own.or_else(inherited).filter(|v| *v != Val::Null) {
            let value = Spanned::new(value, span);
            record.fields.push(RecordField { name: field.name, key: span, value, given: false });
        }
    }
    record
}
