//! What every authenticator does with what it found: says who it is, and tells the upstream.

use std::rc::Rc;
use std::sync::{LazyLock, OnceLock};

use serde_json::Value;

use super::{Flow, Reply};
use crate::exchange::{Exchange, Identity};
use crate::message::FieldName;
use crate::model::schema::{Field, Record, STR, Val};
use crate::snapshot::{ConsumerId, Credential, Snapshot};
use crate::source::Spanned;
use crate::token::claims;

/// Request headers in which upstreams are told the caller's identity; no client may send them.
pub const IDENTITY_HEADERS: &[&str] = &[
    "X-Consumer-ID",
    "X-Consumer-Username",
    "X-Consumer-Custom-ID",
    "X-Credential-Identifier",
    "X-Anonymous-Consumer",
];

/// [`IDENTITY_HEADERS`] as field names, in that order.
static NAMES: LazyLock<[FieldName; 5]> =
    LazyLock::new(|| std::array::from_fn(|i| FieldName::new(IDENTITY_HEADERS[i])));

/// The setting `anonymous`, which all authenticators share.
pub const ANONYMOUS: Field = Field::new(
    "anonymous",
    STR,
    "Username or id of the consumer that requests without valid credentials belong to. With it on every authenticator \
     of a route any one of them is enough; without it each must succeed.",
);

/// Whether an earlier authenticator has accepted a credential. One with `anonymous` then has nothing to do: of
/// several such authenticators any one is enough.
pub fn is_authenticated(x: &Exchange) -> bool {
    x.identity.as_ref().is_some_and(|i| !i.anonymous)
}

/// The identity that a credential stands for. `identifier` is what `X-Credential-Identifier` will say.
pub fn of_credential<T>(
    credential: &Credential<T>,
    identifier: impl Into<String>,
    claims: Option<Rc<serde_json::Value>>,
) -> Identity {
    Identity {
        consumer: Some(credential.consumer),
        credential: Some(identifier.into()),
        credential_id: Some(credential.id.clone()),
        claims,
        ..Identity::default()
    }
}

/// Makes `identity` the caller's and writes the identity headers. Replaces what an earlier authenticator said.
pub fn set_identity(x: &mut Exchange, identity: Identity) {
    let [id, username, custom_id, credential, anonymous] = &*NAMES;
    let fields = &mut x.request.fields;
    let mut put = |name: &FieldName, value: Option<&str>| match value {
        Some(value) => fields.set(name, value),
        None => {
            fields.remove(name);
        }
    };
    let consumer = identity.consumer.and_then(|c| x.snapshot.consumers.get(c.0 as usize));
    put(id, consumer.map(|c| c.id.as_str()));
    put(username, consumer.and_then(|c| c.username.as_deref()));
    put(custom_id, consumer.and_then(|c| c.custom_id.as_deref()));
    put(credential, identity.credential.as_deref());
    put(anonymous, identity.anonymous.then_some("true"));
    x.identity = Some(identity);
}

/// The setting `anonymous`: who a request is when nobody proved an identity, by consumer id or username.
#[derive(Debug, Default)]
pub struct Anonymous {
    name: String,
    /// The consumer in the first snapshot that asked, with that snapshot's generation: looking one up by name is slow.
    known: OnceLock<(u64, Option<ConsumerId>)>,
}

impl Anonymous {
    /// The setting's value.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), known: OnceLock::new() }
    }

    /// The setting of a config; none where it is absent or empty.
    pub fn of(config: &Record) -> Option<Self> {
        config.str(ANONYMOUS.name).filter(|name| !name.is_empty()).map(Self::new)
    }

    /// Lets the request go on as the anonymous consumer.
    pub fn apply(&self, x: &mut Exchange) -> Flow {
        let Some(consumer) = self.consumer(&x.snapshot) else {
            let message = format!("anonymous consumer {} is configured but doesn't exist", self.name);
            return Flow::Reply(Reply::error(&x.request, x.request_id, 500, &message));
        };
        set_identity(x, Identity { consumer: Some(consumer), anonymous: true, ..Identity::default() });
        Flow::Next
    }

    fn consumer(&self, snapshot: &Snapshot) -> Option<ConsumerId> {
        let look_up = || snapshot.consumer_by_name(&self.name);
        let (generation, consumer) = *self.known.get_or_init(|| (snapshot.generation, look_up()));
        if generation == snapshot.generation { consumer } else { look_up() }
    }
}

