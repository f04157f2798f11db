//! The access log for people: the JSON lines of the gateway's own log, made short and put in columns.

use std::io::{self, Write};

use serde_json::Value;

/// Writes what is read by people to `to`.
pub struct Readable<W> {
    to: W,
    colour: bool,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
}

impl<W: Write> Readable<W> {
    /// See the type.
    pub fn new(to: W, colour: bool) -> Self {
        Self { to, colour, rest: Vec::new() }
    }
}

impl<W: Write> Write for Readable<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else { return Ok(bytes.len()) };
        let tail = self.rest.split_off(end + 1);
        let lines = std::mem::replace(&mut self.rest, tail);
        for json in lines.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            if let Ok(value) = serde_json::from_slice(json) {
                writeln!(self.to, "{}", line(&value, self.colour))?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn line(request: &Value, colour: bool) -> String {
    let text = |name: &str| request[name].as_str().unwrap_or("-").escape_default().to_string();
    let time = text("time");
    let time = time.get(11..19).unwrap_or("");
    let status = request["status"].as_u64().unwrap_or(0);
    let (on, off) = match status {
        _ if !colour => ("", ""),
        500.. => ("\x1b[31m", "\x1b[0m"),
        400.. => ("\x1b[33m", "\x1b[0m"),
        _ => ("\x1b[32m", "\x1b[0m"),
    };
    let mut out = format!(
        "{time} {on}{status}{off} {:<6} {:<28} {:<16} {:<10} {:>7.1} ms",
        text("method"),
        text("path"),
        text("route"),
        text("consumer"),
        request["total_ms"].as_f64().unwrap_or(0.0)
    );
    if request["error"].is_string() {
        out.push_str("  ");
        out.push_str(&text("error"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_columns_however_they_are_cut() {
        let json = r#"{"time":"2026-11-24T12:13:14.567Z","method":"GET","path":"/orders","status":200,"route":"orders","consumer":"alice","total_ms":1.25}
{"time":"2026-11-24T12:13:15.000Z","method":"GET","path":"/\u001b","status":404,"route":null,"consumer":null,"total_ms":0.1,"error":"no route"}
"#;
        let want = "\
12:13:14 200 GET    /orders                      orders           alice          1.2 ms
12:13:15 404 GET    /\\u{1b}                      -                -              0.1 ms  no route
";
        for size in [1, 7, 4096] {
            let mut log = Readable::new(Vec::new(), false);
            for part in json.as_bytes().chunks(size) {
                log.write_all(part).expect("memory");
            }
            assert_eq!(String::from_utf8_lossy(&log.to), want, "{size}");
        }
    }
}
