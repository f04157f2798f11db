//! One value of one kind.

use super::*;

impl Reader<'_, '_> {
    /// The value of a node of this kind; `None` after a finding.
    pub(super) fn value(&mut self, node: &Node<'_>, kind: &Kind) -> Option<Spanned<Val>> {
        let value = match kind {
            Kind::Str(rule) => Val::Str(self.text(node, *rule)?),
            Kind::Ref(_) => return self.reference(node),
            Kind::Enum(words) => Val::Str(self.word(node, words)?),
            Kind::Bool => match self.core(node) {
                Some(Core::Bool(b)) => Val::Bool(b),
                _ => return self.wrong(node, "a boolean"),
            },
            Kind::Int { min, max } => self.integer(node, *min, *max)?,
            Kind::Num { min, max } => self.number(node, *min, *max)?,
            Kind::List(inner) => Val::List(self.items(node, inner, "an array")?),
            Kind::Set(inner) => {
                let items = self.items(node, inner, "a set")?;
                let mut distinct: Vec<Spanned<Val>> = Vec::with_capacity(items.len());
                for item in items {
                    if distinct.iter().all(|d| d.value != item.value) {
                        distinct.push(item);
                    }
                }
                Val::List(distinct)
            }
            Kind::Map(inner) => Val::Map(self.map(node, inner)?),
            Kind::Record(fields) => match &node.value {
                Value::Broken => return None,
                Value::Mapping(_) => Val::Record(self.record(node, fields, "this record")),
                Value::Sequence(items) if items.is_empty() => {
                    Val::Record(self.record(node, fields, "this record"))
                }
                Value::Scalar(_) | Value::Sequence(_) => {
                    if has_secret(fields) {
                        self.hide(node);
                    }
                    return self.wrong(node, "a record");
                }
            },
            Kind::Any => self.any(node)?,
        };
        Some(Spanned::new(value, node.span))
    }

    fn wrong<T>(&mut self, node: &Node<'_>, expected: &str) -> Option<T> {
        if !matches!(node.value, Value::Broken) {
            self.wrong_type(node, expected);
        }
        None
    }

    fn core(&self, node: &Node<'_>) -> Option<Core> {
        match &node.value {
            Value::Scalar(s) => Some(s.core()),
            _ => None,
        }
    }

    fn text(&mut self, node: &Node<'_>, rule: Rule) -> Option<String> {
        let Value::Scalar(scalar) = &node.value else { return self.wrong(node, "a string") };
        // A value of the environment is whatever its field wants: `${PIN}` is a text here, digits or not.
        if scalar.core() != Core::Text && !scalar.masked {
            return self.wrong(node, "a string");
        }
        let shown = self.shown(scalar);
        if let Err(broken) = rules::check(rule, &scalar.text, &shown) {
            let code = if broken.message.starts_with("length") {
                &codes::OUT_OF_RANGE
            } else {
                &codes::INVALID_VALUE
            };
            let mut diagnostic =
                Diagnostic::new(code, node.span, format!("`{}`: {}", self.location(), broken.message));
            diagnostic.help = broken.help;
            if let Some(better) = broken.better.filter(|_| !scalar.masked && !self.secret) {
                let written = self.sources.text(node.span);
                let quoted =
                    if written.starts_with(['"', '\'']) { format!("\"{better}\"") } else { better.clone() };
                diagnostic = diagnostic.fix(node.span, quoted, Applicability::Unsafe);
                diagnostic.help.get_or_insert_with(|| format!("write `{better}`"));
            }
            self.diags.push(diagnostic);
            return None;
        }
        Some(scalar.text.clone().into_owned())
    }

