//! The entities of a config: one file each, with the table of its fields, what its fields must be to each other, and
//! how it becomes part of the model.

pub mod certificate;
pub mod consumer;
pub mod consumer_group;
pub mod credential;
pub mod oauth2_token;
pub mod other;
pub mod plugin;
pub mod route;
pub mod service;
pub mod upstream;

use super::Model;
use super::schema::Field;

/// Every entity: its top-level list, its fields, and the lists that may be nested in it.
pub static TABLES: &[(&str, &[Field], &[&str])] = &[
    ("services", service::FIELDS, service::NESTED),
    ("routes", route::FIELDS, route::NESTED),
    ("consumers", consumer::FIELDS, consumer::NESTED),
    ("consumer_groups", consumer_group::FIELDS, consumer_group::NESTED),
    ("plugins", plugin::FIELDS, plugin::NESTED),
    ("upstreams", upstream::FIELDS, upstream::NESTED),
    ("targets", upstream::TARGET_FIELDS, &[]),
    ("certificates", certificate::FIELDS, certificate::NESTED),
    ("snis", certificate::SNI_FIELDS, &[]),
    ("ca_certificates", certificate::CA_FIELDS, &[]),
    ("keyauth_credentials", credential::KEY_AUTH, &[]),
    ("jwt_secrets", credential::JWT, &[]),
    ("basicauth_credentials", credential::BASIC_AUTH, &[]),
    ("hmacauth_credentials", credential::HMAC_AUTH, &[]),
    ("acls", credential::ACL, &[]),
    ("oauth2_credentials", credential::OAUTH2, credential::NESTED_IN_OAUTH2),
    ("oauth2_tokens", oauth2_token::FIELDS, &[]),
    ("vaults", other::VAULT, &[]),
    ("key_sets", other::KEY_SET, &["keys"]),
    ("keys", other::KEY, &[]),
    ("parameters", other::PARAMETER, &[]),
];

/// The id of an entity that others are nested in; `field` is what they call it.
pub(super) fn id_of(model: &Model, field: &str, index: usize) -> String {
    let id = match field {
        "service" => model.services.get(index).map(|e| &e.id),
        "route" => model.routes.get(index).map(|e| &e.id),
        "consumer" => model.consumers.get(index).map(|e| &e.id),
        "consumer_group" => model.consumer_groups.get(index).map(|e| &e.id),
        "upstream" => model.upstreams.get(index).map(|e| &e.id),
        "certificate" => model.certificates.get(index).map(|e| &e.id),
        "oauth2_credential" => model.credentials.get(index).map(|e| &e.id),
        _ => None,
    };
    id.cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::gateway_read;
    use crate::model::schema::Kind;
    use crate::policy::registry::REGISTRY;

    #[track_caller]
    fn documented(table: &str, fields: &[Field]) {
        for field in fields {
            assert!(field.doc.ends_with('.'), "{table}.{} has no doc that is a sentence", field.name);
            if let Some(json) = field.default {
                assert!(
                    serde_json::from_str::<serde_json::Value>(json).is_ok(),
                    "{table}.{}: default {json}",
                    field.name
                );
            }
            match &field.kind {
                Kind::Record(inner) | Kind::List(Kind::Record(inner)) | Kind::Map(Kind::Record(inner)) => {
                    documented(&format!("{table}.{}", field.name), inner);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn every_field_is_documented_and_every_default_is_json() {
        for (name, fields, _) in TABLES {
            documented(name, fields);
        }
        documented("gateway", gateway_read::FIELDS);
        for policy in REGISTRY {
            documented(policy.name, policy.fields);
        }
    }
}
