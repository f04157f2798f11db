//! One vocabulary for the shape of every entity and of every plugin's config.
//!
//! A shape is a `const` table of [`Field`]s. From it come the checks at load, the defaults, the JSON schema
//! and the reference documentation. Reading a tree against a table gives a [`Record`].

use crate::source::{Span, Spanned};

/// One field of a record.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    /// The default as JSON text, for `None` there is none (null).
    pub default: Option<&'static str>,
    /// One or two sentences: meaning and unit.
    pub doc: &'static str,
    /// The value never appears in any output.
    pub secret: bool,
    /// Kong does not know the field.
    pub extension: bool,
}

/// What values a field takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Text; with a rule beyond being text.
    Str(Rule),
    Bool,
    /// A whole number within `min..=max`.
    Int {
        min: i64,
        max: i64,
    },
    /// Any number within `min..=max`.
    Num {
        min: f64,
        max: f64,
    },
    /// One of these words.
    Enum(&'static [&'static str]),
    /// A list; an element's kind.
    List(&'static Kind),
    /// A list without duplicates.
    Set(&'static Kind),
    /// Names to values.
    Map(&'static Kind),
    /// A nested record.
    Record(&'static [Field]),
    /// The name or id of an entry of this top-level list, as text.
    Ref(&'static str),
    /// Anything at all.
    Any,
}

/// What a text must be, where any text will not do. `model::rules` decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Any,
    NonEmpty,
    /// ASCII letters, digits, `. - _ ~`, or any non-ASCII letter.
    Name,
    Uuid,
    /// Host name or IP address, without port.
    Host,
    /// `host[:port]`.
    HostPort,
    /// `host[:port]`, or the path of a Unix socket.
    Target,
    /// A path that begins with `/`, has no `//`, and only valid escapes.
    Path,
    /// `/prefix` in normal form, or `~/regex`.
    RoutePath,
    /// A host with at most one `*`, as leftmost or rightmost label.
    RouteHost,
    /// `^[A-Z]+$`.
    Method,
    /// IP address or CIDR.
    IpOrCidr,
    /// An RFC 9110 field name.
    HeaderName,
    /// `scheme://host[:port][/path]`.
    Url,
    /// A regular expression of the linear-time engine.
    Regex,
    /// `name:value` as the transformers take it.
    NameValue,
    /// A word to find entities by: printable, without the `,` and `/` that separate tags in a query.
    Tag,
    /// A server name of TLS, with at most one `*`, as leftmost or rightmost label.
    Sni,
    /// What references call a vault: lower-case letters, digits and inner `-`, and no kind of vault.
    VaultPrefix,
}

impl Field {
    /// An optional field without default.
    pub const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, required: false, default: None, doc, secret: false, extension: false }
    }

    /// A field that must be given.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// The default, as JSON.
    #[must_use]
    pub const fn default(mut self, json: &'static str) -> Self {
        self.default = Some(json);
        self
    }

    /// A value that must never be shown.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// A field of gw that Kong does not have.
    #[must_use]
    pub const fn extension(mut self) -> Self {
        self.extension = true;
        self
    }
}

/// Any text.
pub const STR: Kind = Kind::Str(Rule::Any);
/// Any text but the empty one.
pub const TEXT: Kind = Kind::Str(Rule::NonEmpty);
/// An RFC 9110 field name.
pub const HEADER: Kind = Kind::Str(Rule::HeaderName);
/// A port.
pub const PORT: Kind = Kind::Int { min: 0, max: 65535 };
/// Milliseconds as Kong bounds them.
pub const MILLIS: Kind = Kind::Int { min: 1, max: 2_147_483_646 };

/// The fields of an entity: those that every entity has, and its own.
macro_rules! entity_fields {
    ($($field:expr),* $(,)?) => {
        &[
            $crate::model::schema::ID,
            $crate::model::schema::CREATED_AT,
            $crate::model::schema::UPDATED_AT,
            $crate::model::schema::TAGS,
            $($field),*
        ]
    };
}
pub(crate) use entity_fields;

/// `id` of every entity.
pub const ID: Field = Field::new(
    "id",
    Kind::Str(Rule::Uuid),
    "A UUID. Without it the id is derived from the entity's name, always the same one.",
);
/// `created_at` of every entity.
pub const CREATED_AT: Field = Field::new(
    "created_at",
    Kind::Num { min: 0.0, max: f64::MAX },
    "When the entity was made, in Unix seconds.",
);
/// `updated_at` of every entity.
pub const UPDATED_AT: Field = Field::new(
    "updated_at",
    Kind::Num { min: 0.0, max: f64::MAX },
    "When the entity was last changed, in Unix seconds.",
);
/// `tags` of every entity.
pub const TAGS: Field =
    Field::new("tags", Kind::Set(&Kind::Str(Rule::Tag)), "Words to find the entity by; they change nothing.");

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub enum Val {
    Null,
    Bool(bool),
    Int(i64),
    Num(f64),
    Str(String),
    List(Vec<Spanned<Val>>),
    /// In order of appearance.
    Map(Vec<(Spanned<String>, Spanned<Val>)>),
    Record(Record),
}

/// A record read against its table: only known fields, each of its kind, defaults filled in.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Record {
    /// The whole mapping; for a record made of defaults alone, its parent's place.
    pub span: Span,
    pub fields: Vec<RecordField>,
}

