//! What can be seen by more people than it should be.

use super::Facts;
use crate::diag::{Diagnostic, Diags, codes};

pub const ADMIN_DOC: &str = "\
## What it does
Finds an admin interface that listens on more than the loopback address.

## Why
The admin interface shows the config and the state of the gateway, and asks nobody for a password. On an address that
others can reach it is for everybody on that network.

## Example
```yaml
gateway: { admin: \"0.0.0.0:8001\" }
```

## Use instead
```yaml
gateway: { admin: \"127.0.0.1:8001\" }
```
In a container, let the platform decide who reaches the port, and silence the lint there.
";

pub const KEY_IN_QUERY_DOC: &str = "\
## What it does
Finds `key-auth` plugins that take keys from the query. Off by default; `-W key-in-query` turns it on.

## Why
`key_in_query` is true unless the config says otherwise. A key in a URL ends up in access logs, in browser histories and
in `Referer` headers of other sites.

## Example
```yaml
plugins: [{ name: key-auth }]
```

## Use instead
```yaml
plugins: [{ name: key-auth, config: { key_in_query: false } }]
```
";

/// Reports an admin interface for everybody.
pub fn admin(facts: &Facts<'_>, diags: &mut Diags) {
    let Some(addr) = facts.model.gateway.admin.filter(|a| !a.ip().is_loopback()) else { return };
    let span = facts.find_key("admin").unwrap_or_default();
    diags.push(
        Diagnostic::new(
            &codes::ADMIN_EXPOSED,
            span,
            format!("the admin interface on `{addr}` is open to whoever reaches that address"),
        )
        .label("asks nobody for a password")
        .help(format!("listen on `127.0.0.1:{}`", addr.port())),
    );
}

/// Reports keys in URLs.
pub fn key_in_query(facts: &Facts<'_>, diags: &mut Diags) {
    for plugin in facts.plugins("key-auth").filter(|p| p.config.bool_opt("key_in_query") != Some(false)) {
        diags.push(
            Diagnostic::new(
                &codes::KEY_IN_QUERY,
                plugin.name.span,
                "`key-auth` takes keys from the query, where logs keep them",
            )
            .label("`key_in_query` is true")
            .help("set `key_in_query: false`"),
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::diag::codes;
    use crate::lint::tests::check;

    #[test]
    fn the_admin_interface_is_for_this_host() {
        let with = |addr: &str| {
            format!(
                "_format_version: '3.0'\ngateway:\n  admin: '{addr}'\nservices: [{{url: 'http://a.test'}}]\n"
            )
        };
        check(
            &codes::ADMIN_EXPOSED,
            &with("0.0.0.0:8001"),
            &["3: the admin interface on `0.0.0.0:8001` is open"],
        );
        check(&codes::ADMIN_EXPOSED, &with("127.0.0.1:8001"), &[]);
    }

    #[test]
    fn keys_belong_into_headers() {
        let with = |config: &str| {
            format!("_format_version: '3.0'\nplugins:\n- {{name: key-auth, config: {config}}}\n")
        };
        check(&codes::KEY_IN_QUERY, &with("{}"), &["3: `key-auth` takes keys from the query"]);
        check(&codes::KEY_IN_QUERY, &with("{key_in_query: false}"), &[]);
    }
}
