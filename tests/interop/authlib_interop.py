"""The gateway beside an OAuth 2 and OpenID provider made of Authlib: browsers log in, stay logged in and log out, and
services are called with Authlib's access tokens, as JSON web tokens (RFC 9068) and as opaque ones (RFC 7662).

Needs Authlib, Flask and cryptography; `GW_BIN` names the gateway.
"""

import http.client
import json
import logging
import os
import secrets
import threading
import time
import urllib.parse

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from authlib.oauth2.rfc9207.parameter import IssuerParameter
from authlib.oidc.core import UserInfo
from authlib.oidc.core.grants import OpenIDCode
from authlib.oidc.core.models import AuthorizationCodeMixin
from authlib.oidc.rpinitiated import EndSessionEndpoint
from flask import Flask, jsonify, redirect, request
from joserfc.jwk import ECKey, KeySet
from werkzeug.serving import make_server

from browser import Browser
from gateway import Cases, Gateway, free_port

logging.getLogger("werkzeug").setLevel(logging.ERROR)

CONFIG = """
_format_version: "3.0"
services:
- name: app
  url: http://127.0.0.1:{upstream}
  routes:
  - name: browsers
    paths: [/app]
    strip_path: false
    plugins: [{{ name: openid-connect, config: {{ issuer: "{issuer}", client_id: shop, client_secret: "sh0p:secret/+",
      redirect_uri: "http://localhost:{port}/app/callback", session_secrets: ["{secret}"], scopes: [openid, email],
      logout_path: /app/logout, post_logout_redirect_uri: "http://localhost:{port}/bye", userinfo: true,
      forward_access_token: true, claims_to_headers: {{ sub: X-User-Id, email: X-Email }} }} }}]
  - name: signed
    paths: [/signed]
    plugins: [{{ name: jwt, config: {{ issuers: [{{ issuer: "{issuer}", discovery: true, audiences: [orders],
      scopes_all: [read], algorithms: [ES256], claims_to_headers: {{ sub: X-User-Id, client_id: X-Client }} }}] }} }}]
  - name: opaque
    paths: [/opaque]
    plugins: [{{ name: oauth2-introspection, config: {{ introspection_url: "{issuer}/introspect", client_id: gateway,
      client_secret: "gw secret", scopes_all: [read], ttl: 0, negative_ttl: 0, claims_to_headers: {{ sub: X-User-Id }} }} }}]
"""


class Client(ClientMixin):
    def __init__(self, id, secret, grants, scope="", redirect=None):
        self.client_id, self.secret, self.grants, self.scope, self.redirect = id, secret, grants, scope, redirect
        self.client_metadata = {}

    def get_client_id(self):
        return self.client_id

    def get_default_redirect_uri(self):
        return self.redirect

    def get_allowed_scope(self, scope):
        return " ".join(s for s in (scope or "").split() if s in self.scope.split())

    def check_redirect_uri(self, uri):
        return uri == self.redirect

    def check_client_secret(self, secret):
        return secrets.compare_digest(secret, self.secret)

    def check_endpoint_auth_method(self, method, endpoint):
        return method == "client_secret_basic"

    def check_response_type(self, kind):
        return kind == "code"

    def check_grant_type(self, kind):
        return kind in self.grants


class User:
    sub = "ann"

    def get_user_id(self):
        return self.sub


class Code(AuthorizationCodeMixin):
    def __init__(self, asked, code):
        data = asked.payload.data
        self.code, self.client_id, self.scope = code, asked.client.client_id, asked.scope
        self.redirect_uri, self.nonce = asked.payload.redirect_uri, data.get("nonce")
        self.code_challenge, self.code_challenge_method = data.get("code_challenge"), data.get("code_challenge_method")

    def get_redirect_uri(self):
        return self.redirect_uri

    def get_scope(self):
        return self.scope

    def get_nonce(self):
        return self.nonce

    def get_auth_time(self):
        return int(time.time())

    def get_acr(self):
        return None

    def get_amr(self):
        return None