    /// A text for messages.
    fn shown(&self, scalar: &Scalar<'_>) -> String {
        if scalar.masked {
            return "the value from the environment".to_owned();
        }
        if self.secret {
            return "(secret)".to_owned();
        }
        // A URL may carry a password: `http://user:password@host`.
        match scalar
            .text
            .split_once("://")
            .and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1)))
        {
            Some((scheme, rest)) => format!("{scheme}://***@{rest}"),
            None => scalar.text.clone().into_owned(),
        }
    }

    fn word(&mut self, node: &Node<'_>, words: &[&'static str]) -> Option<String> {
        let Value::Scalar(scalar) = &node.value else { return self.wrong(node, "a string") };
        if let Some(word) = words.iter().find(|w| **w == scalar.text) {
            // A word may look like a number or a boolean and still be one of the words.
            if scalar.core() == Core::Text || scalar.masked {
                return Some((*word).to_owned());
            }
        }
        if scalar.core() != Core::Text && !scalar.masked {
            return self.wrong(node, "a string");
        }
        let message = format!("`{}`: expected one of: {}", self.location(), words.join(", "));
        let mut diagnostic = Diagnostic::new(&codes::INVALID_VALUE, node.span, message);
        if !scalar.masked && !self.secret {
            diagnostic = diagnostic.label(format!("`{}` is none of them", scalar.text));
            if let Some(near) = suggest::nearest(&scalar.text, words.iter().copied()) {
                let written = self.sources.text(node.span);
                let better =
                    if written.starts_with(['"', '\'']) { format!("\"{near}\"") } else { near.to_owned() };
                diagnostic = diagnostic.help(format!("did you mean `{near}`?")).fix(
                    node.span,
                    better,
                    Applicability::Unsafe,
                );
            }
        }
        self.diags.push(diagnostic);
        None
    }

    fn integer(&mut self, node: &Node<'_>, min: i64, max: i64) -> Option<Val> {
        let n = match self.core(node) {
            Some(Core::Int(n)) => n,
            // As Kong: 1.0 is a whole number.
            Some(Core::Float(n)) if n.fract() == 0.0 && n.abs() < 9.0e15 => n as i64,
            _ => return self.wrong(node, "an integer"),
        };
        if (min..=max).contains(&n) {
            return Some(Val::Int(n));
        }
        let bounds = if max == i64::MAX {
            let least = min.saturating_sub(1);
            format!("value must be greater than {least}")
        } else {
            format!("value should be between {min} and {max}")
        };
        self.out_of_range(node, &bounds)
    }

    fn number(&mut self, node: &Node<'_>, min: f64, max: f64) -> Option<Val> {
        let (value, n) = match self.core(node) {
            Some(Core::Int(n)) => (Val::Int(n), n as f64),
            Some(Core::Float(n)) => (Val::Num(n), n),
            _ => return self.wrong(node, "a number"),
        };
        if n >= min && n <= max {
            return Some(value);
        }
        // A bound that is the smallest number above another stands for "greater than".
        let bounds = if min > 0.0 && min < 1e-9 {
            "value must be greater than 0".to_owned()
        } else if max == f64::MAX || max == f64::INFINITY {
            format!("value should be at least {min}")
        } else {
            format!("value should be between {min} and {max}")
        };
        self.out_of_range(node, &bounds)
    }

    fn out_of_range(&mut self, node: &Node<'_>, bounds: &str) -> Option<Val> {
        let message = format!("`{}`: {bounds}", self.location());
        self.diags.push(Diagnostic::new(&codes::OUT_OF_RANGE, node.span, message));
        None
    }

    fn items(&mut self, node: &Node<'_>, inner: &Kind, expected: &str) -> Option<Vec<Spanned<Val>>> {
        let items = match &node.value {
            Value::Sequence(items) => items.as_slice(),
            Value::Mapping(entries) if entries.is_empty() => &[],
            _ => return self.wrong(node, expected),
        };
        let mut values = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            self.path.push(Step::Index(i));
            values.extend(self.value(item, inner));
            self.path.pop();
        }
        Some(values)
    }

    fn map(&mut self, node: &Node<'_>, inner: &Kind) -> Option<Vec<(Spanned<String>, Spanned<Val>)>> {
        let entries = match &node.value {
            Value::Mapping(entries) => entries.as_slice(),
            Value::Sequence(items) if items.is_empty() => &[],
            _ => return self.wrong(node, "a map"),
        };
        let mut values = Vec::with_capacity(entries.len());
        for entry in entries {
            self.path.push(Step::Key(entry.key.clone().into_owned()));
            if let Some(value) = self.value(&entry.value, inner) {
                values.push((Spanned::new(entry.key.clone().into_owned(), entry.key_span), value));
            }
            self.path.pop();
        }
        Some(values)
    }

    /// A reference to another entity: its name or id, also written as a record of that one field.
    fn reference(&mut self, node: &Node<'_>) -> Option<Spanned<Val>> {
        const KEYS: &[&str] = &["id", "name", "username", "prefix", "key"];
        if let Value::Mapping(entries) = &node.value
            && let [entry] = entries.as_slice()
            && KEYS.contains(&entry.key.as_ref())
        {
            return self.reference(&entry.value);
        }
        let text = self.text(node, Rule::NonEmpty)?;
        Some(Spanned::new(Val::Str(text), node.span))
    }

    fn any(&mut self, node: &Node<'_>) -> Option<Val> {
        Some(match &node.value {
            Value::Scalar(s) => match s.core() {
                Core::Null => Val::Null,
                Core::Bool(b) => Val::Bool(b),
                Core::Int(n) => Val::Int(n),
                Core::Float(n) => Val::Num(n),
                Core::Text => Val::Str(s.text.clone().into_owned()),
            },
            Value::Sequence(_) => Val::List(self.items(node, &Kind::Any, "an array")?),
            Value::Mapping(_) => Val::Map(self.map(node, &Kind::Any)?),
            Value::Broken => return None,
        })
    }
}
