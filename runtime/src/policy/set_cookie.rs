//! Rules for the cookies that responses set: names and attributes.

use super::{Cx, transform};
use crate::diag::{Diagnostic, codes};
use crate::message::{FieldName, Fields};
use crate::model::schema::{Field, Kind, Record, STR, TEXT};

/// One rule.
pub const FIELDS: &[Field] = &[
    Field::new("name", TEXT, "The cookie, or `*` for every one.").required().extension(),
    Field::new("remove", Kind::Bool, "Whether it is not set at all.").default("false").extension(),
    Field::new("rename", TEXT, "The name instead.").extension(),
    Field::new("secure", Kind::Bool, "Whether it is sent back over TLS alone.").extension(),
    Field::new("http_only", Kind::Bool, "Whether scripts cannot see it.").extension(),
    Field::new("same_site", Kind::Enum(&["Strict", "Lax", "None"]), "To which sites' requests it is added.")
        .extension(),
    Field::new("domain", STR, "The domain that it is for; an empty text for the host alone.").extension(),
    Field::new("path", STR, "The path that it is for; an empty text takes it away.").extension(),
    Field::new(
        "max_age",
        Kind::Int { min: 0, max: 34_560_000 },
        "Seconds for which it is kept; `Expires` goes.",
    )
    .extension(),
];

/// The rules of a config, ready for use.
pub struct Rules {
    rules: Vec<Rule>,
    field: FieldName,
}

struct Rule {
    /// None for every cookie.
    name: Option<String>,
    remove: bool,
    rename: Option<String>,
    /// Attributes to set, to this value if they have one, or to take away.
    attributes: Vec<(&'static str, Attribute)>,
}

enum Attribute {
    Absent,
    Flag,
    Value(String),
}

impl Rules {
    /// The rules in a list of records; `None` if what is wrong was reported.
    pub fn compile(config: &Record, list: &str, cx: &mut Cx<'_>) -> Option<Self> {
        let rules: Vec<_> = config.records(list).map(|record| Rule::compile(record, cx)).collect();
        let rules = rules.into_iter().collect::<Option<_>>()?;
        Some(Self { rules, field: FieldName::new("Set-Cookie") })
    }

    /// Changes the cookies that a response sets.
    pub fn apply(&self, fields: &mut Fields) {
        if self.rules.is_empty() || !fields.contains(&self.field) {
            return;
        }
        let came: Vec<Vec<u8>> = fields.all(&self.field).map(<[u8]>::to_vec).collect();
        fields.remove(&self.field);
        for value in came {
            match std::str::from_utf8(&value) {
                Ok(text) => {
                    if let Some(text) = self.changed(text) {
                        fields.append(&self.field, text);
                    }
                }
                Err(_) => fields.append(&self.field, value),
            }
        }
    }

    /// A cookie as it is to be set, if it is to be.
    fn changed(&self, cookie: &str) -> Option<String> {
        let mut parts = cookie.split(';').map(str::trim);
        let (name, value) = parts.next()?.split_once('=')?;
        let mut name = name.trim().to_owned();
        let mut attributes: Vec<String> = parts.filter(|a| !a.is_empty()).map(str::to_owned).collect();
        for rule in self.rules.iter() {
            if rule.name.as_ref().is_some_and(|n| *n != name) {
                continue;
            }
            if rule.remove {
                return None;
            }
            if let Some(new) = &rule.rename {
                name.clone_from(new);
            }
            for (attribute, what) in &rule.attributes {
                attributes
                    .retain(|a| !a.split('=').next().unwrap_or(a).trim().eq_ignore_ascii_case(attribute));
                match what {
                    Attribute::Absent => {}
                    Attribute::Flag => attributes.push((*attribute).to_owned()),
                    Attribute::Value(value) => attributes.push(format!("{attribute}={value}")),
                }
            }
        }
        let mut out = format!("{name}={value}");
        for attribute in attributes {
            out.push_str("; ");
            out.push_str(&attribute);
        }
        Some(out)
    }
}

impl Rule {
    fn compile(record: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let mut good = true;
        let name = record.spanned_str("name")?;
        let every = name.value == "*";
        if !every {
            good &= transform::is_cookie(&name, name.span, cx);
        }
        let rename = record.spanned_str("rename");
        if let Some(new) = &rename {
            good &= transform::is_cookie(new, new.span, cx);
            if every {
                let message = "every cookie would have the same name";
                cx.report(&codes::INVALID_VALUE, new.span, message);
                good = false;
            }
        }
        let mut attributes = Vec::new();
        for (field, attribute) in [("secure", "Secure"), ("http_only", "HttpOnly")] {
            match record.bool_opt(field) {
                Some(true) => attributes.push((attribute, Attribute::Flag)),
                Some(false) => attributes.push((attribute, Attribute::Absent)),
                None => {}
            }
        }
        for (field, attribute) in [("same_site", "SameSite"), ("domain", "Domain"), ("path", "Path")] {
            let Some(text) = record.spanned_str(field) else { continue };
            if !text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b';') {
                let message = format!("`{field}` must be ASCII without `;`");
                cx.report(&codes::INVALID_VALUE, text.span, message);
                good = false;
            }
            attributes.push((
                attribute,
                if text.is_empty() { Attribute::Absent } else { Attribute::Value(text.value) },
            ));
        }
        if let Some(seconds) = record.int("max_age") {
            attributes.push(("Expires", Attribute::Absent));
            attributes.push(("Max-Age", Attribute::Value(seconds.to_string())));
        }
        if record.str("same_site") == Some("None") && record.bool_opt("secure") == Some(false) {
            let span = record.span_of("same_site");
            let message = "browsers refuse cookies with `SameSite=None` that are not `Secure`";
            cx.diags.push(Diagnostic::new(&codes::NO_EFFECT, span, message).help("set `secure: true`"));
        }
        good.then(|| Self {
            name: (!every).then(|| name.value.clone()),
            remove: record.bool("remove"),
            rename: rename.map(|n| n.value),
            attributes,
        })
    }
}