/// A setting that hands claims on: claim to request header.
pub fn claim_headers(config: &Record, field: &str) -> Vec<(String, FieldName)> {
    let entry = |(claim, header): &(Spanned<String>, Spanned<Val>)| match &header.value {
        Val::Str(name) => Some((claim.value.clone(), FieldName::new(name))),
        _ => None,
    };
    config.map(field).iter().filter_map(entry).collect()
}

/// Writes claims into request headers. What has no claim is removed, as only the gateway may say it.
pub fn set_claim_headers(x: &mut Exchange, headers: &[(String, FieldName)], claims: Option<&Value>) {
    for (claim, header) in headers {
        let claim = claims.and_then(|c| claims::find(c, claim));
        match claim.and_then(claims::as_field_value) {
            Some(value) => x.request.fields.set(header, value.as_bytes()),
            None => {
                x.request.fields.remove(header);
            }
        }
    }
}

/// What `WWW-Authenticate` says: the scheme and, where the config names one, the realm.
pub fn challenge(scheme: &str, realm: Option<&str>) -> String {
    match realm {
        Some(realm) => format!("{scheme} realm=\"{}\"", realm.replace('\\', "\\\\").replace('"', "\\\"")),
        None => scheme.to_owned(),
    }
}

/// A challenge with more parameters, written `name="value"` with commas between them.
pub fn with_params(challenge: &str, params: &str) -> String {
    match (challenge.contains(' '), params) {
        (_, "") => challenge.to_owned(),
        (true, params) => format!("{challenge}, {params}"),
        (false, params) => format!("{challenge} {params}"),
    }
}

/// The end of an attempt that failed: `refusal`, or on as the anonymous consumer where there is one.
pub fn reject(anonymous: Option<&Anonymous>, x: &mut Exchange, refusal: Reply) -> Flow {
    match anonymous {
        Some(anonymous) => anonymous.apply(x),
        None => Flow::Reply(refusal),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::testing::{self, ALICE, ANON};

    fn field(x: &Exchange, name: &str) -> Option<String> {
        x.request.fields.text(&FieldName::new(name)).map(str::to_owned)
    }

    fn identity(consumer: u32, credential: Option<&str>) -> Identity {
        let credential = credential.map(str::to_owned);
        Identity { consumer: Some(ConsumerId(consumer)), credential, ..Identity::default() }
    }

    #[test]
    fn identity_replaces_what_a_client_or_an_earlier_authenticator_said() {
        let mut x = testing::exchange("GET /\nX-Consumer-Custom-ID: forged\nX-Anonymous-Consumer: true");
        set_identity(&mut x, identity(1, Some("key-1")));
        assert_eq!(field(&x, "X-Consumer-Username").as_deref(), Some("bob"));
        assert_eq!(field(&x, "X-Consumer-Custom-ID"), None, "bob has none");
        assert_eq!(field(&x, "X-Anonymous-Consumer"), None);
        assert_eq!(field(&x, "X-Credential-Identifier").as_deref(), Some("key-1"));

        set_identity(&mut x, identity(0, None));
        assert_eq!(field(&x, "X-Consumer-ID").as_deref(), Some(ALICE));
        assert_eq!(field(&x, "X-Credential-Identifier"), None);
    }

    #[test]
    fn failures_are_refused_or_become_anonymous() {
        for (config, want) in [
            (json!({}), 401),
            (json!({"anonymous": ""}), 401),
            (json!({"anonymous": "anon"}), 200),
            (json!({"anonymous": ANON}), 200),
            (json!({"anonymous": "ghost"}), 500),
        ] {
            let anonymous = Anonymous::of(&testing::record(&[ANONYMOUS], &config));
            let mut x = testing::exchange("GET /");
            let status = match reject(anonymous.as_ref(), &mut x, Reply::exit(401, "no")) {
                Flow::Next => 200,
                Flow::Reply(reply) => reply.status,
                Flow::Await(_) => 0,
            };
            assert_eq!(status, want, "{config}");
            if want == 200 {
                assert_eq!(field(&x, "X-Consumer-ID").as_deref(), Some(ANON));
                assert_eq!(field(&x, "X-Anonymous-Consumer").as_deref(), Some("true"));
                assert!(!is_authenticated(&x), "anonymous is nobody");
            }
        }
    }
}
