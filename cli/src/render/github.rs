//! GitHub's workflow commands: `::error file=…,line=…::message`.

use gw_runtime::diag::Severity;

use super::{Report, places, word};

pub fn render(report: &Report<'_>) -> String {
    let mut out = String::new();
    for d in report.diags {
        let (start, end) = places(report.sources, d.primary.span);
        let mut text = d.message.clone();
        for note in &d.notes {
            text.push_str(&format!("\nnote: {note}"));
        }
        if let Some(help) = &d.help {
            text.push_str(&format!("\nhelp: {help}"));
        }
        out.push_str(&format!(
            "::{} file={},line={},col={},endLine={},endColumn={},title={}::{}\n",
            if d.severity == Severity::Note { "notice" } else { word(d.severity) },
            property(&report.sources.file(d.primary.span.file).name),
            start.line,
            start.col,
            end.line,
            end.col,
            property(&format!("{} {}", d.code.id, d.code.name)),
            data(&text)
        ));
    }
    out + &report.summary()
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::super::{Format, tests::sample};

    #[test]
    fn a_finding_is_a_command() {
        let out = sample(Format::Github);
        let first = "::error file=a b.yaml,line=3,col=5,endLine=3,endColumn=10,title=GW1002 unknown-field::\
                     unknown field `pahts`%0Anote: fields are case-sensitive%0Ahelp: did you mean `paths`?\n";
        assert!(out.starts_with(first), "{out}");
        assert!(out.contains("::expected a list%0Aof text\n"), "{out}");
    }
}
