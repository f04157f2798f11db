//! Every site may act in a visitor's name.

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};

pub const DOC: &str = "\
## What it does
Finds `cors` plugins that allow credentials to every origin.

## Why
With `credentials: true` and origin `*` the plugin answers with the origin that asked. So every site that a user visits
can call this service with the user's cookies, and read the answers.

## Example
```yaml
plugins: [{ name: cors, config: { credentials: true, origins: [\"*\"] } }]
```

## Use instead
```yaml
plugins: [{ name: cors, config: { credentials: true, origins: [\"https://app.example.com\"] } }]
```
";

pub fn run(facts: &Facts<'_>, diags: &mut Diags) {
    for plugin in facts.plugins("cors").filter(|p| p.config.bool("credentials")) {
        let origins = plugin.config.strings("origins");
        let any = origins.iter().find(|o| matches!(o.as_str(), "*" | ".*" | ".+" | "https?://.*" | "^.*$"));
        let span = match any {
            Some(origin) => origin.span,
            None if origins.is_empty() => plugin.config.span_of("credentials"),
            None => continue,
        };
        diags.push(
            Diagnostic::new(
                &codes::CORS_ANY_ORIGIN,
                span,
                "`cors` lets every site send a visitor's credentials and read the answers",
            )
            .label(if any.is_some() { "any origin" } else { "and no `origins`, which means any" })
            .help("list the origins that are yours, or drop `credentials`"),
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    #[test]
    fn credentials_want_named_origins() {
        let with = |config: &str| {
            format!("_format_version: '3.0'\nplugins:\n- {{name: cors, config: {{{config}}}}}\n")
        };
        let found = ["3: `cors` lets every site"];
        check(&codes::CORS_ANY_ORIGIN, &with("credentials: true"), &found);
        check(&codes::CORS_ANY_ORIGIN, &with("credentials: true, origins: ['*']"), &found);
        check(&codes::CORS_ANY_ORIGIN, &with("credentials: true, origins: ['https://a.test']"), &[]);
        check(&codes::CORS_ANY_ORIGIN, &with("origins: ['*']"), &[]);
    }
}
