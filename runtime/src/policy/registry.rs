//! The one list of policies. Dispatch, schema, documentation and `gw validate` all come from it.

use std::sync::Arc;

use super::{Answer, BodyFilter, Cx, Descriptor, Flow, Policy, Reply};
use crate::exchange::Exchange;
use crate::limit::RedisSettings;
use crate::model::schema::Record;

macro_rules! policies {
    ($($variant:ident($($path:tt)*);)*) => {
        /// A compiled policy of any kind.
        pub enum Step {
            $(
                #[doc = concat!("See `", stringify!($($path)*), "`.")]
                $variant(Box<super::$($path)*>),
            )*
        }

        /// Every policy that gw can run.
        pub static REGISTRY: &[&Descriptor] = &[$(<super::$($path)* as Policy>::PLUGIN),*];

        impl Step {
            /// Compiles the policy called `name`; `None` if it reported errors or there is no such policy.
            pub fn compile(name: &str, config: &Record, cx: &mut Cx<'_>) -> Option<Self> {
                $(
                    if name == <super::$($path)* as Policy>::PLUGIN.name {
                        return <super::$($path)* as Policy>::compile(config, cx).map(|p| Self::$variant(Box::new(p)));
                    }
                )*
                None
            }

            /// What kind of policy this is.
            pub fn plugin(&self) -> &'static Descriptor {
                match self { $(Self::$variant(_) => <super::$($path)* as Policy>::PLUGIN,)* }
            }

            /// See [`Policy::request`].
            #[inline]
            pub fn request(&self, x: &mut Exchange) -> Flow {
                match self { $(Self::$variant(p) => p.request(x),)* }
            }

            /// See [`Policy::resume`].
            pub fn resume(&self, x: &mut Exchange, answer: Answer) -> Flow {
                match self { $(Self::$variant(p) => p.resume(x, answer),)* }
            }

            /// See [`Policy::response`].
            #[inline]
            pub fn response(&self, x: &mut Exchange) {
                match self { $(Self::$variant(p) => p.response(x),)* }
            }

            /// See [`Policy::wants_response_body`].
            pub fn wants_response_body(&self, x: &Exchange) -> bool {
                match self { $(Self::$variant(p) => p.wants_response_body(x),)* }
            }

            /// See [`Policy::response_body`].
            pub fn response_body(&self, x: &mut Exchange, body: Vec<u8>) -> Result<Vec<u8>, Reply> {
                match self { $(Self::$variant(p) => p.response_body(x, body),)* }
            }

            /// See [`Policy::filters_response`].
            pub fn filters_response(&self) -> bool {
                match self { $(Self::$variant(p) => p.filters_response(),)* }
            }

            /// See [`Policy::response_filter`].
            pub fn response_filter(&self, x: &mut Exchange, length: Option<u64>) -> Option<Box<dyn BodyFilter>> {
                match self { $(Self::$variant(p) => p.response_filter(x, length),)* }
            }

            /// See [`Policy::sets_headers`].
            pub fn sets_headers(&self) -> Vec<String> {
                match self { $(Self::$variant(p) => p.sets_headers(),)* }
            }

            /// See [`Policy::redis`].
            pub fn redis(&self) -> Option<&Arc<RedisSettings>> {
                match self { $(Self::$variant(p) => p.redis(),)* }
            }
        }
    };
}

policies! {
    Acl(acl::Acl);
    AdaptiveConcurrency(adaptive_concurrency::AdaptiveConcurrency);
    Aggregate(aggregate::Aggregate);
    Authorize(authorize::Authorize);
    BasicAuth(basic_auth::BasicAuth);
    BotDetection(bot_detection::BotDetection);
    ConcurrencyLimiting(concurrency_limiting::ConcurrencyLimiting);
    CorrelationId(correlation_id::CorrelationId);
    Cors(cors::Cors);
    Deprecation(deprecation::Deprecation);
    GrpcGateway(grpc_gateway::GrpcGateway);
    GrpcWeb(grpc_web::GrpcWeb);
    ForwardAuth(forward_auth::ForwardAuth);
    GatewayKeys(gateway_keys::GatewayKeys);
    HmacAuth(hmac_auth::HmacAuth);
    IpRestriction(ip_restriction::IpRestriction);
    KeyAuth(key_auth::KeyAuth);
    OpenIdConnect(openid_connect::OpenIdConnect);
    OAuth2(oauth2::OAuth2);
    Introspection(oauth2_introspection::Introspection);
    LdapAuth(ldap_auth::LdapAuth);
    Mirror(mirror::Mirror);
    MtlsAuth(mtls_auth::MtlsAuth);
    RateLimiting(rate_limiting::RateLimiting);
    ProxyCache(proxy_cache::ProxyCache);
    Redirect(redirect::Redirect);
    RequestSizeLimiting(request_size_limiting::RequestSizeLimiting);
    RequestTermination(request_termination::RequestTermination);
    RequestTransformer(request_transformer::RequestTransformer);
    ResponseRateLimiting(response_ratelimiting::ResponseRateLimiting);
    ResponseTransformer(response_transformer::ResponseTransformer);
    StandardWebhooks(standard_webhooks::StandardWebhooks);
    TrafficSplit(traffic_split::TrafficSplit);
    UpstreamIdentity(upstream_identity::UpstreamIdentity);
    Jwt(jwt::Jwt);
    JsonXml(json_xml::JsonXml);
    Compression(compression::Compression);
    RequestDecompression(request_decompression::RequestDecompression);
    RequestValidator(request_validator::RequestValidator);
    OasValidation(oas_validation::OasValidation);
    JsonThreatProtection(json_threat_protection::JsonThreatProtection);
    GraphqlLimits(graphql_limits::GraphqlLimits);
}

/// The descriptor of a policy, if gw can run it.
pub fn find(name: &str) -> Option<&'static Descriptor> {
    REGISTRY.iter().copied().find(|d| d.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::order;

    #[test]
    fn every_policy_has_its_place_in_the_order_and_a_documentation() {
        for d in REGISTRY {
            let places = order::ORDER.iter().filter(|n| **n == d.name).count();
            assert_eq!(places, 1, "{} has one place in ORDER", d.name);
            for heading in ["## What it does", "## Why", "## Example", "## Behaviour"] {
                assert!(d.doc.contains(heading), "{}: no `{heading}`", d.name);
            }
            for f in d.fields {
                assert!(!f.doc.is_empty(), "{}.{} has no doc", d.name, f.name);
            }
        }
    }
}
