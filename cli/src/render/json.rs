//! One JSON document, for programs. Its shape is versioned: fields are added, never changed, within a version.

use gw_runtime::diag::{Applicability, Diagnostic, Label, Severity};
use gw_runtime::source::{Sources, Span};
use serde_json::{Map, Value, json};

use super::{Report, places, word};

pub fn render(report: &Report<'_>) -> String {
    let files: Vec<Value> =
        report.files.iter().map(|f| json!({ "file": f.name, "findings": f.findings })).collect();
    let diags: Vec<Value> = report.diags.iter().map(|d| diagnostic(report.sources, d)).collect();
    let document = json!({
        "schema": "gw.diagnostics",
        "version": 1,
        "files": files,
        "diagnostics": diags,
        "summary": {
            "errors": report.number_of(Severity::Error),
            "warnings": report.number_of(Severity::Warning),
            "files": report.files.len(),
            "elapsed_ms": report.elapsed.as_millis() as u64,
        },
    });
    format!("{document:#}\n")
}

fn diagnostic(sources: &Sources, d: &Diagnostic) -> Value {
    let mut out = Map::new();
    out.insert("code".into(), d.code.id.into());
    out.insert("name".into(), d.code.name.into());
    out.insert("severity".into(), word(d.severity).into());
    out.insert("message".into(), d.message.as_str().into());
    place(&mut out, sources, d.primary.span);
    let labels = std::iter::once(&d.primary).chain(&d.secondary).filter(|l| !l.text.is_empty());
    out.insert("labels".into(), labels.map(|l| label(sources, l)).collect());
    out.insert("help".into(), d.help.as_deref().into());
    out.insert("notes".into(), d.notes.iter().map(String::as_str).collect());
    let fix = d.fix.as_ref().map(|fix| {
        let mut out = Map::new();
        let applicability = if fix.applicability == Applicability::Safe { "safe" } else { "unsafe" };
        out.insert("applicability".into(), applicability.into());
        out.insert("replacement".into(), fix.replacement.as_str().into());
        place(&mut out, sources, fix.span);
        Value::Object(out)
    });
    out.insert("fix".into(), fix.unwrap_or(Value::Null));
    Value::Object(out)
}

fn label(sources: &Sources, l: &Label) -> Value {
    let mut out = Map::new();
    out.insert("text".into(), l.text.as_str().into());
    place(&mut out, sources, l.span);
    Value::Object(out)
}

/// Lines and columns start at 1; the end is exclusive.
fn place(out: &mut Map<String, Value>, sources: &Sources, span: Span) {
    let (start, end) = places(sources, span);
    out.insert("file".into(), sources.file(span.file).name.as_str().into());
    for (name, n) in [("line", start.line), ("col", start.col), ("end_line", end.line), ("end_col", end.col)]
    {
        out.insert(name.into(), n.into());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, tests::sample};

    #[test]
    fn the_document_names_its_schema_and_every_part_of_a_finding() {
        let doc: serde_json::Value = serde_json::from_str(&sample(Format::Json)).expect("JSON");
        assert_eq!((&doc["schema"], &doc["version"]), (&"gw.diagnostics".into(), &1.into()));
        let first = &doc["diagnostics"][0];
        for (name, want) in [
            ("code", "GW1002".into()),
            ("severity", "error".into()),
            ("line", 3.into()),
            ("col", 5.into()),
            ("end_col", 10.into()),
            ("help", serde_json::Value::from("did you mean `paths`?")),
        ] {
            assert_eq!(first[name], want, "{name}");
        }
        assert_eq!(first["fix"]["replacement"], "paths");
        assert_eq!(doc["diagnostics"][1]["labels"].as_array().map(Vec::len), Some(2));
        assert_eq!(doc["summary"]["errors"], 1);
    }
}