class Token(TokenMixin):
    def __init__(self, token, client, user):
        self.data, self.client, self.user, self.at, self.revoked = token, client, user, time.time(), False

    def check_client(self, client):
        return self.client is client

    def get_scope(self):
        return self.data.get("scope", "")

    def get_expires_in(self):
        return self.data["expires_in"]

    def is_expired(self):
        return time.time() > self.at + self.data["expires_in"]

    def is_revoked(self):
        return self.revoked

    def get_user(self):
        return self.user

    def get_client(self):
        return self.client


class Provider:
    """Authlib's authorization server with everything in memory. `life` is how long access tokens live, in seconds."""

    def __init__(self, redirect_uri, after_logout):
        self.key = ECKey.generate_key("P-256", auto_kid=True, parameters={"use": "sig", "alg": "ES256"})
        self.codes, self.tokens, self.sessions, self.asked, self.life = {}, [], {"ann"}, [], 3600
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        shop = Client("shop", "sh0p:secret/+", ["authorization_code", "refresh_token"], "openid email", redirect_uri)
        shop.client_metadata = {"post_logout_redirect_uris": [after_logout]}
        self.clients = {
            "shop": shop,
            "robot": Client("robot", "r", ["client_credentials"], "read write"),
            "gateway": Client("gateway", "gw secret", []),
        }
        app = Flask("provider")
        self.server = self.authorization_server(app)
        self.routes(app)
        http_server = make_server("127.0.0.1", self.port, app, threaded=True)
        threading.Thread(target=http_server.serve_forever, daemon=True).start()

    def keys(self, private):
        return KeySet([self.key]).as_dict(private=private)

    def authorization_server(self, app):
        provider = self

        def save(token, asked):
            provider.tokens.append(Token(token, asked.client, asked.user))

        server = AuthorizationServer(app, self.clients.get, save)

        class Generator(JWTBearerTokenGenerator):
            def get_jwks(self):
                return KeySet([provider.key])

            def get_audiences(self, client, user, scope):
                return ["orders", client.get_client_id()]

        generator = Generator(
            provider.issuer,
            alg="ES256",
            refresh_token_generator=lambda *_, **__: secrets.token_urlsafe(24),
            expires_generator=lambda *_, **__: provider.life,
        )
        server.register_token_generator("default", generator)

        class CodeGrant(grants.AuthorizationCodeGrant):
            TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic"]

            def save_authorization_code(self, code, asked):
                provider.codes[code] = Code(asked, code)

            def query_authorization_code(self, code, client):
                found = provider.codes.get(code)
                return found if found and found.client_id == client.client_id else None

            def delete_authorization_code(self, code):
                provider.codes.pop(code.code, None)

            def authenticate_user(self, code):
                return User()

        class OpenID(OpenIDCode):
            def exists_nonce(self, nonce, asked):
                return any(c.nonce == nonce for c in provider.codes.values())

            def resolve_client_private_key(self, client):
                return provider.key

            def get_client_algorithm(self, client):
                return "ES256"

            def get_client_claims(self, client):
                return {"iss": provider.issuer, "exp": int(time.time()) + 300, "iat": int(time.time()), "aud": ["shop"]}

            def get_encode_header(self, client):
                return {"alg": "ES256", "kid": provider.key.kid}

            def generate_user_info(self, user, scope):
                return UserInfo(sub=user.sub)

        class Refresh(grants.RefreshTokenGrant):
            TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic"]
            INCLUDE_NEW_REFRESH_TOKEN = True

            def authenticate_refresh_token(self, text):
                return next((t for t in provider.tokens if t.data.get("refresh_token") == text and not t.revoked), None)

            def authenticate_user(self, token):
                return token.user

            def revoke_old_credential(self, token):
                token.revoked = True

        class Introspection(IntrospectionEndpoint):
            CLIENT_AUTH_METHODS = ["client_secret_basic"]

            def check_permission(self, token, client, asked):
                return client.client_id == "gateway"

            def query_token(self, text, hint):
                provider.asked.append("introspect")
                return next((t for t in provider.tokens if t.data["access_token"] == text), None)

            def introspect_token(self, token):
                who = token.user.sub if token.user else token.client.client_id
                end = int(token.at + token.data["expires_in"])
                return {"active": True, "client_id": token.client.client_id, "scope": token.get_scope(), "sub": who, "exp": end}

        class Revocation(RevocationEndpoint):
            CLIENT_AUTH_METHODS = ["client_secret_basic"]

            def query_token(self, text, hint):
                return next((t for t in provider.tokens if t.data["access_token"] == text), None)

            def revoke_token(self, token, asked):
                token.revoked = True

        class EndSession(EndSessionEndpoint):
            def get_server_jwks(self):
                return provider.keys(False)

            def get_algorithms(self):
                return ["ES256"]

            def end_session(self, asked):
                assert asked.id_token_claims and asked.id_token_claims["sub"] == "ann", asked
                provider.sessions.discard("ann")

        class Issuer(IssuerParameter):
            def get_issuer(self):
                return provider.issuer

        server.register_grant(CodeGrant, [OpenID(require_nonce=True), CodeChallenge(required=True)])
        server.register_grant(Refresh)
        server.register_grant(grants.ClientCredentialsGrant)
        for endpoint in (Introspection, Revocation, EndSession):
            server.register_endpoint(endpoint)
        server.register_extension(Issuer())
        return server

    def routes(self, app):
        server = self.server

        @app.get("/.well-known/openid-configuration")
        def metadata():
            ends = {
                "authorization_endpoint": "authorize",
                "token_endpoint": "token",
                "userinfo_endpoint": "userinfo",
                "jwks_uri": "keys",
                "end_session_endpoint": "end",
                "introspection_endpoint": "introspect",
                "revocation_endpoint": "revoke",
            }
            return jsonify({"issuer": self.issuer} | {k: f"{self.issuer}/{v}" for k, v in ends.items()})

        @app.get("/keys")
        def keys():
            return jsonify(self.keys(False))

        @app.get("/authorize")
        def authorize():
            self.asked.append("authorize")
            if "ann" not in self.sessions:
                return "who are you?", 200
            grant = server.get_consent_grant(end_user=User())
            return server.create_authorization_response(grant=grant, grant_user=User())

        @app.post("/token")
        def token():
            self.asked.append(request.form.get("grant_type"))
            return server.create_token_response()

        @app.get("/userinfo")
        def userinfo():
            text = request.headers.get("Authorization", "").removeprefix("Bearer ")
            known = [t for t in self.tokens if t.data["access_token"] == text and not t.is_expired()]
            return jsonify({"sub": known[0].user.sub, "email": "ann@test"}) if known else ("", 401)

        @app.post("/introspect")
        def introspect():
            return server.create_endpoint_response("introspection")

        @app.post("/revoke")
        def revoke():
            return server.create_endpoint_response("revocation")

        @app.route("/end", methods=["GET", "POST"])
        def end():
            return server.create_endpoint_response("end_session") or ("logged out, and nowhere to go", 200)


