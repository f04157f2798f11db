//! Secrets in the file itself.

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};
use crate::model::CredentialKind;
use crate::model::schema::{Field, Record};
use crate::policy::registry;
use crate::source::Span;

pub const DOC: &str = "\
## What it does
Finds secrets, passwords and private keys that are written in the config file itself. One finding names them all.

## Why
A config is copied: into a repository, a chat, a ticket, a container image. Whoever reads it holds the secrets.

## Example
```yaml
keyauth_credentials: [{ key: 5f4dcc3b5aa765d6 }]
```

## Use instead
```yaml
keyauth_credentials: [{ key: \"${ALICE_KEY}\" }]
```
`${ALICE_KEY:-development-key}` has a default for development and counts as read from the environment.
";

/// Lines that are named in the message.
const NAMED: usize = 8;

pub fn run(facts: &Facts<'_>, diags: &mut Diags) {
    let mut found: Vec<(Span, String)> = Vec::new();
    let mut look = |span: Span, what: String| {
        if !facts.is_reference(span) && !facts.sources.text(span).trim_matches(['"', '\'']).is_empty() {
            found.push((span, what));
        }
    };
    for c in &facts.model.credentials {
        let field = match c.kind {
            CredentialKind::KeyAuth => "key",
            CredentialKind::Jwt | CredentialKind::HmacAuth => "secret",
            CredentialKind::BasicAuth => "password",
            CredentialKind::OAuth2 => "client_secret",
            CredentialKind::Acl => continue,
        };
        // A credential of a public key has no secret worth the name.
        let public =
            c.kind == CredentialKind::Jwt && !c.record.str("algorithm").unwrap_or("HS256").starts_with("HS");
        if c.record.given(field) && !public {
            look(c.record.span_of(field), format!("this `{field}`"));
        }
    }
    for t in facts.model.oauth2_tokens.iter().filter(|t| t.record.given("access_token")) {
        look(t.record.span_of("access_token"), "this `access_token`".to_owned());
    }
    for c in facts.model.certificates.iter().filter(|c| !c.key.is_empty()) {
        look(c.key.span, "this private key".to_owned());
    }
    for p in &facts.model.plugins {
        let fields = registry::find(&p.name.value).map_or(&[][..], |d| d.fields);
        secrets_of(&p.config, fields, &mut look);
    }
    found.sort_by_key(|(span, _)| (span.file.0, span.start));
    let Some(((span, what), rest)) = found.split_first() else { return };
    let mut d =
        Diagnostic::new(&codes::SECRET_IN_CLEAR, *span, format!("{what} stands in the file in clear"))
            .label("readable by everyone who reads the file")
            .help("take it from the environment: `\"${NAME}\"`, or `\"${NAME:-default}\"` for development");
    if !rest.is_empty() {
        let lines: Vec<String> =
            rest.iter().map(|(s, _)| facts.sources.line_col(*s).line.to_string()).collect();
        let more = if lines.len() > NAMED { ", ..." } else { "" };
        let shown = lines[..lines.len().min(NAMED)].join(", ");
        let noun = if rest.len() == 1 { "line" } else { "lines" };
        d = d.note(format!("{} more in {noun} {shown}{more}", rest.len()));
    }
    diags.push(d);
}

fn secrets_of(record: &Record, fields: &[Field], look: &mut impl FnMut(Span, String)) {
    for f in &record.fields {
        let Some(field) = fields.iter().find(|t| t.name == f.name) else { continue };
        match (&field.kind, &f.value.value) {
            (crate::model::schema::Kind::Record(inner), crate::model::schema::Val::Record(r)) => {
                secrets_of(r, inner, look);
            }
            _ if field.secret && f.given => look(f.value.span, format!("this `{}`", f.name)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    #[test]
    fn one_finding_names_all_secrets_in_clear() {
        let yaml = "_format_version: '3.0'\nconsumers:\n- username: a\n  keyauth_credentials:\n  - key: k1\n  - key: k2\n  \
                    - key: \"${GW_LINT_TEST_KEY:-k3}\"\n";
        let diags = check(&codes::SECRET_IN_CLEAR, yaml, &["5: this `key` stands in the file in clear"]);
        assert_eq!(diags[0].notes, ["1 more in line 6"]);
    }
}
