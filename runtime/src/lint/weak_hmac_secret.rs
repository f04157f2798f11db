//! Secrets that can be guessed.

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};
use crate::model::CredentialKind;

pub const DOC: &str = "\
## What it does
Finds secrets of HS256, HS384, HS512 and of `hmac-auth` that are shorter than 32 bytes.

## Why
Whoever holds one token can try secrets at home, billions a second, until one gives the token's signature; then they
mint tokens for anybody. RFC 7518 section 3.2 wants a key at least as long as the hash: 32 bytes for HS256.

## Example
```yaml
jwt_secrets: [{ key: alice, secret: changeme }]
```

## Use instead
32 random bytes, for example from `openssl rand -base64 32`, handed in by the environment:
```yaml
jwt_secrets: [{ key: alice, secret: \"${ALICE_SECRET}\" }]
```
";

/// Bytes, as RFC 7518 wants for HS256.
const MIN: usize = 32;

pub fn run(facts: &Facts<'_>, diags: &mut Diags) {
    let base64 = facts.plugins("jwt").any(|p| p.config.bool("secret_is_base64"));
    for c in &facts.model.credentials {
        let what = match c.kind {
            CredentialKind::Jwt if c.record.str("algorithm").unwrap_or("HS256").starts_with("HS") => {
                c.record.str("algorithm").unwrap_or("HS256")
            }
            CredentialKind::HmacAuth => "HMAC",
            _ => continue,
        };
        let Some(secret) = c.record.str("secret").filter(|s| !s.is_empty() && c.record.given("secret"))
        else {
            continue;
        };
        let length = match base64 && c.kind == CredentialKind::Jwt {
            true => secret.trim_end_matches('=').len() * 3 / 4,
            false => secret.len(),
        };
        if length < MIN {
            diags.push(
                Diagnostic::new(
                    &codes::WEAK_HMAC_SECRET,
                    c.record.span_of("secret"),
                    format!("this {what} secret is short enough to be guessed"),
                )
                .label(format!("{length} bytes; at least {MIN} are needed"))
                .help("use 32 random bytes, for example from `openssl rand -base64 32`")
                .note("whoever sees one token can try secrets offline until one fits"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    #[test]
    fn short_secrets_are_reported_and_never_shown() {
        let with = |secret: &str| {
            format!(
                "_format_version: '3.0'\nconsumers:\n- username: a\n  jwt_secrets: [{{key: a, secret: {secret}}}]\n"
            )
        };
        let diags = check(&codes::WEAK_HMAC_SECRET, &with("hunter2"), &["4: this HS256 secret is short"]);
        assert!(diags.iter().all(|d| !format!("{d:?}").contains("hunter2")), "{diags:?}");
        check(&codes::WEAK_HMAC_SECRET, &with("0123456789abcdef0123456789abcdef"), &[]);
    }
}
