//! `mtls-auth`: the client's TLS certificate says who calls.

use super::identity::{self, ANONYMOUS, Anonymous, IDENTITY_HEADERS};
use super::{Cx, Descriptor, Flow, Policy, Reply};
use crate::diag::codes;
use crate::exchange::{Exchange, Identity};
use crate::model::schema::{Field, Kind, Record, TEXT, Val};
use crate::snapshot::{ConsumerId, Snapshot};
use crate::tls::peer::PeerCertificate;

static PLUGIN: Descriptor = Descriptor {
    name: "mtls-auth",
    summary: "authenticate consumers by their TLS certificates",
    doc: "\
## What it does
Finds the consumer by the certificate that the client showed in the TLS handshake, and that one of the authorities of
`gateway.tls.client_ca` has signed.

## Why
A certificate cannot be copied out of a request or a log, and machines renew theirs without anybody's help.

## Example
```yaml
gateway:
  tls: { client_auth: optional, client_ca: certs/ca.pem }
consumers:
  - username: billing
plugins:
  - name: mtls-auth
    config:
      consumers: { \"spiffe://example.test/billing\": billing }
```
`gw certs client --id spiffe://example.test/billing` makes such a certificate.

## Behaviour
The listener verifies the certificate, and refuses the handshake of a client whose certificate is not good; with
`client_auth: optional` a client may have none. Then names are tried: `sha256:` and the certificate's fingerprint, URIs,
mail addresses, hosts, the common name. The first that `consumers` maps is taken; without one the first that is the
username (or what `consumer_by` says) of a consumer. Names compare exactly.

Without a certificate the answer is 401 `No required TLS certificate was sent`, with one of nobody 401 `No consumer for
the TLS certificate`. With `skip_consumer_lookup` every certificate is let in, as nobody's consumer.
`X-Credential-Identifier` is the name that decided.

Whether or not this policy runs, upstreams are told the certificate in `X-Forwarded-Client-Cert`, as Envoy writes it; a
client's own field of that name is removed from every request.
",
    fields: &[
        Field::new(
            "consumers",
            Kind::Map(&TEXT),
            "Names in certificates, or `sha256:` and a fingerprint, and the consumer (username or id) that each is.",
        ),
        Field::new(
            "consumer_by",
            Kind::Set(&Kind::Enum(&["username", "custom_id"])),
            "What of a consumer a certificate's name may be; nothing where the list is empty.",
        )
        .default("[\"username\"]"),
        Field::new(
            "skip_consumer_lookup",
            Kind::Bool,
            "Whether every verified certificate is let in, without a consumer.",
        )
        .default("false"),
        ANONYMOUS,
    ],
    consumer_scope: false,
    extension: true,
    identity_headers: IDENTITY_HEADERS,
};

/// See the module.
pub struct MtlsAuth {
    /// Name in a certificate, and consumer.
    consumers: Vec<(String, String)>,
    by_username: bool,
    by_custom_id: bool,
    skip_lookup: bool,
    anonymous: Option<Anonymous>,
}

impl Policy for MtlsAuth {
    const PLUGIN: &'static Descriptor = &PLUGIN;

    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
        let mut consumers = Vec::new();
        for (name, consumer) in config.map("consumers") {
            let Val::Str(who) = &consumer.value else { continue };
            let known = |c: &crate::model::Consumer| {
                c.id == *who || c.username.as_ref().is_some_and(|u| u.value == *who)
            };
            if !cx.model.consumers.iter().any(known) {
                let message = format!("there is no consumer `{who}`");
                cx.report(&codes::DANGLING_REFERENCE, consumer.span, message);
                return None;
            }
            let name = match name.value.strip_prefix("sha256:") {
                Some(hex) => format!("sha256:{}", hex.replace(':', "").to_ascii_lowercase()),
                None => name.value.clone(),
            };
            consumers.push((name, who.clone()));
        }
        let by = config.strings("consumer_by");
        let has = |word: &str| by.iter().any(|b| b.value == word);
        Some(Self {
            consumers,
            by_username: has("username"),
            by_custom_id: has("custom_id"),
            skip_lookup: config.bool("skip_consumer_lookup"),
            anonymous: Anonymous::of(config),
        })
    }

    fn request(&self, x: &mut Exchange) -> Flow {
        if self.anonymous.is_some() && identity::is_authenticated(x) {
            return Flow::Next;
        }
        let Some(peer) = x.client.certificate.clone() else {
            return self.refuse(x, "No required TLS certificate was sent");
        };
        let found = self.find(&x.snapshot, &peer).or_else(|| {
            let name = peer.names().next().unwrap_or(&peer.fingerprint);
            self.skip_lookup.then(|| (None, name.to_owned()))
        });
        let Some((consumer, name)) = found else {
            return self.refuse(x, "No consumer for the TLS certificate");
        };
        let credential_id = Some(format!("sha256:{}", peer.fingerprint));
        identity::set_identity(
            x,
            Identity { consumer, credential: Some(name), credential_id, ..Identity::default() },
        );
        Flow::Next
    }
}

