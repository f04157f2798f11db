//! The value of an expression for one request.

use super::lex::to_number;
use super::parse::{Binary, Expr, Function, Root, Unary};
use crate::json::Json;

/// A request as templates see it.
pub trait Lookup {
    /// A header by name in any case.
    fn header(&self, name: &str) -> Value<'_>;
    /// A query argument; [`Value::Bool`] for a bare name.
    fn query(&self, name: &str) -> Value<'_>;
    /// A group of the route's path by number or name.
    fn capture(&self, name: &str) -> Value<'_>;
    /// The document behind `claims`, `item` or `body`, where there is one.
    fn document(&self, _root: Root) -> Option<&Json> {
        None
    }
    /// What a part of an aggregate answered.
    fn part(&self, _name: &str) -> Option<&Json> {
        None
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    Nil,
    Bool(bool),
    Num(f64),
    Str(String),
    /// Several values of one name.
    List(Vec<String>),
    /// One of the request's tables itself.
    Table(Table),
    /// A number, list or object of a document.
    Json(&'a Json),
}

/// Opaque: a table can only be indexed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Table(Root);

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EvalError(String);

impl EvalError {
    /// For what a caller finds wrong with a value.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl<'a> From<&'a Json> for Value<'a> {
    fn from(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Nil,
            Json::Bool(b) => Self::Bool(*b),
            Json::Text(text) => Self::Str(text.clone()),
            Json::Number(_) | Json::List(_) | Json::Object(_) => Self::Json(json),
        }
    }
}

impl Value<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::Json(Json::Number(_)) => "number",
            Self::Nil => "nil",
            Self::Bool(_) => "boolean",
            Self::Num(_) => "number",
            Self::Str(_) => "string",
            Self::List(_) | Self::Table(_) | Self::Json(_) => "table",
        }
    }

    fn truthy(&self) -> bool {
        !matches!(self, Self::Nil | Self::Bool(false))
    }

    /// What a template shows: nil and false are nothing, several values a list with commas.
    pub fn into_text(self) -> String {
        match self {
            Self::Json(Json::List(items)) => {
                items.iter().filter_map(Json::scalar).collect::<Vec<_>>().join(",")
            }
            Self::Json(json) => json.scalar().unwrap_or_default().to_owned(),
            Self::Nil | Self::Bool(false) | Self::Table(_) => String::new(),
            Self::Bool(true) => "true".to_owned(),
            Self::Num(n) => number_text(n),
            Self::Str(s) => s,
            Self::List(values) => values.join(", "),
        }
    }

    fn number(&self) -> Result<f64, EvalError> {
        let number = match self {
            Self::Num(n) => Some(*n),
            Self::Str(s) => to_number(s),
            Self::Json(Json::Number(digits)) => to_number(digits),
            _ => None,
        };
        number.ok_or_else(|| match self {
            Self::Str(s) => EvalError(format!("the string `{s}` is no number")),
            other => EvalError(format!("a {} value is no number", other.kind())),
        })
    }

    fn joinable(self) -> Result<String, EvalError> {
        match self {
            Self::Num(n) => Ok(number_text(n)),
            Self::Str(s) => Ok(s),
            Self::Json(Json::Number(digits)) => Ok(digits.to_string()),
            other => Err(EvalError(format!("a {} value cannot be joined with `..`", other.kind()))),
        }
    }
}

