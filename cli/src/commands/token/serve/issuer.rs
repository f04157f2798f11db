//! What the issuer of `gw token serve` says.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gw_runtime::clock;
use gw_runtime::message::{form_decode, query_pairs};
use gw_runtime::token::claims::Times;
use gw_runtime::token::jwk::JwkSet;
use gw_runtime::token::sign::{Signer, encode};
use gw_runtime::token::trace::Quiet;
use gw_runtime::token::{Algorithm, MAX_TOKEN, parse, publish};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::commands::token::keygen;

type Answer = Response<Full<Bytes>>;

/// The longest form that is read.
const MOST_BYTES: usize = 64 * 1024;
/// Keys that stay published; the oldest goes when there are more.
const MOST_KEYS: usize = 16;
/// Tokens whose revocation is remembered; the oldest is forgotten when there are more.
const MOST_REVOKED: usize = 10_000;

/// See the module.
pub struct Issuer {
    name: String,
    algorithm: Algorithm,
    client: String,
    secret: String,
    audience: Option<String>,
    /// Seconds.
    ttl: u64,
    state: RefCell<State>,
}

struct State {
    /// What signs, and its `kid`.
    signer: (Signer, String),
    /// Public keys, the newest last.
    keys: Vec<Value>,
    /// `jti` of tokens that are good no more, in order of revocation too.
    revoked: HashSet<String>,
    order: VecDeque<String>,
}

fn make_key(algorithm: Algorithm) -> Result<(Signer, Value), String> {
    let (private, public) = keygen::key_pair(algorithm).map_err(|e| e.to_string())?;
    Ok((Signer::private_pem(algorithm, &private)?, publish::jwk(algorithm, &public, false)?))
}

impl Issuer {
    /// An issuer with a fresh key.
    pub fn new(
        name: String,
        algorithm: Algorithm,
        client: String,
        secret: String,
        audience: Option<String>,
        ttl: u64,
    ) -> Result<Self, String> {
        let (signer, key) = make_key(algorithm)?;
        let kid = key["kid"].as_str().unwrap_or_default().to_owned();
        let state =
            State { signer: (signer, kid), keys: vec![key], revoked: HashSet::new(), order: VecDeque::new() };
        Ok(Self { name, algorithm, client, secret, audience, ttl, state: RefCell::new(state) })
    }

    /// The client's id.
    pub fn client(&self) -> &str {
        &self.client
    }

    /// Answers a request.
    pub async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let get = head.method == Method::GET;
        match (head.uri.path(), get) {
            ("/.well-known/openid-configuration" | "/.well-known/oauth-authorization-server", true) => {
                return json_answer(StatusCode::OK, &self.metadata());
            }
            ("/jwks.json", true) => {
                return json_answer(StatusCode::OK, &json!({ "keys": self.state.borrow().keys }));
            }
            ("/token" | "/introspect" | "/revoke" | "/rotate", false) if head.method == Method::POST => {}
            ("/token" | "/introspect" | "/revoke" | "/rotate", _) => {
                return error(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", "this takes POST");
            }
            _ => return error(StatusCode::NOT_FOUND, "not_found", "there is nothing here"),
        }
        let Ok(body) = Limited::new(body, MOST_BYTES).collect().await else {
            return error(StatusCode::BAD_REQUEST, "invalid_request", "the form cannot be read");
        };
        let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
        let form: Vec<(String, String)> =
            query_pairs(&body).map(|(name, value)| (name, value.unwrap_or_default())).collect();
        let authorization = head.headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
        if !self.knows(authorization, &form) {
            let mut refused =
                error(StatusCode::UNAUTHORIZED, "invalid_client", "client id or secret is wrong");
            refused
                .headers_mut()
                .insert(WWW_AUTHENTICATE, http::HeaderValue::from_static("Basic realm=\"gw\""));
            return refused;
        }
        match head.uri.path() {
            "/token" => self.token(&form),
            "/introspect" => {
                json_answer(StatusCode::OK, &self.introspect(field(&form, "token").unwrap_or("")))
            }
            "/revoke" => self.revoke(field(&form, "token").unwrap_or("")),
            _ => self.rotate(),
        }
    }

