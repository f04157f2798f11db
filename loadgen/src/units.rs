//! Durations, rates and sizes as people write and read them.

use std::time::Duration;

/// Reads `250us`, `5ms`, `1.5s`, `2m` or `1h`. A bare number is refused because nobody can tell its unit.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let seconds = match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "" if number.parse::<f64>().is_ok() => {
            return Err(format!("`{text}` has no unit, write `{text}s` or `{text}ms`"));
        }
        _ => return Err(format!("`{text}` is not a duration, write for example `10s`, `250ms` or `1.5m`")),
    };
    let value: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a duration, write for example `10s` or `250ms`"))?;
    Duration::try_from_secs_f64(value * seconds)
        .map_err(|_| format!("`{text}` is not a duration that can be waited"))
}

/// Reads `500/s`, `30/m`, `100/h` or `500` (a second); the result is per second.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let wrong = || format!("`{text}` is not a rate, write for example `500/s` or `30/m`");
    let (number, per) = text.split_once('/').unwrap_or((text, "s"));
    let seconds = match per.trim() {
        "s" | "sec" | "second" => 1.0,
        "m" | "min" | "minute" => 60.0,
        "h" | "hour" => 3600.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.trim().replace('_', "").parse().map_err(|_| wrong())?;
    if !number.is_finite() || number < 0.0 {
        return Err(wrong());
    }
    if number > 10_000_000.0 {
        return Err(format!("a rate of `{text}` is beyond what one machine can send"));
    }
    Ok(number / seconds)
}

/// Reads bytes: `512`, `64k`, `2m`, `1g`, also written `64KiB`. Multiples are of 1024.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size, write for example `512`, `64k` or `2m`");
    let (number, unit) = split_unit(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(wrong)
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

/// Nanoseconds with three significant digits: `87 µs`, `1.23 ms`, `2.50 s`.
pub fn show_ns(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}

/// A count with thin groups of three: `12 500`.
pub fn show_count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// A rate: `500/s`, `12.5/s`, `12 500/s`.
pub fn show_rate(rate: f64) -> String {
    if rate >= 1000.0 || (rate - rate.round()).abs() < 1e-9 {
        format!("{}/s", show_count(rate.round() as u64))
    } else if rate >= 10.0 {
        format!("{rate:.1}/s")
    } else {
        format!("{rate:.3}/s")
    }
}

/// Bytes: `512 B`, `3.2 MiB`.
pub fn show_bytes(bytes: f64) -> String {
    match bytes {
        b if b < 1024.0 => format!("{b:.0} B"),
        b if b < 1024.0 * 1024.0 => format!("{:.1} KiB", b / 1024.0),
        b if b < 1024.0 * 1024.0 * 1024.0 => format!("{:.1} MiB", b / 1024.0 / 1024.0),
        b => format!("{:.1} GiB", b / 1024.0 / 1024.0 / 1024.0),
    }
}

/// A duration without needless digits: `10s`, `1.5s`, `250ms`.
pub fn show_duration(duration: Duration) -> String {
    let s = duration.as_secs_f64();
    if s >= 1.0 || s == 0.0 {
        format!("{}s", (s * 1000.0).round() / 1000.0)
    } else {
        format!("{}ms", (s * 1e6).round() / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        let check = |text: &str, want: Result<u64, &str>| match (parse_duration(text), want) {
            (Ok(got), Ok(ns)) => assert_eq!(got.as_nanos() as u64, ns, "{text}"),
            (Err(got), Err(part)) => assert!(got.contains(part), "{text}: {got}"),
            (got, want) => panic!("{text}: {got:?}, not {want:?}"),
        };
        check("10s", Ok(10_000_000_000));
        check("1.5s", Ok(1_500_000_000));
        check("250us", Ok(250_000));
        check("250µs", Ok(250_000));
        check("2m", Ok(120_000_000_000));
        check("10", Err("no unit"));
        check("-1s", Err("not a duration"));
        check("1e400s", Err("not a duration"));
        check("", Err("not a duration"));
    }

    #[test]
    fn rates_and_sizes_are_read() {
        assert_eq!(parse_rate("500/s"), Ok(500.0));
        assert_eq!(parse_rate("120/m"), Ok(2.0));
        assert_eq!(parse_rate("0"), Ok(0.0));
        assert!(parse_rate("-1/s").is_err());
        assert!(parse_rate("nan").is_err());
        assert!(parse_rate("5/week").is_err());
        assert_eq!(parse_size("64k"), Ok(65536));
        assert_eq!(parse_size("2MiB"), Ok(2 << 20));
        assert!(parse_size("99999999999g").is_err());
        assert!(parse_size("big").is_err());
    }

    #[test]
    fn numbers_are_shown_for_people() {
        assert_eq!(show_ns(950), "950 ns");
        assert_eq!(show_ns(87_400), "87.4 µs");
        assert_eq!(show_ns(1_234_567), "1.23 ms");
        assert_eq!(show_ns(877_900_000), "878 ms");
        assert_eq!(show_count(1_234_567), "1 234 567");
        assert_eq!(show_rate(12.5), "12.5/s");
    }
}