/// Evaluates an expression.
pub fn eval<'a>(expr: &Expr, lookup: &'a dyn Lookup) -> Result<Value<'a>, EvalError> {
    Ok(match expr {
        Expr::Nil | Expr::Unknown => Value::Nil,
        Expr::Bool(b) => Value::Bool(*b),
        Expr::Number(n) => Value::Num(*n),
        Expr::Str(s) => Value::Str(s.clone()),
        Expr::Root(root) => lookup.document(*root).map_or(Value::Table(Table(*root)), Value::from),
        Expr::Fail(message) => return Err(EvalError(message.clone())),
        Expr::Index(value, index) => self::index(eval(value, lookup)?, eval(index, lookup)?, lookup)?,
        Expr::Unary(op, value) => unary(*op, eval(value, lookup)?)?,
        Expr::Binary(Binary::Or, left, right) => match eval(left, lookup)? {
            left if left.truthy() => left,
            _ => eval(right, lookup)?,
        },
        Expr::Binary(Binary::And, left, right) => match eval(left, lookup)? {
            left if left.truthy() => eval(right, lookup)?,
            left => left,
        },
        Expr::Binary(op, left, right) => binary(*op, eval(left, lookup)?, eval(right, lookup)?)?,
        Expr::Call(function, values) => {
            let values: Result<Vec<Value<'_>>, EvalError> = values.iter().map(|v| eval(v, lookup)).collect();
            call(*function, values?)?
        }
    })
}

fn index<'a>(value: Value<'a>, index: Value<'a>, lookup: &'a dyn Lookup) -> Result<Value<'a>, EvalError> {
    let place = |n: f64| if n >= 1.0 && n.fract() == 0.0 { Some(n as usize - 1) } else { None };
    match (value, index) {
        (Value::Json(Json::List(items)), index) => {
            Ok(index.number().ok().and_then(place).and_then(|i| items.get(i)).map_or(Value::Nil, Value::from))
        }
        (Value::Json(Json::Object(members)), index) => {
            Ok(members.get(index.into_text().as_str()).map_or(Value::Nil, Value::from))
        }
        (Value::List(values), Value::Num(n)) => {
            let at = place(n);
            Ok(at.and_then(|i| values.into_iter().nth(i)).map_or(Value::Nil, Value::Str))
        }
        (
            Value::Table(Table(root)),
            index @ (Value::Str(_) | Value::Num(_) | Value::Json(Json::Number(_))),
        ) => {
            let name = index.into_text();
            Ok(match root {
                Root::Parts => lookup.part(&name).map_or(Value::Nil, Value::from),
                Root::Headers => lookup.header(&name),
                Root::Query => lookup.query(&name),
                Root::Captures => lookup.capture(&name),
                Root::Shared | Root::Claims | Root::Item | Root::Body => Value::Nil,
            })
        }
        // A field of a string is one of Lua's functions, which are no values here.
        (Value::List(_) | Value::Table(_) | Value::Str(_), _) => Ok(Value::Nil),
        (other, _) => Err(EvalError(format!("a {} value cannot be indexed", other.kind()))),
    }
}

fn unary<'a>(op: Unary, value: Value<'a>) -> Result<Value<'a>, EvalError> {
    Ok(match op {
        Unary::Not => Value::Bool(!value.truthy()),
        Unary::Minus => Value::Num(-value.number()?),
        Unary::Length => match value {
            Value::Str(s) => Value::Num(s.len() as f64),
            Value::List(values) => Value::Num(values.len() as f64),
            Value::Json(Json::List(items)) => Value::Num(items.len() as f64),
            Value::Json(Json::Object(members)) => Value::Num(members.len() as f64),
            Value::Table(_) => Value::Num(0.0),
            other => return Err(EvalError(format!("a {} value has no length", other.kind()))),
        },
    })
}

fn binary<'a>(op: Binary, left: Value<'a>, right: Value<'a>) -> Result<Value<'a>, EvalError> {
    let arithmetic = |f: fn(f64, f64) -> f64| Ok(Value::Num(f(left.number()?, right.number()?)));
    match op {
        Binary::Equal => Ok(Value::Bool(equal(&left, &right))),
        Binary::Unequal => Ok(Value::Bool(!equal(&left, &right))),
        Binary::Less => compare(&left, &right).map(|o| Value::Bool(o.is_some_and(|o| o.is_lt()))),
        Binary::LessEqual => compare(&left, &right).map(|o| Value::Bool(o.is_some_and(|o| o.is_le()))),
        Binary::Greater => compare(&left, &right).map(|o| Value::Bool(o.is_some_and(|o| o.is_gt()))),
        Binary::GreaterEqual => compare(&left, &right).map(|o| Value::Bool(o.is_some_and(|o| o.is_ge()))),
        Binary::Concat => Ok(Value::Str(left.joinable()? + &right.joinable()?)),
        Binary::Add => arithmetic(|a, b| a + b),
        Binary::Subtract => arithmetic(|a, b| a - b),
        Binary::Multiply => arithmetic(|a, b| a * b),
        Binary::Divide => arithmetic(|a, b| a / b),
        // The sign is the divisor's.
        Binary::Modulo => arithmetic(|a, b| a - (a / b).floor() * b),
        Binary::Power => arithmetic(f64::powf),
        // These two evaluate their right side only when they need it: see `eval`.
        Binary::Or | Binary::And => Ok(right),
    }
}

