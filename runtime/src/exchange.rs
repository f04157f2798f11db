//! One request and its response, as the chain of policies sees them.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Now;
use crate::message::{RequestHead, ResponseHead};
use crate::snapshot::{ConsumerId, RouteId, ServiceId, Snapshot};

/// A request's hold on the snapshot that it runs by. Cheap to clone within a worker, never shared between threads.
#[derive(Clone)]
#[expect(
    clippy::redundant_allocation,
    reason = "the outer count is the worker's own, so that requests touch no shared one"
)]
pub struct SnapshotRef(Rc<Arc<Snapshot>>);

impl SnapshotRef {
    /// Wraps a published snapshot for one worker.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self(Rc::new(snapshot))
    }
}

impl std::ops::Deref for SnapshotRef {
    type Target = Snapshot;
    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// Who is at the other end of the client connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// The TCP peer (or what a PROXY header said).
    pub peer: SocketAddr,
    /// `peer`'s address as text, made once a connection.
    pub peer_text: Rc<str>,
    /// The client behind trusted proxies; equal to the peer's address where there are none.
    pub ip: IpAddr,
    /// Whether the peer itself is a trusted proxy.
    pub trusted: bool,
    pub tls: bool,
    /// The TLS server name, lower-case.
    pub sni: Option<Rc<str>>,
    /// The verified certificate that the client showed.
    pub certificate: Option<Rc<crate::tls::peer::PeerCertificate>>,
    /// The port that accepted the connection.
    pub local: SocketAddr,
    /// Number of the connection within the process, and of the request within the connection.
    pub connection: u64,
    pub connection_requests: u64,
}

/// Whom the request was found to come from.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// None for a credential that belongs to no consumer (an issuer's token).
    pub consumer: Option<ConsumerId>,
    /// What `X-Credential-Identifier` says.
    pub credential: Option<String>,
    /// Id of the credential, for limits by credential.
    pub credential_id: Option<String>,
    pub anonymous: bool,
    /// Groups that an authenticator vouches for, beside the consumer's own.
    pub groups: Vec<String>,
    /// The verified token's claims.
    pub claims: Option<Rc<serde_json::Value>>,
}

/// What will be asked of the upstream; filled from the route, changed by policies.
#[derive(Clone, Debug, Default)]
pub struct UpstreamRequest {
    /// Path to send, escaped. The query stays in the request's head.
    pub path: String,
    /// `Host` to send, when it is neither the client's nor the target's.
    pub host: Option<String>,
    /// The address last tried.
    pub addr: Option<SocketAddr>,
    /// Connections tried.
    pub tries: u32,
    /// When the request went to the upstream, and when its answer began.
    pub began: Option<std::time::Instant>,
    pub first_byte: Option<std::time::Instant>,
    /// The status that the upstream gave.
    pub status: Option<u16>,
}

/// Everything about a request in flight. Created once per connection and reused.
pub struct Exchange {
    pub snapshot: SnapshotRef,
    pub request: RequestHead,
    pub response: ResponseHead,
    pub client: Client,
    pub now: Now,
    /// When the request was over; `now`'s until then.
    pub ended: std::time::Instant,
    pub route: Option<RouteId>,
    pub service: Option<ServiceId>,
    pub identity: Option<Identity>,
    pub upstream: UpstreamRequest,
    /// Groups of the route's regex path: index or name, and text.
    pub captures: Vec<(String, String)>,
    /// The part of the path that the route's prefix or regex matched.
    pub matched_len: usize,
    /// The whole request body, where a policy asked for it ([`crate::policy::Effect::ReadBody`]) or replaced it.
    pub body: Option<Bytes>,
    /// `body` is only the beginning: the rest comes from the client.
    pub body_goes_on: bool,
    /// The correlation id, where a policy made or kept one.
    pub correlation_id: Option<String>,
    /// What limits did to the request, where that is worth telling.
    pub limit_notes: Vec<crate::policy::limit_notes::Note>,
    /// Whether the request is given up when its client goes away while the upstream is waited for: others wait for what it
    /// holds.
    pub gives_up: bool,
    /// Whether the response came from the gateway itself.
    pub local_response: bool,
    /// Fields to add to the response, collected while the request is processed (limits, correlation id).
    pub response_fields: crate::message::Fields,
    /// 32 hex digits.
    pub request_id: RequestId,
    /// What policies keep between their phases.
    pub slots: Vec<Box<dyn std::any::Any>>,
}

