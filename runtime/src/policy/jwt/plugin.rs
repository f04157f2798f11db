//! What `jwt` is, in a config and in the documentation.

use crate::model::schema::{Field, HEADER, Kind, STR};
use crate::policy::Descriptor;
use crate::policy::identity::{ANONYMOUS, IDENTITY_HEADERS};
use crate::token::{demands, issuer};

pub static PLUGIN: Descriptor = Descriptor {
    name: "jwt",
    summary: "let in callers with a token that one of the config's consumers has signed",
    doc: "\
## What it does
Takes a JSON Web Token from the request, finds the `jwt_secrets` credential that the token names, checks algorithm,
signature and times, and makes the credential's consumer the caller.

## Why
Services behind the gateway no longer check tokens, and every later policy knows who calls.

## Example
```yaml
plugins:
  - name: jwt
    config: { claims_to_verify: [exp], key_claim_name: iss }
consumers:
  - username: alice
    jwt_secrets: [{ key: alice, algorithm: HS256, secret: \"${ALICE_SECRET}\" }]
```
`gw token mint --config FILE --consumer alice` prints a token that this lets in.

## Behaviour
Looks into query, cookies and headers; equal tokens in several places are one. The credential is the one whose `key`
equals the claim `key_claim_name`, else the header parameter of that name. Its algorithm must be the token's.

Refuses with 401, `WWW-Authenticate: Bearer` and a JSON body: no token `Unauthorized`; tokens that differ `Multiple
tokens provided`; undecodable `Bad token; ...`; `No mandatory 'iss' in claims`; `Invalid 'iss' in claims`; `No
credentials found for given 'iss'`; `Invalid algorithm`; `Invalid key/secret`; `Invalid signature`; times
`{\"exp\":\"token expired\"}`, `{\"nbf\":\"token not valid yet\"}`, `must be a number`, `exceeds maximum allowed expiration`.
Except for the first, `WWW-Authenticate` says `error=\"invalid_token\"`.

A token whose `iss` is one of `issuers` is judged by that issuer's settings alone: key by `kid`, algorithm, `aud`, `typ`,
`exp` (required), `nbf` and `iat`; with `typ: at+jwt` also that all claims are there that RFC 9068 requires (`iss`, `exp`,
`aud`, `sub`, `client_id`, `iat`, `jti`). Its refusals name the reason in `error_description` too. `X-Credential-Identifier` is
its `sub`.

`audiences`, `required_claims`, `scopes_any` and `scopes_all` narrow whose tokens are let in: those beside `issuers` are
for tokens of credentials, those of an issuer for its own. A good token that lacks scopes is answered 403 `Insufficient
scope` with `error=\"insufficient_scope\"` and the scopes; the anonymous consumer does not stand in for its bearer.
`strict` judges tokens of credentials as issuers' are.
An issuer's `claims_to_headers` count beside those of the plugin, and before them where both set a header. `gw token explain` shows every check of a token.

An issuer's published keys (`jwks_uri`, `discovery`) are fetched in the background, once for all workers: when the config
is loaded, before they get old (as `Cache-Control: max-age` says, but every 30 s to 1 h), and when a token names a key that
the set does not have, which whoever sends such tokens cannot bring about more often than every 30 s in the long run.
While the issuer is down the last keys stay in force, for 24 h at most. Redirects are not followed, and a discovery document
leads to a private address only on the host and port that the config names itself. Secrets in a published set are ignored.
A token that nobody can judge, because its issuer's keys did not come within 6 s, is answered 503 with `Retry-After`, never
401. Their state is in the metrics `gw_identity_provider_*`.

With `anonymous` nobody is refused: the request goes on as that consumer (500 if there is none of that name), and
not at all is asked where an earlier authenticator already knows the caller.

Tells the upstream `X-Consumer-ID`, `X-Consumer-Username`, `X-Consumer-Custom-ID`, `X-Credential-Identifier` (the
credential's key), `X-Anonymous-Consumer`, and the headers of `claims_to_headers`. The token is forwarded.

Expiry is looked at only where `claims_to_verify` has `exp` or `maximum_expiration` is set.

Stricter than Kong: an `exp` beyond the year 9999 is out of range, base64url must be canonical, JSON names must be unique and nest at most 32 deep, `crit` is refused,
RSA keys have at least 2048 bits, and what makes Kong answer 500 is a 401.
",
    fields: &[
        Field::new("uri_param_names", Kind::Set(&STR), "Query arguments that may hold the token.")
            .default("[\"jwt\"]"),
        Field::new("cookie_names", Kind::Set(&STR), "Cookies that may hold the token.").default("[]"),
        Field::new(
            "header_names",
            Kind::Set(&HEADER),
            "Request headers that may hold the token, after the word `Bearer`.",
        )
        .default("[\"authorization\"]"),
        Field::new(
            "key_claim_name",
            STR,
            "The claim (or header parameter) that holds the credential's `key`.",
        )
        .default("\"iss\""),
        Field::new(
            "secret_is_base64",
            Kind::Bool,
            "Whether the secrets of HS256, HS384 and HS512 credentials are base64url of the real secret.",
        )
        .default("false"),
        Field::new(
            "claims_to_verify",
            Kind::Set(&Kind::Enum(&["exp", "nbf"])),
            "The times that a token must have and keep. Without `exp`, tokens never expire.",
        ),
        ANONYMOUS,
        Field::new("run_on_preflight", Kind::Bool, "Whether OPTIONS requests need a token too.")
            .default("true"),
        Field::new(
            "maximum_expiration",
            Kind::Num { min: 0.0, max: 31_536_000.0 },
            "The most seconds that `exp` may lie ahead; 0 for no bound.",
        )
        .default("0"),
        Field::new("realm", STR, "What `WWW-Authenticate` names as the realm."),
        Field::new(
            "claims_to_headers",
            Kind::Map(&HEADER),
            "Claims to hand to the upstream: claim name (dots descend into objects) to request header. Texts, \
             numbers and truth values are handed on; clients cannot send these headers.",
        )
        .extension(),
        Field::new(
            "issuers",
            Kind::List(&Kind::Record(issuer::FIELDS)),
            "Issuers whose tokens are let in without a credential of the config, by their published keys.",
        )
        .extension(),
        demands::AUDIENCES.extension(),
        demands::REQUIRED_CLAIMS.extension(),
        demands::SCOPES_ANY.extension(),
        demands::SCOPES_ALL.extension(),
        Field::new(
            "strict",
            Kind::Bool,
            "Whether credentials' tokens must keep RFC 8725 where Kong does not ask for it: `exp` is there, `nbf` and \
             `iat` do not lie ahead, and `typ` is none, `JWT` or `at+jwt`.",
        )
        .default("false")
        .extension(),
        Field::new(
            "max_token_size",
            Kind::Int { min: 64, max: 65_536 },
            "The longest token that is looked at, in bytes.",
        )
        .default("8192")
        .extension(),
    ],
    consumer_scope: false,
    extension: false,
    identity_headers: IDENTITY_HEADERS,
};
