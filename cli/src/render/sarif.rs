//! SARIF 2.1.0 (OASIS), which code-scanning services read.

use gw_runtime::diag::{Applicability, Code, Diagnostic, Severity};
use gw_runtime::source::{Sources, Span};
use serde_json::{Value, json};

use super::{Report, places, word};

pub fn render(report: &Report<'_>) -> String {
    let mut rules: Vec<&'static Code> = report.diags.iter().map(|d| d.code).collect();
    rules.sort_by_key(|c| c.id);
    rules.dedup_by_key(|c| c.id);
    let results: Vec<Value> = report.diags.iter().map(|d| result(report.sources, &rules, d)).collect();
    let document = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "gw",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(|c| rule(c)).collect::<Vec<_>>(),
            } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    format!("{document:#}\n")
}

fn rule(code: &Code) -> Value {
    let summary = code.explain.lines().find(|l| !l.is_empty() && !l.starts_with('#')).unwrap_or(code.name);
    json!({
        "id": code.id,
        "name": code.name,
        "shortDescription": { "text": summary },
        "help": { "text": code.explain, "markdown": code.explain },
        "defaultConfiguration": { "level": level(code.severity) },
    })
}

fn result(sources: &Sources, rules: &[&'static Code], d: &Diagnostic) -> Value {
    let mut text = d.message.clone();
    for note in &d.notes {
        text.push_str(&format!("\nnote: {note}"));
    }
    if let Some(help) = &d.help {
        text.push_str(&format!("\nhelp: {help}"));
    }
    let mut out = json!({
        "ruleId": d.code.id,
        "ruleIndex": rules.iter().position(|c| c.id == d.code.id),
        "level": level(d.severity),
        "message": { "text": text },
        "locations": [location(sources, d.primary.span, &d.primary.text)],
    });
    if !d.secondary.is_empty() {
        out["relatedLocations"] = d.secondary.iter().map(|l| location(sources, l.span, &l.text)).collect();
    }
    if let Some(fix) = d.fix.as_ref().filter(|f| f.applicability == Applicability::Safe) {
        out["fixes"] = json!([{ "artifactChanges": [{
            "artifactLocation": artifact(sources, fix.span),
            "replacements": [{
                "deletedRegion": region(sources, fix.span),
                "insertedContent": { "text": fix.replacement },
            }],
        }] }]);
    }
    out
}

fn level(severity: Severity) -> &'static str {
    word(severity)
}

fn location(sources: &Sources, span: Span, text: &str) -> Value {
    let mut out = json!({ "physicalLocation": {
        "artifactLocation": artifact(sources, span),
        "region": region(sources, span),
    } });
    if !text.is_empty() {
        out["message"] = json!({ "text": text });
    }
    out
}

fn artifact(sources: &Sources, span: Span) -> Value {
    json!({ "uri": uri(&sources.file(span.file).name) })
}

fn region(sources: &Sources, span: Span) -> Value {
    let (start, end) = places(sources, span);
    json!({ "startLine": start.line, "startColumn": start.col, "endLine": end.line, "endColumn": end.col })
}

/// A path as a relative URI reference.
fn uri(path: &str) -> String {
    let mut out = String::new();
    for b in path.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                out.push(char::from(b))
            }
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Format, tests::sample};

    #[test]
    fn results_refer_to_rules_and_places() {
        let doc: serde_json::Value = serde_json::from_str(&sample(Format::Sarif)).expect("JSON");
        let run = &doc["runs"][0];
        assert_eq!(doc["version"], "2.1.0");
        for result in run["results"].as_array().expect("a list") {
            let index = result["ruleIndex"].as_u64().expect("a number") as usize;
            assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
        }
        let place = &run["results"][0]["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "a%20b.yaml");
        assert_eq!(place["region"]["startLine"], 3);
        assert_eq!(run["results"][1]["level"], "warning");
    }
}
