//! Identity providers over plain text.

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};
use crate::model::schema::Record;
use crate::policy::call::Url;
use crate::source::Spanned;

pub const DOC: &str = "\
## What it does
Finds identity providers that are asked over plain http: `jwks_uri`, an `issuer` with `discovery` or of `openid-connect`,
`introspection_url`. Addresses of the machine itself (`localhost`, `127.0.0.1`, `[::1]`) are left out.

## Why
Whoever can change what is on the way there, by a forged answer of the name service or in between, gives the gateway keys
of their own, and so signs tokens for everybody. Introspection also sends the gateway's secret.

## Example
```yaml
plugins:
  - name: jwt
    config: { issuers: [{ issuer: https://id.example.com, jwks_uri: http://id.example.com/keys }] }
```

## Use instead
```yaml
plugins:
  - name: jwt
    config: { issuers: [{ issuer: https://id.example.com, jwks_uri: https://id.example.com/keys }] }
```
A provider with a certificate of your own authority is trusted by `gateway.tls.upstream_ca`.
";

/// Reports URLs that begin with `http:` and lead elsewhere.
pub fn run(facts: &Facts<'_>, diags: &mut Diags) {
    let mut look = |url: Option<Spanned<String>>, field: &str, what: &str| {
        let Some(url) = url.filter(|url| leads_elsewhere_in_clear(url)) else { return };
        diags.push(
            Diagnostic::new(
                &codes::ISSUER_OVER_HTTP,
                url.span,
                format!("`{field}` is asked over plain http"),
            )
            .label(what)
            .help("write `https:`; for a certificate of your own authority set `gateway.tls.upstream_ca`"),
        );
    };
    let forged = "whoever is on the way can give the gateway keys of their own";
    let text = |record: &Record, field: &str| record.spanned_str(field);
    for plugin in facts.plugins("jwt") {
        for issuer in plugin.config.records("issuers") {
            look(text(issuer, "jwks_uri"), "jwks_uri", forged);
            look(text(issuer, "issuer").filter(|_| issuer.bool("discovery")), "issuer", forged);
        }
    }
    for plugin in facts.plugins("openid-connect") {
        look(text(&plugin.config, "issuer"), "issuer", forged);
    }
    for plugin in facts.plugins("oauth2-introspection") {
        let forged = "whoever is on the way can call any token active, and reads the gateway's secret";
        look(text(&plugin.config, "introspection_url"), "introspection_url", forged);
    }
}

fn leads_elsewhere_in_clear(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host.trim_matches(['[', ']']).to_ascii_lowercase();
    let local = host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    !url.tls && !local
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    #[test]
    fn providers_elsewhere_are_asked_over_https() {
        for (config, want) in [
            ("jwks_uri: 'http://id.test/keys'", Some("`jwks_uri` is asked over plain http")),
            ("jwks_uri: 'http://10.0.0.1:8080/keys'", Some("`jwks_uri` is asked over plain http")),
            ("jwks_uri: 'https://id.test/keys'", None),
            ("jwks_uri: 'http://localhost:9/keys'", None),
            ("jwks_uri: 'http://127.0.0.1:9/keys'", None),
            ("jwks_uri: 'http://[::1]:9/keys'", None),
            ("discovery: true", Some("`issuer` is asked over plain http")),
        ] {
            let yaml = format!(
                "_format_version: '3.0'\nplugins:\n- name: jwt\n  config:\n    issuers:\n    - {{issuer: 'http://id.test', {config}}}\n"
            );
            let want: Vec<String> = want.iter().map(|w| format!("6: {w}")).collect();
            check(&codes::ISSUER_OVER_HTTP, &yaml, &want.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}