def upstream():
    app = Flask("upstream")

    @app.route("/", defaults={"path": ""})
    @app.route("/<path:path>")
    def echo(path):
        return jsonify(dict(request.headers.items()) | {"path": request.full_path.rstrip("?")})

    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def post(port, path, form, client, secret):
    """What a client gets from an endpoint."""
    import base64

    basic = base64.b64encode(f"{client}:{secret}".encode()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", path, urllib.parse.urlencode(form), headers)
    response = connection.getresponse()
    body = response.read()
    return json.loads(body) if body else {}


def call(port, path, token):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    response = connection.getresponse()
    body = json.loads(response.read())
    return response.status, body, response.headers.get("WWW-Authenticate") or ""


def browsers(cases, provider, gateway, port):
    """Authorization code with PKCE, refresh and logout."""

    def local(url):
        return url.replace(f"http://localhost:{port}", "")

    browser = Browser(gateway.port)
    status, _, body = browser.follow("/app/page?x=1", local)
    seen = json.loads(body)
    cases.equal("the browser is where it wanted to go", (status, seen["path"]), (200, "/app/page?x=1"))
    cases.equal("the service knows who it is", (seen["X-User-Id"], seen["X-Email"]), ("ann", "ann@test"))
    first = seen["Authorization"].removeprefix("Bearer ")
    cases.equal("it gets the provider's token", first, provider.tokens[-1].data["access_token"])
    cases.equal("the code was good once", provider.codes, {})
    cases.equal("the session needs the provider no more", browser.get("/app/api", accept="*/*")[0], 200)
    cases.equal("which was asked once", provider.asked, ["authorize", "authorization_code"])

    provider.life = 1
    short = Browser(gateway.port)
    cases.equal("a short session", short.follow("/app/page", local)[0], 200)
    provider.life = 3600
    time.sleep(1.2)
    provider.asked.clear()
    status, _, body = short.get("/app/api", accept="*/*")
    fresh = json.loads(body)["Authorization"].removeprefix("Bearer ")
    cases.equal("is refreshed", (status, provider.asked), (200, ["refresh_token"]))
    cases.equal("with a new token", fresh, provider.tokens[-1].data["access_token"])

    status, headers, _ = browser.get("/app/logout")
    to = headers["Location"]
    cases.equal("the logout goes to the provider", (status, to.startswith(f"{provider.issuer}/end?")), (302, True))
    status, headers, _ = browser.get(to)
    cases.equal("which lets go and sends back", (status, headers["Location"]), (302, f"http://localhost:{port}/bye"))
    cases.equal("nobody is logged in any more", (browser.cookies, provider.sessions), ({}, set()))
    cases.equal("nor can be without a word", browser.follow("/app/page", local)[2], b"who are you?")
    provider.sessions.add("ann")


def services(cases, provider, gateway):
    """Access tokens that the gateway judges by itself, and such that it asks about."""
    grant = {"grant_type": "client_credentials", "scope": "read"}
    good = post(provider.port, "/token", grant, "robot", "r")["access_token"]
    weak = post(provider.port, "/token", grant | {"scope": "write"}, "robot", "r")["access_token"]
    status, seen, _ = call(gateway.port, "/signed", good)
    cases.equal("a token of RFC 9068 is let in", (status, seen.get("X-User-Id"), seen.get("X-Client")), (200, "robot", "robot"))
    status, _, challenge = call(gateway.port, "/signed", weak)
    cases.equal("without the scope it is not", (status, 'scope="read"' in challenge), (403, True))
    status, _, challenge = call(gateway.port, "/signed", good[:-3] + ("AAA" if good[-3:] != "AAA" else "BBB"))
    cases.equal("a changed one is bad", (status, 'error="invalid_token"' in challenge), (401, True))

    old, provider.key = provider.key, ECKey.generate_key("P-256", auto_kid=True, parameters={"use": "sig", "alg": "ES256"})
    rotated = post(provider.port, "/token", grant, "robot", "r")["access_token"]
    cases.equal("a new key is taken at once", call(gateway.port, "/signed", rotated)[0], 200)
    cases.equal("and the old one let go", (old.kid != provider.key.kid, call(gateway.port, "/signed", good)[0]), (True, 401))

    status, seen, _ = call(gateway.port, "/opaque", good)
    cases.equal("introspection lets it in", (status, seen.get("X-User-Id")), (200, "robot"))
    cases.equal("and asks for the scope", call(gateway.port, "/opaque", weak)[0], 403)
    cases.equal("what nobody issued is not active", call(gateway.port, "/opaque", "made-up")[0], 401)
    post(provider.port, "/revoke", {"token": good}, "robot", "r")
    cases.equal("what was revoked neither", call(gateway.port, "/opaque", good)[0], 401)


def main():
    cases, port = Cases(), free_port()
    provider = Provider(f"http://localhost:{port}/app/callback", f"http://localhost:{port}/bye")
    gateway = Gateway(CONFIG.format(upstream=upstream(), issuer=provider.issuer, port=port, secret="k" * 32))
    browsers(cases, provider, gateway, port)
    services(cases, provider, gateway)
    cases.equal("the gateway ends well", gateway.stop(), 0)
    cases.end()


main()
