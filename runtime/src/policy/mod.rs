//! Policies: what Kong calls plugins. One file each: doc, config table, compile, behaviour, tests.
//!
//! **Policies never await.** A policy is a plain struct made from its config. It looks at an [`Exchange`], changes it,
//! and says what is next ([`Flow`]). What needs waiting is an [`Effect`], performed by one driver, which then calls
//! [`Policy::resume`]. So a policy is tested without a runtime or a socket.

pub mod acl;
pub mod adaptive_concurrency;
pub mod aggregate;
pub mod authorize;
pub mod basic_auth;
pub mod bot_detection;
pub mod call;
pub mod compression;
pub mod concurrency_limiting;
pub mod config;
pub mod correlation_id;
pub mod cors;
pub mod deprecation;
pub mod filter;
pub mod form;
pub mod forward_auth;
pub mod gateway_keys;
pub mod graphql_limits;
pub mod grpc;
pub mod grpc_gateway;
pub mod grpc_web;
pub mod hmac_auth;
pub mod identity;
pub mod ip_restriction;
pub mod json_path;
pub mod json_threat_protection;
pub mod json_xml;
pub mod jwt;
pub mod key_auth;
pub mod ldap_auth;
pub mod limit_by;
pub mod limit_notes;
pub mod limiting;
pub mod media;
pub mod mirror;
pub mod mtls_auth;
pub mod oas_validation;
pub mod oauth2;
pub mod oauth2_introspection;
pub mod openid_connect;
pub mod order;
pub mod problem;
pub mod proxy_cache;
pub mod rate_limiting;
pub mod redirect;
pub mod redis_settings;
pub mod redis_topology;
pub mod registry;
pub mod reply;
pub mod representation;
pub mod request_decompression;
pub mod request_size_limiting;
pub mod request_termination;
pub mod request_transformer;
pub mod request_validator;
pub mod response_ratelimiting;
pub mod response_transformer;
pub mod set_cookie;
pub mod standard_webhooks;
#[cfg(test)]
pub mod testing;
pub mod traffic_split;
pub mod transform;
pub mod turn;
pub mod unsupported;
pub mod upstream_identity;
pub mod validation;
pub mod verdicts;
pub mod when;

use std::sync::Arc;

pub use filter::BodyFilter;
pub use registry::Step;
pub use reply::Reply;

use crate::diag::{Code, Diagnostic, Diags};
use crate::exchange::Exchange;
use crate::limit;
use crate::model::schema::{Field, Record};
use crate::model::{Model, Plugin};
use crate::snapshot::shared::Shared;
use crate::source::Span;

/// What a policy is, for the compiler, the schema and the documentation.
#[derive(Debug)]
pub struct Descriptor {
    /// The plugin's name in a config.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Markdown under the headings What it does, Why, Example, Behaviour (statuses and headers).
    pub doc: &'static str,
    /// The shape of `config`.
    pub fields: &'static [Field],
    /// Whether the plugin may be scoped to a consumer or group.
    pub consumer_scope: bool,
    /// Kong does not have it.
    pub extension: bool,
    /// Names of request headers that this policy hands to upstreams as its own word, so clients never may.
    pub identity_headers: &'static [&'static str],
}

/// What comes after a policy's turn.
#[derive(Debug)]
pub enum Flow {
    /// The next policy, in the end the upstream.
    Next,
    /// This answer, at once; response phases still run.
    Reply(Reply),
    /// Wait for this, then [`Policy::resume`].
    Await(Effect),
}

/// The only things that a policy can wait for.
#[derive(Debug)]
pub enum Effect {
    /// Read the request body whole into [`Exchange::body`].
    ReadBody {
        /// Bytes; a longer body answers [`BodyError::TooLarge`].
        limit: usize,
    },
    /// Decide on limits whose counters are shared beyond this process.
    Limit(Box<limit::Request>),
    /// The same under several keys at once: a request passes only if all let it, and one that is refused is charged under
    /// none of them (but where refused requests count).
    Limits(Vec<limit::Ask>),
    /// Go on after so long.
    Sleep(std::time::Duration),
    /// Send these requests, all at the same time. How many there may be is the policy's to bound.
    Call(Vec<call::Call>),
    /// Send requests one after the other or at the same time, as this says.
    Series(Box<dyn call::Series>),
    /// Send a request that this one does not wait for.
    Later(Box<call::Call>, call::Done),
    /// Wait, at most so long, for the question that another request has asked.
    Landing(Arc<verdicts::Landing>, std::time::Duration),
    /// Ask a directory about a name and a password.
    Ldap(Box<crate::ldap::Bind>),
    /// Wait for the keys of an identity provider.
    Keys(crate::provider::Wanted),
}