/// Numbers are equal by value, whether a document or an expression says them.
fn equal(left: &Value<'_>, right: &Value<'_>) -> bool {
    match (left.kind(), right.kind()) {
        ("number", "number") => matches!((left.number(), right.number()), (Ok(a), Ok(b)) if a == b),
        _ => left == right,
    }
}

fn compare(left: &Value<'_>, right: &Value<'_>) -> Result<Option<std::cmp::Ordering>, EvalError> {
    match (left, right) {
        (Value::Str(a), Value::Str(b)) => Ok(Some(a.cmp(b))),
        _ if left.kind() == "number" && right.kind() == "number" => {
            Ok(left.number()?.partial_cmp(&right.number()?))
        }
        _ => Err(EvalError(format!("a {} cannot be compared with a {}", left.kind(), right.kind()))),
    }
}

fn call<'a>(function: Function, values: Vec<Value<'a>>) -> Result<Value<'a>, EvalError> {
    let mut values = values.into_iter();
    let first = values.next().unwrap_or(Value::Nil);
    Ok(match function {
        Function::Type => Value::Str(first.kind().to_owned()),
        Function::ToString => Value::Str(match first {
            Value::Nil => "nil".to_owned(),
            Value::Bool(b) => b.to_string(),
            other => other.into_text(),
        }),
        Function::ToNumber => first.number().map_or(Value::Nil, Value::Num),
        Function::Upper => Value::Str(text(first)?.to_ascii_uppercase()),
        Function::Lower => Value::Str(text(first)?.to_ascii_lowercase()),
        Function::Len => Value::Num(text(first)?.len() as f64),
        Function::Sub => {
            let text = text(first)?;
            let from = values.next().unwrap_or(Value::Nil).number()?;
            let to = match values.next() {
                Some(value) => value.number()?,
                None => -1.0,
            };
            Value::Str(slice(&text, from, to))
        }
    })
}

fn text(value: Value<'_>) -> Result<String, EvalError> {
    match value {
        Value::Str(s) => Ok(s),
        Value::Num(n) => Ok(number_text(n)),
        Value::Json(Json::Number(digits)) => Ok(digits.to_string()),
        other => Err(EvalError(format!("a {} value is no string", other.kind()))),
    }
}

/// Bytes `from..=to`, counted from 1, negative ones from the end.
fn slice(text: &str, from: f64, to: f64) -> String {
    let length = text.len() as f64;
    let place = |n: f64| if n < 0.0 { (length + n + 1.0).max(0.0) } else { n };
    let (from, to) = (place(from).max(1.0), place(to).min(length));
    if from > to {
        return String::new();
    }
    let bytes = &text.as_bytes()[from as usize - 1..to as usize];
    String::from_utf8_lossy(bytes).into_owned()
}

/// A number as Lua shows it: 14 significant digits.
fn number_text(n: f64) -> String {
    if n.fract() == 0.0 && n.abs() < 1e15 {
        return format!("{n:.0}");
    }
    if !n.is_finite() {
        return if n.is_nan() {
            "nan"
        } else if n > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    let exponent = n.abs().log10().floor() as i32;
    if (-5..15).contains(&exponent) {
        let decimals = usize::try_from(13 - exponent).unwrap_or(0);
        let fixed = format!("{n:.decimals$}");
        return fixed.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let scientific = format!("{n:.13e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}
