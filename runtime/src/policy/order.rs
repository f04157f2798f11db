//! The order of the pipeline.

/// Policies run in this order in the request; the order is Kong's (descending priority, which stands beside each).
/// A policy of gw's own says why it stands where it does.
pub const ORDER: &[&str] = &[
    "correlation-id",         // 100001: first, so that every answer and every log line has the id
    "bot-detection",          // 2500
    "cors",                   // 2000: preflights carry no credentials, so they end before authentication
    "deprecation",            // gw: what is gone is gone for everybody, so nobody need be authenticated
    "mtls-auth",              // gw: the connection is known before anything that a request says
    "jwt",                    // 1450
    "oauth2",                 // 1400
    "oauth2-introspection",   // gw: an authenticator, beside oauth2
    "openid-connect",         // gw: an authenticator, where Kong has its own (1050 to 1400)
    "key-auth",               // 1250
    "ldap-auth",              // 1200
    "basic-auth",             // 1100
    "hmac-auth",              // 1030
    "forward-auth", // gw: an authenticator that asks elsewhere; local ones are cheaper and come first
    "ip-restriction", // 990
    "request-size-limiting", // 951
    "acl",          // 950: needs the consumer
    "authorize",    // gw: needs consumer and claims, as acl does
    "rate-limiting", // 910: after identity, before any work
    "concurrency-limiting", // gw: holds a slot for the rest of the request, so it comes after the counters
    "adaptive-concurrency", // gw: the last question before work begins: whether the service has room
    "response-ratelimiting", // 900
    "request-decompression", // gw: what reads or changes bodies comes after it, limits that cost less before
    "json-threat-protection", // 1009 in Kong Enterprise; here, as the next two, once it is known that the caller may ask
    "request-validator",      // 999 there
    "oas-validation",         // 840 there
    "graphql-limits",         // gw: of the same kind
    "traffic-split", // gw: after identity and limits, before rules that change the path of the chosen service
    "upstream-identity", // gw: the caller is known and may go on; transformers may still move what it says
    "request-transformer", // 801
    "response-transformer", // 800
    "redirect",      // 779
    "standard-webhooks", // 760
    "json-xml",      // gw: sees the body after transformers of its own format
    "aggregate",     // gw: answers in the upstream's place, with everything above applied
    "grpc-gateway", // 998 in Kong, where it only rewrites; here it answers, as the next does, once all others have seen the request
    "grpc-web",     // 3: translates the request that all others have seen, and answers
    "proxy-cache",  // 100
    "compression",  // gw: the last change of a body
    "gateway-keys", // gw: answers instead of the upstream
    "request-termination", // 2: answers instead of the upstream
    "mirror",       // gw: copies what the service gets, so nothing comes after it
];

/// Where a policy stands in the order.
pub fn position(name: &str) -> Option<usize> {
    ORDER.iter().position(|n| *n == name)
}
