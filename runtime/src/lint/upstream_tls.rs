//! TLS towards services.

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};

pub const NOT_VERIFIED_DOC: &str = "\
## What it does
Finds services that are spoken to over TLS without checking their certificate.

## Why
Kong's default is not to verify, and gw keeps it so that a file means the same. Without verification anyone on the way
can pose as the service, and read and change everything.

## Example
```yaml
services: [{ name: pay, url: https://pay.example.com }]
```

## Use instead
```yaml
services: [{ name: pay, url: https://pay.example.com, tls_verify: true }]
```
or `gateway: { tls: { verify_upstreams: true } }` for all services at once. `tls_verify: false` says that it is meant.
";

pub const PORT_80_DOC: &str = "\
## What it does
Finds services with `protocol: https` on port 80.

## Why
The port is 80 unless the config says otherwise, also for https: only the `url` shorthand knows that https means 443.
A TLS handshake with a plain-text port fails, and every request gets 502.

## Example
```yaml
services: [{ name: pay, protocol: https, host: pay.example.com }]
```

## Use instead
```yaml
services: [{ name: pay, url: https://pay.example.com }]
```
";

/// Reports certificates that nobody checks. An explicit `tls_verify: false` is a decision, not a slip.
pub fn not_verified(facts: &Facts<'_>, diags: &mut Diags) {
    if facts.model.gateway.tls.verify_upstreams {
        return;
    }
    for s in facts.model.services.iter().filter(|s| s.enabled && s.tls_verify.is_none()) {
        if matches!(s.protocol.as_str(), "https" | "grpcs" | "tls") {
            diags.push(
                Diagnostic::new(
                    &codes::UPSTREAM_NOT_VERIFIED,
                    facts.first_line(s.protocol.span),
                    format!("the certificate of `{}` is not verified", s.host.value),
                )
                .label("anyone on the way can pose as this service")
                .help(
                    "set `tls_verify: true` on the service, or `gateway.tls.verify_upstreams: true` for all; \
                     `tls_verify: false` if this is meant",
                ),
            );
        }
    }
}

/// Reports https where plain text is spoken.
pub fn port_80(facts: &Facts<'_>, diags: &mut Diags) {
    for s in facts.model.services.iter().filter(|s| s.port == 80) {
        if matches!(s.protocol.as_str(), "https" | "grpcs" | "tls") {
            diags.push(
                Diagnostic::new(
                    &codes::HTTPS_ON_PORT_80,
                    facts.first_line(s.protocol.span),
                    format!("`{}` is spoken to over TLS on port 80", s.host.value),
                )
                .label(if s.port_given {
                    "80 is the port of plain http"
                } else {
                    "the port is 80 unless it is given"
                })
                .help("write `port: 443`, or use `url: https://...`, which implies it"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    #[test]
    fn unverified_certificates_are_reported_unless_meant() {
        let with =
            |rest: &str| format!("_format_version: '3.0'\nservices:\n- {{url: 'https://a.test'{rest}}}\n");
        check(&codes::UPSTREAM_NOT_VERIFIED, &with(""), &["3: the certificate of `a.test` is not verified"]);
        check(&codes::UPSTREAM_NOT_VERIFIED, &with(", tls_verify: true"), &[]);
        check(&codes::UPSTREAM_NOT_VERIFIED, &with(", tls_verify: false"), &[]);
    }

    #[test]
    fn https_does_not_imply_its_port() {
        let with = |s: &str| format!("_format_version: '3.0'\nservices:\n- {{{s}}}\n");
        check(
            &codes::HTTPS_ON_PORT_80,
            &with("protocol: https, host: a.test"),
            &["3: `a.test` is spoken to over TLS"],
        );
        check(&codes::HTTPS_ON_PORT_80, &with("url: 'https://a.test'"), &[]);
    }
}
