//! What a plain scalar means: the core schema of YAML 1.2, in which `yes`, `no`, `on` and `off` are text.

/// The meaning of a plain scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Core {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text,
}

impl Core {
    /// Reads a plain scalar. Whole numbers beyond 64 bits are floating-point numbers.
    pub fn of(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Self::Null,
            "true" | "True" | "TRUE" => return Self::Bool(true),
            "false" | "False" | "FALSE" => return Self::Bool(false),
            ".nan" | ".NaN" | ".NAN" => return Self::Float(f64::NAN),
            _ => {}
        }
        // Nothing else begins like this, so most text is told from numbers by its first byte.
        if !matches!(text.as_bytes()[0], b'0'..=b'9' | b'+' | b'-' | b'.') {
            return Self::Text;
        }
        number(text)
    }
}

fn number(text: &str) -> Core {
    let radix = |digits: &str, radix| {
        let only_digits = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        only_digits.then(|| i64::from_str_radix(digits, radix).map_or(Core::Text, Core::Int))
    };
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16).unwrap_or(Core::Text);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8).unwrap_or(Core::Text);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Core::Float(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return match text.parse() {
            Ok(n) => Core::Int(n),
            Err(_) => text.parse().map_or(Core::Text, Core::Float),
        };
    }
    if is_float(unsigned) { text.parse().map_or(Core::Text, Core::Float) } else { Core::Text }
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e.strip_prefix(['+', '-']).unwrap_or(e))),
        None => (text, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && digits(e))
}

#[cfg(test)]
mod tests {
    use super::Core::{self, *};

    #[track_caller]
    fn check(text: &str, expected: Core) {
        assert_eq!(Core::of(text), expected, "{text:?}");
    }

    #[test]
    fn plain_scalars_mean_what_the_core_schema_says() {
        for (text, expected) in [
            ("", Null),
            ("~", Null),
            ("null", Null),
            ("nULL", Text),
            ("true", Bool(true)),
            ("FALSE", Bool(false)),
            ("yes", Text),
            ("no", Text),
            ("on", Text),
            ("off", Text),
            ("y", Text),
            ("0", Int(0)),
            ("-12", Int(-12)),
            ("+7", Int(7)),
            ("007", Int(7)),
            ("0o17", Int(15)),
            ("0xff", Int(255)),
            ("0x", Text),
            ("0o8", Text),
            ("1_000", Text),
            ("99999999999999999999", Float(99_999_999_999_999_999_999.0)),
            ("3.0", Float(3.0)),
            (".5", Float(0.5)),
            ("5.", Float(5.0)),
            ("1e3", Float(1000.0)),
            ("-1.5E-2", Float(-0.015)),
            ("1e", Text),
            (".", Text),
            ("-", Text),
            ("1.2.3", Text),
            ("12:30:45", Text),
            ("-.inf", Float(f64::NEG_INFINITY)),
            ("infinity", Text),
            ("2024-01-01", Text),
        ] {
            check(text, expected);
        }
    }
}
