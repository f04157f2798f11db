//! Every client counts as a trusted proxy.

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};

pub const DOC: &str = "\
## What it does
Finds `gateway.trusted_ips` with `0.0.0.0/0` or `::/0`.

## Why
A trusted peer's word is taken for the client's address, scheme and host. If everybody is trusted, every client can
choose its own address with a header, and pass address lists and limits by address.

## Example
```yaml
gateway: { trusted_ips: [0.0.0.0/0] }
```

## Use instead
The addresses of your own load balancers:
```yaml
gateway: { trusted_ips: [10.0.0.0/8] }
```
";

pub fn run(facts: &Facts<'_>, diags: &mut Diags) {
    let Some(net) = facts.model.gateway.trusted_ips.iter().find(|net| net.prefix_len() == 0) else { return };
    let span = facts.find_key("trusted_ips").unwrap_or_default();
    diags.push(
        Diagnostic::new(
            &codes::TRUSTS_EVERYONE,
            span,
            format!("`trusted_ips` with `{net}` lets every client choose the address it seems to come from"),
        )
        .label("everybody is a trusted proxy")
        .help("list only the addresses of your own proxies"),
    );
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    #[test]
    fn a_network_of_everybody_is_reported() {
        let with = |net: &str| {
            format!(
                "_format_version: '3.0'\ngateway:\n  trusted_ips: [{net}]\nservices: [{{url: 'http://a.test'}}]\n"
            )
        };
        check(&codes::TRUSTS_EVERYONE, &with("0.0.0.0/0"), &["3: `trusted_ips` with `0.0.0.0/0`"]);
        check(&codes::TRUSTS_EVERYONE, &with("10.0.0.0/8"), &[]);
    }
}