impl MtlsAuth {
    /// The consumer, and the name in the certificate that says so.
    fn find(&self, snapshot: &Snapshot, peer: &PeerCertificate) -> Option<(Option<ConsumerId>, String)> {
        let fingerprint = format!("sha256:{}", peer.fingerprint);
        let names = || std::iter::once(fingerprint.as_str()).chain(peer.names());
        let mapped = names().find_map(|name| {
            let (_, who) = self.consumers.iter().find(|(known, _)| known == name)?;
            Some((Some(snapshot.consumer_by_name(who)?), name.to_owned()))
        });
        mapped.or_else(|| {
            peer.names().find_map(|name| {
                let by_username = || snapshot.consumer_by_username(name).filter(|_| self.by_username);
                let by_custom_id = || snapshot.consumer_by_custom_id(name).filter(|_| self.by_custom_id);
                by_username().or_else(by_custom_id).map(|consumer| (Some(consumer), name.to_owned()))
            })
        })
    }

    fn refuse(&self, x: &mut Exchange, message: &str) -> Flow {
        let refusal = Reply::error(&x.request, x.request_id, 401, message);
        identity::reject(self.anonymous.as_ref(), x, refusal)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::{Value, json};

    use super::*;
    use crate::message::FieldName;
    use crate::policy::testing::{self, policy, refuses};

    /// What comes of a request with a certificate of these names: consumer and credential, or status and message.
    fn check(config: Value, uris: &[&str], common_name: Option<&str>, want: &str) {
        let policy = policy::<MtlsAuth>(&config);
        let mut x = testing::exchange("GET /");
        x.client.certificate = Some(Rc::new(PeerCertificate {
            fingerprint: "ab".repeat(32),
            uris: uris.iter().map(|&u| u.to_owned()).collect(),
            common_name: common_name.map(str::to_owned),
            ..PeerCertificate::default()
        }));
        let got = match policy.request(&mut x) {
            Flow::Next => {
                let told = |n: &str| x.request.fields.text(&FieldName::new(n)).unwrap_or("-").to_owned();
                format!("{} {}", told("X-Consumer-Username"), told("X-Credential-Identifier"))
            }
            Flow::Reply(reply) => format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body)),
            Flow::Await(_) => "waits".into(),
        };
        assert!(
            got.starts_with(want) || (got.starts_with("401") && got.contains(want)),
            "{config} {uris:?}: {got}"
        );
    }

    #[test]
    fn names_lead_to_consumers() {
        let mapped = json!({"consumers": {"spiffe://t/b": "bob"}});
        let print = json!({"consumers": {format!("sha256:{}", "AB".repeat(32)): "bob"}, "consumer_by": []});
        check(json!({}), &[], Some("alice"), "alice alice");
        check(json!({}), &[], Some("Alice"), "No consumer for the TLS certificate");
        check(json!({}), &["spiffe://t/b"], None, "No consumer for the TLS certificate");
        check(mapped.clone(), &["spiffe://t/b"], Some("alice"), "bob spiffe://t/b");
        check(mapped, &["spiffe://t/bb"], None, "No consumer for the TLS certificate");
        check(print.clone(), &[], Some("alice"), &format!("bob sha256:{}", "ab".repeat(32)));
        check(json!({"consumer_by": []}), &[], Some("alice"), "No consumer for the TLS certificate");
        check(json!({"consumer_by": ["custom_id"]}), &[], Some("cust-1"), "alice cust-1");
        check(
            json!({"consumer_by": ["custom_id"]}),
            &[],
            Some("alice"),
            "No consumer for the TLS certificate",
        );
        check(json!({"skip_consumer_lookup": true}), &["u:x"], None, "- u:x");
        check(json!({"anonymous": "anon"}), &["u:x"], None, "anon -");
        testing::check::<MtlsAuth>(json!({}), "GET /", "401\nbody No required TLS certificate was sent");
        testing::check::<MtlsAuth>(
            json!({"anonymous": "anon"}),
            "GET /",
            "next\n> X-Consumer-Username: anon",
        );
        refuses::<MtlsAuth>(json!({"consumers": {"u:x": "ghost"}}), "there is no consumer `ghost`");
    }
}