/// What came of an [`Effect`].
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is made once a wait, and handed on at once")]
pub enum Answer {
    /// The body is in [`Exchange::body`].
    Body(Result<(), BodyError>),
    /// How the limits stood, or why nobody knows.
    Limit(Result<limit::Outcome, limit::StoreError>),
    /// The same of each key, in the order in which they were given.
    Limits(Result<Vec<limit::Outcome>, limit::StoreError>),
    /// The time is over.
    Slept,
    /// What came of each call, in the order in which they were given.
    Call(Vec<Result<call::CallResponse, call::CallError>>),
    /// The series, which knows what came of it.
    Series(Box<dyn call::Series>),
    /// What is to be done later has begun.
    Begun,
    /// The question is over, or the time is.
    Landing,
    /// Whether name and password belong together.
    Ldap(Result<bool, crate::ldap::Unavailable>),
    /// Whether the provider was asked and has answered.
    Keys(Result<(), crate::provider::Unavailable>),
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    TooLarge,
    /// The client broke off or sent malformed framing.
    Broken,
    Timeout,
    /// There is no memory to hold it in.
    NoRoom,
}

/// One policy, compiled from one plugin entry.
pub trait Policy: Sized + Send + Sync + 'static {
    const PLUGIN: &'static Descriptor;

    /// Makes the policy from its checked config, or reports why it cannot.
    fn compile(config: &Record, cx: &mut Cx<'_>) -> Option<Self>;

    /// The request's turn.
    fn request(&self, x: &mut Exchange) -> Flow;

    /// The turn goes on with what was waited for.
    fn resume(&self, _x: &mut Exchange, _answer: Answer) -> Flow {
        Flow::Next
    }

    /// The response head's turn; also for answers of the gateway itself.
    fn response(&self, _x: &mut Exchange) {}

    /// Whether this response's body must be held and handed to [`Policy::response_body`].
    fn wants_response_body(&self, _x: &Exchange) -> bool {
        false
    }

    /// Replaces the response body. Runs after [`Policy::response`], and may still change the head.
    ///
    /// # Errors
    /// The answer in place of one whose body cannot be changed. No other policy sees the body then.
    fn response_body(&self, _x: &mut Exchange, body: Vec<u8>) -> Result<Vec<u8>, Reply> {
        Ok(body)
    }

    /// Whether [`Policy::response_filter`] is worth asking.
    fn filters_response(&self) -> bool {
        false
    }

    /// Last word on the head, and a filter for the body where it is to be changed as it passes. `length` is the body's,
    /// in bytes, if it is known. Runs after all [`Policy::response_body`], and for answers without a body, too, whose
    /// filter is thrown away.
    fn response_filter(&self, _x: &mut Exchange, _length: Option<u64>) -> Option<Box<dyn BodyFilter>> {
        None
    }

    /// Names of request headers that this configured policy sets, so clients never may.
    fn sets_headers(&self) -> Vec<String> {
        Vec::new()
    }

    /// The Redis that it counts in, so that every worker is connected before the first request.
    fn redis(&self) -> Option<&Arc<limit::RedisSettings>> {
        None
    }
}

/// What a policy may see while it is compiled.
pub struct Cx<'a> {
    pub model: &'a Model,
    /// The entry that is being compiled.
    pub plugin: &'a Plugin,
    /// Ids of what the plugin is attached to, for counters that belong to that scope.
    pub route_id: Option<&'a str>,
    pub service_id: Option<&'a str>,
    pub consumer_id: Option<&'a str>,
    /// State that outlives a snapshot: counters, caches.
    pub shared: &'a Arc<Shared>,
    pub diags: &'a mut Diags,
}

impl Cx<'_> {
    /// Reports a finding about the config.
    pub fn report(&mut self, code: &'static Code, span: Span, message: impl Into<String>) {
        self.diags.push(Diagnostic::new(code, span, message));
    }
}
