//! Tokens that never expire.

use super::Facts;
use super::facts::has_issuers;
use crate::diag::{Diagnostic, Diags, codes};

pub const DOC: &str = "\
## What it does
Finds `jwt` plugins that do not check when a token expires.

## Why
Unless `claims_to_verify` lists `exp`, a token is good for ever, and so is a stolen one: its `exp` claim is not even
looked at.

## Example
```yaml
plugins: [{ name: jwt }]
```

## Use instead
```yaml
plugins: [{ name: jwt, config: { claims_to_verify: [exp] } }]
```
";

pub fn run(facts: &Facts<'_>, diags: &mut Diags) {
    for plugin in facts.plugins("jwt").filter(|p| !has_issuers(p)) {
        let claims = plugin.config.strings("claims_to_verify");
        // `maximum_expiration` looks at `exp` too.
        let bounded = plugin.config.num("maximum_expiration").is_some_and(|n| n > 0.0);
        if bounded || claims.iter().any(|c| c.value == "exp") {
            continue;
        }
        let (span, label) = match plugin.config.given("claims_to_verify") {
            true => (plugin.config.span_of("claims_to_verify"), "lacks `exp`"),
            false => (plugin.name.span, "no `claims_to_verify`"),
        };
        diags.push(
            Diagnostic::new(
                &codes::JWT_WITHOUT_EXP,
                span,
                "plugin `jwt` admits expired tokens: it does not verify `exp`",
            )
            .label(label)
            .help("set `claims_to_verify: [exp]`")
            .note("tokens that have no `exp` claim are then refused"),
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    #[test]
    fn expiry_must_be_verified() {
        let with =
            |config: &str| format!("_format_version: '3.0'\nplugins:\n- {{name: jwt, config: {config}}}\n");
        let found = ["3: plugin `jwt` admits expired tokens"];
        check(&codes::JWT_WITHOUT_EXP, &with("{}"), &found);
        check(&codes::JWT_WITHOUT_EXP, &with("{claims_to_verify: [nbf]}"), &found);
        check(&codes::JWT_WITHOUT_EXP, &with("{claims_to_verify: [nbf, exp]}"), &[]);
    }
}
