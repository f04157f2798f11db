//! What every authenticator does with what it found: says who it is, and tells the upstream.

use std::rc::Rc;
use std::sync::{LazyLock, OnceLock};

use super::{Flow, Reply};
use crate::exchange::{Exchange, Identity};
use crate::message::FieldName;
use crate::snapshot::{ConsumerId, Credential, Snapshot};

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