/// Identifies a request in logs, errors and `X-Kong-Request-Id`: 32 hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestId(pub u128);

impl RequestId {
    /// The 32 digits.
    pub fn hex(self) -> [u8; 32] {
        let mut digits = [0_u8; 32];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0.to_be_bytes()) {
            pair.copy_from_slice(&PAIRS[byte as usize]);
        }
        digits
    }
}

/// The two hex digits of every byte.
static PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut i = 0;
    while i < 256 {
        pairs[i] = [digits[i >> 4], digits[i & 15]];
        i += 1;
    }
    pairs
};

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Client {
    /// A client at this address, without TLS or a proxy in front, on its first connection to `local`.
    pub fn plain(peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            peer,
            peer_text: Rc::from(peer.ip().to_string()),
            ip: peer.ip(),
            trusted: false,
            tls: false,
            sni: None,
            certificate: None,
            local,
            connection: 1,
            connection_requests: 1,
        }
    }
}

impl Exchange {
    /// An empty exchange for a request of `client`.
    pub fn new(snapshot: SnapshotRef, client: Client, request_id: RequestId) -> Self {
        let now = Now::read();
        Self {
            snapshot,
            request: RequestHead::default(),
            response: ResponseHead::default(),
            client,
            now,
            ended: now.instant,
            route: None,
            service: None,
            identity: None,
            upstream: UpstreamRequest::default(),
            captures: Vec::new(),
            matched_len: 0,
            body: None,
            body_goes_on: false,
            correlation_id: None,
            limit_notes: Vec::new(),
            gives_up: false,
            local_response: false,
            response_fields: crate::message::Fields::default(),
            request_id,
            slots: Vec::new(),
        }
    }

    /// Keeps something for a policy's later phases; one value per type.
    pub fn keep<T: 'static>(&mut self, value: T) {
        self.slots.retain(|v| !v.is::<T>());
        self.slots.push(Box::new(value));
    }

    /// Lets go of the config but for what the request's log line says of it: for exchanges that may last for days.
    pub fn let_go_of_config(&mut self) {
        let names =
            Snapshot::names_only(self.route.map(|r| &self.snapshot.routes[r.0 as usize]), self.consumer());
        self.route = self.route.map(|_| RouteId(0));
        self.service = None;
        if let Some(identity) = &mut self.identity {
            identity.consumer = identity.consumer.map(|_| ConsumerId(0));
        }
        self.snapshot = SnapshotRef::new(Arc::new(names));
    }

    /// What [`Exchange::keep`] kept.
    pub fn kept<T: 'static>(&self) -> Option<&T> {
        self.slots.iter().find_map(|v| v.downcast_ref())
    }

    /// Takes back what [`Exchange::keep`] kept.
    pub fn take<T: 'static>(&mut self) -> Option<T> {
        let at = self.slots.iter().position(|v| v.is::<T>())?;
        self.slots.swap_remove(at).downcast().ok().map(|v| *v)
    }

    /// The consumer, once an authenticator has named one.
    pub fn consumer(&self) -> Option<&crate::snapshot::Consumer> {
        let id = self.identity.as_ref()?.consumer?;
        Some(&self.snapshot.consumers[id.0 as usize])
    }

    /// `https` or `http` as the client used it, a trusted proxy's word included.
    pub fn forwarded_scheme(&self) -> &str {
        use crate::message::names::X_FORWARDED_PROTO;
        match self.request.fields.text(&X_FORWARDED_PROTO) {
            Some(proto) if self.client.trusted => proto,
            _ if self.client.tls => "https",
            _ => "http",
        }
    }
}