/// A field with a value that is not null.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordField {
    pub name: &'static str,
    /// Where the key stands.
    pub key: Span,
    pub value: Spanned<Val>,
    /// False where the default filled it in.
    pub given: bool,
}

impl Record {
    /// The field, unless it is absent or null.
    pub fn get(&self, name: &str) -> Option<&RecordField> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// Whether the file itself gave the field a value.
    pub fn given(&self, name: &str) -> bool {
        self.get(name).is_some_and(|f| f.given)
    }

    /// Where the field's value stands, else where the record does.
    pub fn span_of(&self, name: &str) -> Span {
        self.get(name).map_or(self.span, |f| f.value.span)
    }

    /// A text.
    pub fn str(&self, name: &str) -> Option<&str> {
        match &self.get(name)?.value.value {
            Val::Str(s) => Some(s),
            _ => None,
        }
    }

    /// A text with its place.
    pub fn spanned_str(&self, name: &str) -> Option<Spanned<String>> {
        self.str(name).map(|s| Spanned::new(s.to_owned(), self.span_of(name)))
    }

    /// A whole number.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.get(name)?.value.value {
            Val::Int(n) => Some(n),
            Val::Num(n) if n.fract() == 0.0 => Some(n as i64),
            _ => None,
        }
    }

    /// A number.
    pub fn num(&self, name: &str) -> Option<f64> {
        match self.get(name)?.value.value {
            Val::Int(n) => Some(n as f64),
            Val::Num(n) => Some(n),
            _ => None,
        }
    }

    /// A truth value; absent is false.
    pub fn bool(&self, name: &str) -> bool {
        self.bool_opt(name).unwrap_or(false)
    }

    /// A truth value, if given or defaulted.
    pub fn bool_opt(&self, name: &str) -> Option<bool> {
        match self.get(name)?.value.value {
            Val::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// A list; absent is empty.
    pub fn list(&self, name: &str) -> &[Spanned<Val>] {
        match self.get(name).map(|f| &f.value.value) {
            Some(Val::List(items)) => items,
            _ => &[],
        }
    }

    /// The texts of a list.
    pub fn strings(&self, name: &str) -> Vec<Spanned<String>> {
        let text = |v: &Spanned<Val>| match &v.value {
            Val::Str(s) => Some(Spanned::new(s.clone(), v.span)),
            _ => None,
        };
        self.list(name).iter().filter_map(text).collect()
    }

    /// A map; absent is empty.
    pub fn map(&self, name: &str) -> &[(Spanned<String>, Spanned<Val>)] {
        match self.get(name).map(|f| &f.value.value) {
            Some(Val::Map(entries)) => entries,
            _ => &[],
        }
    }

    /// A nested record.
    pub fn record(&self, name: &str) -> Option<&Record> {
        match &self.get(name)?.value.value {
            Val::Record(r) => Some(r),
            _ => None,
        }
    }

    /// The records of a list.
    pub fn records(&self, name: &str) -> impl Iterator<Item = &Record> {
        self.list(name).iter().filter_map(|v| match &v.value {
            Val::Record(r) => Some(r),
            _ => None,
        })
    }
}
