//! Grants of Kong's `oauth2`, which hand out tokens.

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};
use crate::policy::oauth2::GRANTS;

pub const DOC: &str = "\
## What it does
Finds `oauth2` plugins that enable a grant, such as `enable_client_credentials`.

## Why
Kong then answers `/oauth2/token` and `/oauth2/authorize` itself and keeps the tokens in its database. gw issues no tokens:
POST to these paths is answered 400, and only tokens that the config lists in `oauth2_tokens` let a caller in.

## Example
```yaml
plugins: [{ name: oauth2, config: { enable_client_credentials: true } }]
```

## Use instead
Let an identity provider issue tokens, and check them with `jwt` (`issuers`) or `oauth2-introspection`; or list tokens:
```yaml
plugins: [{ name: oauth2, config: { global_credentials: true } }]
consumers:
  - username: alice
    oauth2_credentials:
      - name: app
        client_id: app
        oauth2_tokens: [{ access_token: \"${APP_TOKEN}\", expires_in: 0 }]
```
";

/// Reports grants that are enabled.
pub fn run(facts: &Facts<'_>, diags: &mut Diags) {
    for plugin in facts.plugins("oauth2") {
        let enabled: Vec<&str> = GRANTS.iter().copied().filter(|g| plugin.config.bool(g)).collect();
        let Some(first) = enabled.first() else { continue };
        let (them, do_) = if enabled.len() == 1 { ("it", "does") } else { ("them", "do") };
        let message = format!("gw issues no tokens, so `{}` {do_} nothing", enabled.join("`, `"));
        diags.push(
            Diagnostic::new(&codes::ISSUES_NO_TOKENS, plugin.config.span_of(first), message)
                .label("no caller gets a token here")
                .help(format!("remove {them}; list tokens in `oauth2_tokens`, or use an identity provider")),
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    #[test]
    fn enabled_grants_are_reported() {
        let yaml = "_format_version: '3.0'\nplugins:\n- name: oauth2\n  config:\n    enable_client_credentials: true\n    \
                    enable_password_grant: true\n";
        let want =
            "5: gw issues no tokens, so `enable_client_credentials`, `enable_password_grant` do nothing";
        check(&codes::ISSUES_NO_TOKENS, yaml, &[want]);
        check(&codes::ISSUES_NO_TOKENS, "_format_version: '3.0'\nplugins: [{name: oauth2}]\n", &[]);
    }
}
