//! Credentials by what a client shows.

use crate::check::Checked;
use crate::diag::{Diagnostic, Diags, codes};
use crate::model::{CredentialKind, Model};
use crate::policy::{basic_auth, key_auth};
use crate::snapshot::{ConsumerId, Credential, Credentials};
use crate::token::verify::Key;

/// Indexes every credential of a model.
pub fn build(model: &Checked<Model>, diags: &mut Diags) -> Credentials {
    let mut all = Credentials::default();
    for (c, &owner) in model.credentials.iter().zip(&model.links().credential_consumer) {
        let consumer = ConsumerId(owner as u32);
        let text = |name: &str| c.record.str(name).unwrap_or_default().to_owned();
        let id = c.id.clone();
        match c.kind {
            CredentialKind::KeyAuth => {
                let hash = match c.record.str("key_hash") {
                    Some(written) => key_auth::read(written),
                    None => Some(key_auth::fingerprint(&text("key"))),
                };
                let Some(hash) = hash else {
                    let message = "`key_hash` is `sha256:` and 64 hexadecimal digits";
                    let span = c.record.span_of("key_hash");
                    let help = "make it from the key with `gw token hash-key`";
                    diags.push(Diagnostic::new(&codes::INVALID_VALUE, span, message).help(help));
                    continue;
                };
                let credential = Credential { id, consumer, data: () };
                if all.key_auth.insert(hash, credential).is_some() && c.record.given("key_hash") {
                    let message = "`key_hash` is the hash of a key that another credential has";
                    let span = c.record.span_of("key_hash");
                    diags.push(Diagnostic::new(&codes::DUPLICATE_ENTITY, span, message));
                }
            }
            CredentialKind::Jwt => match Key::from_credential(&c.record) {
                Ok(data) => {
                    all.jwt.insert(text("key"), Credential { id, consumer, data });
                }
                Err(why) => diags.push(Diagnostic::new(&codes::INVALID_VALUE, c.span, why)),
            },
            CredentialKind::BasicAuth => {
                let password = text("password");
                let data = match c.hashed {
                    true => basic_auth::prehashed(&password),
                    false => Some(basic_auth::secret(&password, &model.consumers[owner].id)),
                };
                let Some(data) = data else {
                    let message = "with `_transform: false` a password is its SHA-1 in hexadecimal";
                    diags.push(Diagnostic::new(&codes::INVALID_VALUE, c.record.span_of("password"), message));
                    continue;
                };
                all.basic_auth.insert(text("username"), Credential { id, consumer, data });
            }
            CredentialKind::HmacAuth => {
                let data = text("secret").into_bytes();
                all.hmac_auth.insert(text("username"), Credential { id, consumer, data });
            }
            CredentialKind::Acl | CredentialKind::OAuth2 => {}
        }
    }
    all
}

/// The groups that each consumer's acls name, in order.
pub fn acl_groups(model: &Checked<Model>) -> Vec<Vec<String>> {
    let mut groups = vec![Vec::new(); model.consumers.len()];
    for (c, &owner) in model.credentials.iter().zip(&model.links().credential_consumer) {
        if c.kind == CredentialKind::Acl {
            groups[owner].extend(c.record.str("group").map(str::to_owned));
        }
    }
    groups
}
