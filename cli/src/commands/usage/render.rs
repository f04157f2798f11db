//! Rows for people and for spreadsheets.

use gw_runtime::usage::Row;

const HEAD: [&str; 9] = ["WHO", "PLAN", "ROUTE", "LIMIT", "PERIOD", "USED", "ALLOWED", "USED%", "MORE IN"];
/// Columns that hold numbers stand to the right.
const RIGHT: [bool; 9] = [false, false, false, false, false, true, true, true, true];

/// A table with aligned columns.
pub fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "no counters\n".to_owned();
    }
    let cells = |r: &Row| {
        [
            printable(who(r)),
            r.plan.as_deref().map_or_else(|| "-".to_owned(), printable),
            printable(&r.route),
            printable(&r.limit),
            r.period.to_owned(),
            number(r.used),
            number(r.allowed),
            format!("{}%", r.used_percent),
            duration(r.more_in_s),
        ]
    };
    let lines: Vec<[String; 9]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(rows.iter().map(cells)).collect();
    let mut widths = [0; 9];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for line in lines {
        let mut text = String::new();
        for ((cell, width), right) in line.iter().zip(widths).zip(RIGHT) {
            text.push_str(&if right { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") });
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// The consumer, or whoever else the counter is of.
fn who(row: &Row) -> &str {
    row.key.as_deref().unwrap_or(&row.consumer)
}

/// RFC 4180, with a line of names.
pub fn csv(rows: &[Row]) -> String {
    let mut out =
        "consumer,plan,route,limit,period,used,allowed,left,used_percent,more_in_s,key\r\n".to_owned();
    for r in rows {
        let fields = [
            quoted(&r.consumer),
            quoted(r.plan.as_deref().unwrap_or_default()),
            quoted(&r.route),
            quoted(&r.limit),
            r.period.to_owned(),
            number(r.used),
            number(r.allowed),
            number(r.left),
            r.used_percent.to_string(),
            r.more_in_s.to_string(),
            quoted(r.key.as_deref().unwrap_or_default()),
        ];
        out.push_str(&fields.join(","));
        out.push_str("\r\n");
    }
    out
}

fn quoted(text: &str) -> String {
    let special = |c: char| matches!(c, ',' | '"' | '\r' | '\n');
    // What begins like a formula would be one in a spreadsheet.
    let formula = text.starts_with(['=', '+', '-', '@', '\t']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains(special) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// Without what would move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn number(n: f64) -> String {
    let rounded = (n * 10.0).round() / 10.0;
    if rounded.fract() == 0.0 { format!("{rounded:.0}") } else { format!("{rounded:.1}") }
}

/// The two largest units: `3d 4h`.
fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut parts = Vec::new();
    let mut rest = seconds;
    for (size, name) in units {
        if rest >= size {
            parts.push(format!("{}{name}", rest / size));
            rest %= size;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "-".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(consumer: &str, used: f64) -> Row {
        Row {
            consumer: consumer.to_owned(),
            key: None,
            plan: Some("free".to_owned()),
            route: "*".to_owned(),
            limit: "daily".to_owned(),
            period: "day",
            allowed: 1000.0,
            used,
            left: 1000.0 - used,
            used_percent: (used / 10.0) as u32,
            more_in_s: 7500,
        }
    }

    #[test]
    fn columns_line_up() {
        let text = table(&[row("alice", 820.0), row("a-longer-name\u{7}", 7.5)]);
        assert_eq!(
            text,
            "WHO             PLAN  ROUTE  LIMIT  PERIOD  USED  ALLOWED  USED%  MORE IN\n\
             alice           free  *      daily  day      820     1000    82%    2h 5m\n\
             a-longer-name?  free  *      daily  day      7.5     1000     0%    2h 5m\n"
        );
        assert_eq!(table(&[]), "no counters\n");
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        let text = csv(&[row("a,\"b\"", 1.0), row("=1+1", 1.0)]);
        assert!(text.contains("\r\n\"a,\"\"b\"\"\",free,*,daily,day,1,1000,999,0,7500,\r\n"), "{text}");
        assert!(text.contains("\r\n'=1+1,free"), "{text}");
    }

    #[test]
    fn durations_are_short() {
        for (s, want) in [(0, "-"), (59, "59s"), (61, "1m 1s"), (90_061, "1d 1h"), (86_400, "1d")] {
            assert_eq!(duration(s), want);
        }
    }
}
