//! Tables of fields as JSON Schema, draft 2020-12.

use gw_runtime::model::entities::TABLES;
use gw_runtime::model::schema::{Field, Kind, Rule};
use gw_runtime::model::{gateway_read, redis};
use gw_runtime::policy::registry::REGISTRY;
use gw_runtime::policy::unsupported::KONG_PLUGINS;
use serde_json::{Map, Value, json};

/// The schema of a whole config.
pub fn config() -> Value {
    let mut definitions = Map::new();
    definitions.insert(
        "variable".into(),
        json!({
            "description": "A value of the environment: `${NAME}`, `${NAME:-default}` or `${NAME:?message}`.",
            "type": "string",
            "pattern": r"\$\{|^\{vault://",
        }),
    );
    let mut lists = Map::new();
    for (name, fields, nested) in TABLES {
        let entity = match *name {
            "plugins" => plugin(fields),
            _ => {
                record(fields, nested.iter().map(|list| ((*list).to_owned(), list_of(list))).chain(asides()))
            }
        };
        definitions.insert((*name).to_owned(), entity);
        lists.insert((*name).to_owned(), list_of(name));
    }
    for plugin in REGISTRY {
        let mut config = record(plugin.fields, []);
        config["description"] = plugin.summary.into();
        definitions.insert(format!("config of {}", plugin.name), config);
    }
    lists.insert("_format_version".into(), json!({
        "description": "The version of the format, in quotes. Below 3.0, paths that are regexes need no `~`.",
        "enum": ["3.0", "2.1", "1.1"],
    }));
    lists.insert(
        "_transform".into(),
        json!({
            "description": "Whether secrets are in clear here; false for passwords that are hashed already.",
            "type": "boolean", "default": true,
        }),
    );
    lists.insert("gateway".into(), gateway());
    lists.insert("tests".into(), json!({ "description": "Unit tests of this config, for `gw test`." }));
    for name in ["_info", "_workspace", "_konnect"] {
        lists.insert(name.into(), json!({ "description": "What decK writes; without effect." }));
    }
    lists.extend(asides());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gw config",
        "description": "Kong's declarative format with the extensions of gw.",
        "type": "object",
        "properties": lists,
        "required": ["_format_version"],
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// `gateway`, with the two fields that have more than one form.
fn gateway() -> Value {
    let listener = json!({ "anyOf": [
        { "type": "string", "description": "Address and port, with `ssl` and `proxy_protocol` behind them." },
        record(gateway_read::LISTENER, []),
    ] });
    let listeners =
        json!({ "type": ["array", "null"], "items": listener, "description": "Where clients connect." });
    let redis = json!({
        "anyOf": [
            { "type": ["string", "null"], "format": "uri", "writeOnly": true },
            record(redis::GATEWAY, []),
        ],
        "description": "The Redis of plugins that name none: a URL, or its parts.",
    });
    let more = [("listeners".to_owned(), listeners), ("redis".to_owned(), redis)];
    record(gateway_read::FIELDS, more)
}

/// An entry of `plugins`: the name decides the shape of `config`.
fn plugin(fields: &[Field]) -> Value {
    let any = (
        "config".to_owned(),
        json!({ "description": "Settings of the plugin.", "type": ["object", "null"] }),
    );
    let mut out = record(fields, std::iter::once(any).chain(asides()));
    let mut names: Vec<&str> = REGISTRY.iter().map(|p| p.name).chain(KONG_PLUGINS.iter().copied()).collect();
    names.sort_unstable();
    names.dedup();
    out["properties"]["name"]["examples"] = names.into();
    let cases = REGISTRY.iter().map(|p| {
        let config = json!({ "$ref": format!("#/$defs/config%20of%20{}", p.name) });
        json!({
            "if": { "properties": { "name": { "const": p.name } }, "required": ["name"] },
            "then": { "properties": { "config": { "anyOf": [config, { "type": "null" }] } } },
        })
    });
    out["allOf"] = cases.collect();
    out
}

fn list_of(entity: &str) -> Value {
    json!({ "type": ["array", "null"], "items": { "$ref": format!("#/$defs/{entity}") } })
}

/// What every entity may have, for people alone.
fn asides() -> [(String, Value); 2] {
    [
        ("_comment".to_owned(), json!({ "description": "A note for people.", "type": "string" })),
        ("_ignore".to_owned(), json!({ "description": "Anything; without effect.", "type": "array" })),
    ]
}

/// A record: its fields and nothing else. `more` are properties beside the table's (nested entities).
pub fn record(fields: &[Field], more: impl IntoIterator<Item = (String, Value)>) -> Value {
    let mut properties: Map<String, Value> = fields.iter().map(|f| (f.name.to_owned(), field(f))).collect();
    properties.extend(more);
    let required: Vec<&str> = fields.iter().filter(|f| f.required).map(|f| f.name).collect();
    let mut out = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        out["required"] = required.into();
    }
    out
}

