//! `# gw: allow(jwt-without-exp)`: a lint silenced where it is known to be wrong.

use crate::diag::Diagnostic;
use crate::source::Sources;

/// Whether a comment on the finding's line, or alone on the line above, allows its code.
pub fn is_silenced(sources: &Sources, d: &Diagnostic) -> bool {
    let text = &sources.file(d.primary.span.file).text;
    let Some(before) = text.get(..d.primary.span.start as usize) else { return false };
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    let line = text[start..].lines().next().unwrap_or("");
    let above = before[..start].lines().next_back().unwrap_or("");
    let allows = |comment: &str| {
        let codes = comment.split_once("gw: allow(").and_then(|(_, rest)| rest.split_once(')'));
        codes.is_some_and(|(codes, _)| {
            let mut codes = codes.split(',').map(str::trim);
            codes.any(|c| c.eq_ignore_ascii_case(d.code.id) || c.eq_ignore_ascii_case(d.code.name))
        })
    };
    let comment = line.find('#').map_or("", |i| &line[i..]);
    allows(comment) || above.trim_start().starts_with('#') && allows(above)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::codes;
    use crate::source::Span;

    #[test]
    fn a_comment_silences_its_line_and_the_next() {
        for (text, want) in [
            ("- name: jwt # gw: allow(jwt-without-exp)", true),
            ("# gw: allow(GW4001, GW4002)\n- name: jwt", true),
            ("# gw: allow(GW4001)\n- name: jwt", false),
            ("x: 1 # gw: allow(GW4002)\n- name: jwt", false),
            ("- name: jwt\n# gw: allow(GW4002)", false),
            ("- name: jwt", false),
        ] {
            let mut sources = Sources::default();
            let file = sources.add("t.yaml", text);
            let at = text.rfind("name: jwt").map_or(0, |i| i + "name: ".len());
            let d = Diagnostic::new(&codes::JWT_WITHOUT_EXP, Span::new(file, at, at + 3), "x");
            assert_eq!(is_silenced(&sources, &d), want, "{text}");
        }
    }
}
