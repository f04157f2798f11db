//! `gw explain CODE`: the page of a diagnostic code.

use gw_runtime::diag::codes;
use gw_runtime::diag::{Code, Severity, suggest};

/// The code that a user named, by id, bare number or name.
pub fn find(text: &str) -> anyhow::Result<&'static Code> {
    let numbered = format!("GW{text}");
    if let Some(code) = codes::find(text).or_else(|| codes::find(&numbered)) {
        return Ok(code);
    }
    let names = codes::ALL.iter().flat_map(|c| [c.id, c.name]);
    let hint = match suggest::nearest(text, names) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "`gw explain --list` shows them all".to_owned(),
    };
    anyhow::bail!("there is no diagnostic code `{text}`; {hint}")
}

/// A code's page in Markdown.
pub fn page(code: &Code) -> String {
    format!("# {}: {}\n\nDefault level: {}.\n\n{}\n", code.id, code.name, level(code), code.explain.trim())
}

/// Every code, one a line.
pub fn list() -> String {
    let mut out = String::new();
    for code in codes::ALL {
        out.push_str(&format!("{}  {:<9}  {}\n", code.id, level(code), code.name));
    }
    out
}

/// What becomes of a finding of this code when nobody says otherwise.
pub fn level(code: &Code) -> &'static str {
    match code.severity {
        Severity::Error => "error",
        Severity::Warning if gw_runtime::lint::is_quiet(code) => "off",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_by_id_number_and_name_and_slips_are_corrected() {
        for text in ["GW1002", "gw1002", "1002", "unknown-field", "Unknown-Field"] {
            assert_eq!(find(text).expect(text).id, "GW1002");
        }
        let said = find("unknown-feild").expect_err("no such code").to_string();
        assert_eq!(said, "there is no diagnostic code `unknown-feild`; did you mean `unknown-field`?");
        assert!(find("zzz").expect_err("no such code").to_string().contains("--list"));
    }
}