fn field(f: &Field) -> Value {
    let mut out = kind(&f.kind);
    if !f.required {
        // Null clears a default.
        out = json!({ "anyOf": [out, { "type": "null" }] });
    }
    if let Some(default) = f.default.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        out["default"] = default;
    }
    let extension = if f.extension { " (gw only: Kong does not know this field.)" } else { "" };
    out["description"] = format!("{}{extension}", f.doc).into();
    if f.secret {
        out["writeOnly"] = true.into();
    }
    out
}

fn kind(k: &Kind) -> Value {
    match k {
        Kind::Str(rule) => text(*rule),
        Kind::Bool => or_variable(json!({ "type": "boolean" })),
        Kind::Int { min, max } => {
            let mut out = json!({ "type": "integer" });
            if *min != i64::MIN {
                out["minimum"] = (*min).into();
            }
            if *max != i64::MAX {
                out["maximum"] = (*max).into();
            }
            or_variable(out)
        }
        Kind::Num { min, max } => {
            let mut out = json!({ "type": "number" });
            if min.is_finite() && *min > f64::MIN {
                out["minimum"] = (*min).into();
            }
            if max.is_finite() && *max < f64::MAX {
                out["maximum"] = (*max).into();
            }
            or_variable(out)
        }
        Kind::Enum(words) => or_variable(json!({ "enum": words })),
        Kind::List(element) => json!({ "type": "array", "items": kind(element) }),
        Kind::Set(element) => json!({ "type": "array", "items": kind(element), "uniqueItems": true }),
        Kind::Map(value) => json!({ "type": "object", "additionalProperties": kind(value) }),
        Kind::Record(fields) => record(fields, []),
        Kind::Ref(list) => {
            json!({ "type": "string", "description": format!("Name or id of an entry of `{list}`.") })
        }
        Kind::Any => json!({}),
    }
}

/// The kind, or a reference to the environment that gives it.
fn or_variable(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "$ref": "#/$defs/variable" }] })
}

/// A text. Patterns only catch slips while typing: the rules themselves are stricter.
fn text(rule: Rule) -> Value {
    let pattern = match rule {
        Rule::Any | Rule::NameValue => return json!({ "type": "string" }),
        Rule::NonEmpty | Rule::Regex => return json!({ "type": "string", "minLength": 1 }),
        Rule::Name => r"^[^\s/]+$",
        Rule::Uuid => "^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$",
        Rule::HostPort | Rule::RouteHost => r"^[^\s/]+$",
        Rule::Host | Rule::Target => r"^(unix:/\S+|[^\s/]+)$",
        Rule::Path => "^/",
        Rule::RoutePath => r"^(/|~/|~\^)",
        Rule::Method => "^[A-Z]+$",
        Rule::IpOrCidr => "^[0-9a-fA-F.:]+(/[0-9]+)?$",
        Rule::Tag => "^[^,/]+$",
        Rule::Sni => r"^[^\s/:]+$",
        Rule::VaultPrefix => "^[a-z]([a-z0-9-]*[a-z0-9])?$",
        Rule::HeaderName => "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
        Rule::Url => "^[a-z][a-z0-9+.-]*://",
    };
    or_variable(json!({ "type": "string", "pattern": pattern }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_in_the_schema_leads_somewhere() {
        fn references(value: &Value, out: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    out.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values().for_each(|v| references(v, out));
                }
                Value::Array(items) => items.iter().for_each(|v| references(v, out)),
                _ => {}
            }
        }
        let schema = config();
        let mut found = Vec::new();
        references(&schema, &mut found);
        assert!(found.len() > REGISTRY.len());
        for reference in found {
            let pointer = reference.trim_start_matches('#').replace("%20", " ");
            assert!(schema.pointer(&pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn fields_become_properties() {
        const FIELDS: &[Field] = &[
            Field::new("port", Kind::Int { min: 0, max: 65535 }, "The port.").default("80"),
            Field::new("name", Kind::Str(Rule::Any), "The name.").required().secret(),
        ];
        let schema = record(FIELDS, []);
        assert_eq!(schema["required"], json!(["name"]));
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["port"]["default"], 80);
        assert_eq!(schema["properties"]["port"]["anyOf"][0]["anyOf"][0]["maximum"], 65535);
        assert_eq!(schema["properties"]["name"]["writeOnly"], true);
        assert_eq!(schema["properties"]["name"]["type"], "string");
    }
}
