//! A regex that is taken as plain text.

use super::Facts;
use crate::diag::{Applicability, Diagnostic, Diags, codes};

pub const DOC: &str = "\
## What it does
Finds route paths that look like regular expressions but lack the `~` that makes them one.

## Why
Since format 3.0 only a path that begins with `~` is a regular expression. Without it every character stands for
itself, so `/users/(.*)` matches only that very text, and the route is never found.

## Example
```yaml
paths: [\"/users/(.*)\"]
```

## Use instead
```yaml
paths: [\"~/users/(.*)\"]
```
";

pub fn run(facts: &Facts<'_>, diags: &mut Diags) {
    for path in facts.model.routes.iter().flat_map(|r| &r.paths) {
        if path.starts_with('~') || !looks_like_regex(path) {
            continue;
        }
        diags.push(
            Diagnostic::new(
                &codes::PATH_LOOKS_LIKE_REGEX,
                path.span,
                format!("path `{}` looks like a regular expression but is matched as plain text", path.value),
            )
            .label("matches only this very text")
            .help("begin it with `~`")
            .fix(path.span, format!("{:?}", format!("~{}", path.value)), Applicability::Unsafe),
        );
    }
}

/// Whether a plain path has what hardly any real path has.
fn looks_like_regex(path: &str) -> bool {
    let marks = [".*", ".+", "(", "[", "\\", "^", "|", "$", "{", "/*", "*/", "]+", ")?"];
    marks.iter().any(|m| path.contains(m))
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    #[test]
    fn plain_paths_with_regex_marks_are_reported() {
        for (path, hit) in
            [("/a/(.*)", true), ("/a/.*", true), ("/a$", true), ("/a.json", false), ("~/a/(.*)", false)]
        {
            let yaml = format!("_format_version: '3.0'\nroutes:\n- paths: ['{path}']\n");
            let found = format!("3: path `{path}` looks like");
            let found = [found.as_str()];
            check(&codes::PATH_LOOKS_LIKE_REGEX, &yaml, if hit { &found } else { &[] });
        }
    }
}
