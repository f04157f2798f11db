//! `PATH:LINE:COL: error[GW1234]: message`, one finding a line, then the summary.

use super::{Report, one_line, word};

pub fn render(report: &Report<'_>) -> String {
    let mut out = String::new();
    for d in report.diags {
        let file = report.sources.file(d.primary.span.file);
        let place = file.line_col(d.primary.span.start as usize);
        out.push_str(&format!(
            "{}:{}:{}: {}[{}]: {}\n",
            one_line(&file.name),
            place.line,
            place.col,
            word(d.severity),
            d.code.id,
            one_line(&d.message)
        ));
    }
    out + &report.summary()
}

#[cfg(test)]
mod tests {
    use super::super::{Format, tests::sample};

    #[test]
    fn a_finding_is_a_line() {
        assert_eq!(
            sample(Format::Concise),
            "a b.yaml:3:5: error[GW1002]: unknown field `pahts`\n\
             a b.yaml:4:13: warning[GW1003]: expected a list of text\n\
             c.yaml: ok (1 service)\n\
             1 error, 1 warning in 1 file (14 ms); 1 can be fixed with `--fix`\n"
        );
    }
}