    fn metadata(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.name.trim_end_matches('/'));
        json!({
            "issuer": self.name,
            "jwks_uri": at("/jwks.json"),
            "token_endpoint": at("/token"),
            "introspection_endpoint": at("/introspect"),
            "revocation_endpoint": at("/revoke"),
            "grant_types_supported": ["client_credentials"],
            "response_types_supported": [],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "id_token_signing_alg_values_supported": [self.algorithm.name()],
            "subject_types_supported": ["public"],
        })
    }

    /// Whether the request is the client's, by Basic or by the form.
    fn knows(&self, authorization: Option<&str>, form: &[(String, String)]) -> bool {
        let basic = authorization.and_then(|text| text.strip_prefix("Basic ")).and_then(|encoded| {
            let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
            let (id, secret) = text.split_once(':')?;
            Some((form_decode(id), form_decode(secret)))
        });
        let post = || Some((field(form, "client_id")?.to_owned(), field(form, "client_secret")?.to_owned()));
        basic.or_else(post).is_some_and(|(id, secret)| {
            id == self.client && verify_slices_are_equal(secret.as_bytes(), self.secret.as_bytes()).is_ok()
        })
    }

    fn token(&self, form: &[(String, String)]) -> Answer {
        if field(form, "grant_type") != Some("client_credentials") {
            return error(
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "the grant is `client_credentials`",
            );
        }
        let now = clock::unix_s();
        let scope = field(form, "scope").unwrap_or("");
        let audience =
            field(form, "audience").or_else(|| field(form, "resource")).or(self.audience.as_deref());
        let claims = json!({
            "iss": self.name, "sub": field(form, "sub").unwrap_or(&self.client), "client_id": self.client,
            "aud": audience.unwrap_or(&self.name), "scope": scope, "iat": now, "exp": now + self.ttl,
            "jti": uuid::Uuid::new_v4().to_string(),
        });
        let state = self.state.borrow();
        let (signer, kid) = &state.signer;
        match encode(signer, &[("typ", "at+jwt".into()), ("kid", kid.as_str().into())], &claims) {
            Ok(token) => json_answer(
                StatusCode::OK,
                &json!({"access_token": token, "token_type": "Bearer", "expires_in": self.ttl, "scope": scope}),
            ),
            Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "signing failed"),
        }
    }

    /// The claims of a token that is good, and that it is `active`.
    fn introspect(&self, token: &str) -> Value {
        let inactive = || json!({"active": false});
        let Some(claims) = self.claims_of(token) else { return inactive() };
        let jti = claims["jti"].as_str().unwrap_or_default();
        if self.state.borrow().revoked.contains(jti) {
            return inactive();
        }
        let mut answer = claims;
        answer["active"] = true.into();
        answer["token_type"] = "Bearer".into();
        answer
    }

    fn claims_of(&self, token: &str) -> Option<Value> {
        let token = parse(token.as_bytes(), MAX_TOKEN).ok()?;
        let set = JwkSet::from_value(&json!({ "keys": self.state.borrow().keys })).ok()?;
        let own = gw_runtime::token::issuer::Issuer::for_tool(self.name.clone(), set, Vec::new());
        own.check(&token, &mut Quiet).ok()?;
        own.check_times(&Times::of(&token.claims), clock::unix_s(), &mut Quiet).ok()?;
        Some(token.claims)
    }

    fn revoke(&self, token: &str) -> Answer {
        if let Some(jti) = self.claims_of(token).and_then(|c| c["jti"].as_str().map(str::to_owned)) {
            let mut state = self.state.borrow_mut();
            if state.revoked.insert(jti.clone()) {
                state.order.push_back(jti);
            }
            if state.order.len() > MOST_REVOKED
                && let Some(oldest) = state.order.pop_front()
            {
                state.revoked.remove(&oldest);
            }
        }
        // RFC 7009: an unknown token is revoked already.
        json_answer(StatusCode::OK, &json!({}))
    }

    fn rotate(&self) -> Answer {
        let Ok((signer, key)) = make_key(self.algorithm) else {
            return error(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "no key could be made");
        };
        let kid = key["kid"].as_str().unwrap_or_default().to_owned();
        let mut state = self.state.borrow_mut();
        state.signer = (signer, kid.clone());
        state.keys.push(key);
        if state.keys.len() > MOST_KEYS {
            state.keys.remove(0);
        }
        json_answer(StatusCode::OK, &json!({ "kid": kid }))
    }
}

fn field<'f>(form: &'f [(String, String)], name: &str) -> Option<&'f str> {
    form.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, v)| v.as_str())
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let mut answer = Response::new(Full::from(value.to_string()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    answer
}

fn error(status: StatusCode, code: &str, description: &str) -> Answer {
    json_answer(status, &json!({"error": code, "error_description": description}))
}
