//! Reading claims that have been verified, and the registered ones that have rules of their own.

use std::borrow::Cow;

use serde_json::Value;

/// The last second of the year 9999: no token has business beyond it.
pub const END_OF_TIME: f64 = 253_402_300_799.0;

/// What a token says of a moment (`exp`, `nbf`).
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Moment {
    #[default]
    Missing,
    /// Seconds since 1970, fractions allowed.
    At(f64),
    /// Something that is no number.
    Malformed,
}

impl Moment {
    /// The moment in words, and how far it is from `now` (seconds since 1970).
    pub fn shown(self, now: u64) -> String {
        let at = match self {
            Self::Missing => return "(absent)".into(),
            Self::Malformed => return "(no number)".into(),
            Self::At(at) => at,
        };
        // Beyond i64 the cast saturates, and such a moment is out of the calendar's range anyway.
        let date = jiff::Timestamp::from_second(at.floor() as i64);
        let date = date.map_or_else(|_| at.to_string(), |d| d.to_string());
        match distance(at - now as f64) {
            None => format!("{date} (now)"),
            Some(distance) => format!("{date} ({distance})"),
        }
    }
}

/// `in 5 minutes`, `2 days ago`; nothing for less than a second.
pub fn distance(seconds: f64) -> Option<String> {
    let (count, unit) = match seconds.abs() {
        s if s < 120.0 => (s, "second"),
        s if s < 7200.0 => (s / 60.0, "minute"),
        s if s < 172_800.0 => (s / 3600.0, "hour"),
        s => (s / 86_400.0, "day"),
    };
    let count = count.floor();
    if count == 0.0 {
        return None;
    }
    let plural = if count == 1.0 { "" } else { "s" };
    Some(if seconds >= 0.0 {
        format!("in {count} {unit}{plural}")
    } else {
        format!("{count} {unit}{plural} ago")
    })
}

/// The moments of a token.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Times {
    pub exp: Moment,
    pub nbf: Moment,
    pub iat: Moment,
}

impl Times {
    /// The moments that `claims` gives.
    pub fn of(claims: &Value) -> Self {
        let moment = |name| match claims.get(name) {
            None => Moment::Missing,
            Some(value) => value.as_f64().map_or(Moment::Malformed, Moment::At),
        };
        Self { exp: moment("exp"), nbf: moment("nbf"), iat: moment("iat") }
    }

    /// What is wrong with `exp` at `now` (seconds since 1970); there is no leeway.
    pub fn exp_error(&self, now: u64) -> Option<&'static str> {
        match self.exp {
            Moment::At(exp) if exp > END_OF_TIME => Some("out of range"),
            Moment::At(exp) if exp > now as f64 => None,
            Moment::At(_) => Some("token expired"),
            _ => Some("must be a number"),
        }
    }

    /// What is wrong with `nbf` at `now`; there is no leeway.
    pub fn nbf_error(&self, now: u64) -> Option<&'static str> {
        Self::not_yet(self.nbf, now)
    }

    /// What is wrong with `iat` at `now`; there is no leeway.
    pub fn iat_error(&self, now: u64) -> Option<&'static str> {
        Self::not_yet(self.iat, now)
    }

    fn not_yet(moment: Moment, now: u64) -> Option<&'static str> {
        match moment {
            Moment::At(at) if at <= now as f64 => None,
            Moment::At(_) => Some("token not valid yet"),
            _ => Some("must be a number"),
        }
    }

    /// Whether `exp` is missing or further away than `maximum` seconds.
    pub fn exceeds(&self, maximum: f64, now: u64) -> bool {
        !matches!(self.exp, Moment::At(exp) if exp - now as f64 <= maximum)
    }
}

/// The claim at a path: a name, or names joined by dots for nested objects. A claim whose own name has the dots wins.
pub fn find<'a>(claims: &'a Value, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    path.split('.').try_fold(claims, |value, name| value.get(name))
}

/// A claim as the value of a header field. Only texts, numbers and truth values have one. A text with control
/// characters has none either: dropping them could turn one identity into another.
pub fn as_field_value(claim: &Value) -> Option<Cow<'_, str>> {
    match claim {
        Value::String(text) => {
            let sound = !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control);
            sound.then_some(Cow::Borrowed(text))
        }
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(true) => Some(Cow::Borrowed("true")),
        Value::Bool(false) => Some(Cow::Borrowed("false")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn moments_are_judged_without_leeway() {
        let now = 1000;
        let check = |claims: Value, exp: Option<&str>, nbf: Option<&str>, exceeds: bool| {
            let times = Times::of(&claims);
            assert_eq!(times.exp_error(now), exp, "exp of {claims}");
            assert_eq!(times.nbf_error(now), nbf, "nbf of {claims}");
            assert_eq!(times.exceeds(60.0, now), exceeds, "{claims}");
        };
        let number = Some("must be a number");
        check(json!({}), number, number, true);
        check(json!({"exp": 1001, "nbf": 1000}), None, None, false);
        check(json!({"exp": 1000, "nbf": 1001}), Some("token expired"), Some("token not valid yet"), false);
        check(json!({"exp": 1000.5, "nbf": 1000.5}), None, Some("token not valid yet"), false);
        check(json!({"exp": 1060, "nbf": -1}), None, None, false);
        check(json!({"exp": 1061, "nbf": null}), None, number, true);
        check(json!({"exp": "1061", "nbf": [1]}), number, number, true);
        check(json!({"exp": u64::MAX, "nbf": 0}), Some("out of range"), None, true);
    }

    #[test]
    fn claims_become_field_values() {
        let claims =
            json!({"sub": "u1", "a": {"b": 7, "t": true}, "a.t": "dotted", "list": [1], "evil": "a\r\nb"});
        let check = |path: &str, want: Option<&str>| {
            assert_eq!(find(&claims, path).and_then(as_field_value).as_deref(), want, "{path}");
        };
        check("sub", Some("u1"));
        check("a.b", Some("7"));
        check("a.t", Some("dotted"));
        check("list", None);
        check("a", None);
        check("evil", None);
        check("sub.x", None);
        check("nope", None);
    }
}
