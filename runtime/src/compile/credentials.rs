//! Credentials by what a client shows.

use crate::check::Checked;
use crate::clock;
use crate::diag::{Diagnostic, Diags, codes};
use crate::model::{CredentialKind, Model};
use crate::policy::{basic_auth, key_auth};
use crate::snapshot::{ConsumerId, Credential, Credentials, KeyEnd, OAuth2Token, ServiceId};
use crate::token::verify::Key;

/// Indexes every credential of a model.
pub fn build(model: &Checked<Model>, diags: &mut Diags) -> Credentials {
    let mut all = Credentials::default();
    let now = clock::unix_s();
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
                let credential = Credential { id, consumer, data: end_of_key(c.record.int("ttl"), now) };
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
    for token in 0..model.oauth2_tokens.len() {
        oauth2_token(model, token, now, &mut all, diags);
    }
    all
}

/// The second in which a key is gone that is loaded now; 0 is no bound, as in Kong.
fn end_of_key(ttl: Option<i64>, now: u64) -> Option<KeyEnd> {
    let ttl = ttl.and_then(|ttl| u64::try_from(ttl).ok()).filter(|ttl| *ttl > 0)?;
    KeyEnd::new(u32::try_from(now + ttl).unwrap_or(u32::MAX))
}

fn oauth2_token(model: &Checked<Model>, index: usize, now: u64, all: &mut Credentials, diags: &mut Diags) {
    let (token, links) = (&model.oauth2_tokens[index], model.links());
    let record = &token.record;
    let text = |name: &str| record.str(name).filter(|t| !t.is_empty()).map(str::to_owned);
    let written = record.str("access_token_hash");
    let hash = match written {
        Some(written) => key_auth::read(written),
        None => record.str("access_token").map(key_auth::fingerprint),
    };
    let Some(hash) = hash else {
        let message = "`access_token_hash` is `sha256:` and 64 hexadecimal digits";
        let span = record.span_of("access_token_hash");
        let help = "make it from the token with `gw token hash-key`";
        diags.push(Diagnostic::new(&codes::INVALID_VALUE, span, message).help(help));
        return;
    };
    let seconds = |name: &str| record.int(name).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    let created = record.num("created_at").map_or(now, |s| s as u64);
    let by_age = seconds("expires_in").map(|lasts| created.saturating_add(lasts));
    let by_ttl = seconds("ttl").map(|lasts| now + lasts);
    let credential = links.token_credential[index];
    let data = OAuth2Token {
        client_id: model.credentials[credential].record.str("client_id").unwrap_or_default().to_owned(),
        service: links.token_service[index].map(|s| ServiceId(s as u32)),
        good_until: by_age.into_iter().chain(by_ttl).min(),
        scope: text("scope"),
        user: text("authenticated_userid"),
    };
    let consumer = ConsumerId(links.credential_consumer[credential] as u32);
    let credential = Credential { id: token.id.clone(), consumer, data };
    if all.oauth2.insert(hash, credential).is_some() && written.is_some() {
        let message = "`access_token_hash` is the hash of a token that another entry has";
        let span = record.span_of("access_token_hash");
        diags.push(Diagnostic::new(&codes::DUPLICATE_ENTITY, span, message));
    }
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
