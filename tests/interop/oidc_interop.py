"""A browser that logs in through the gateway at an OpenID provider which takes nothing that the standards do not allow.

Needs PyJWT with cryptography; `GW_BIN` names the gateway.
"""

import base64
import hashlib
import http.server
import json
import secrets
import threading
import time
import urllib.parse

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from browser import Browser
from gateway import Cases, Gateway, free_port

CONFIG = """
_format_version: "3.0"
services:
- name: app
  url: http://127.0.0.1:{upstream}
  routes:
  - name: app
    paths: [/app]
    strip_path: false
    plugins: [{{ name: openid-connect, config: {{ issuer: "{issuer}", client_id: shop, client_secret: "s3cr et",
      redirect_uri: "http://localhost:{port}/app/callback", session_secrets: ["{secret}"], scopes: [openid, offline_access],
      logout_path: /app/logout, post_logout_redirect_uri: "http://localhost:{port}/", userinfo: true,
      forward_access_token: true, claims_to_headers: {{ sub: X-User-Id, email: X-Email }} }} }}]
"""


class Provider:
    """Strict: single-use codes, PKCE, exact redirect URI, client authentication, refresh tokens that rotate."""

    def __init__(self):
        self.key = rsa.generate_private_key(65537, 2048)
        self.codes, self.refresh_tokens, self.access_tokens = {}, {}, {}
        self.log, self.mode, self.life, self.spoil = [], "up", 3600, {}
        self.lock = threading.Lock()
        self.server = serve(self.handle)
        self.issuer = f"http://127.0.0.1:{self.server}"

    def handle(self, request, body):
        path, _, query = request.path.partition("?")
        args = dict(urllib.parse.parse_qsl(query, strict_parsing=True)) if query else {}
        self.log.append(path)
        if self.mode == "down" and path in ("/token", "/userinfo"):
            return 503, [], b"down"
        if path == "/.well-known/openid-configuration":
            ends = {
                "authorization_endpoint": "authorize",
                "token_endpoint": "token",
                "userinfo_endpoint": "userinfo",
                "end_session_endpoint": "end",
                "jwks_uri": "keys",
            }
            return answer(200, {"issuer": self.issuer} | {k: f"{self.issuer}/{v}" for k, v in ends.items()})
        if path == "/keys":
            public = RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
            return answer(200, {"keys": [public | {"kid": "k1", "use": "sig", "alg": "RS256"}]})
        if path == "/authorize":
            return self.authorize(args)
        if path == "/token":
            with self.lock:
                return self.token(request, dict(urllib.parse.parse_qsl(body.decode(), strict_parsing=True)))
        if path == "/userinfo":
            token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
            if token not in self.access_tokens:
                return answer(401, {})
            return answer(200, {"sub": self.spoil.get("userinfo", "ann"), "email": "ann@test", "iss": "evil"})
        return answer(404, {})

    def authorize(self, args):
        want = {"response_type": "code", "client_id": "shop", "code_challenge_method": "S256"}
        assert want.items() <= args.items(), args
        assert args["redirect_uri"] == self.redirect_uri and "openid" in args["scope"].split(), args
        assert len(args["state"]) >= 32 and len(args["nonce"]) >= 32 and len(args["code_challenge"]) == 43, args
        code = secrets.token_urlsafe(16)
        self.codes[code] = args
        back = urllib.parse.urlencode({"code": code, "state": args["state"], "iss": self.issuer})
        return 302, [("Location", f"{args['redirect_uri']}?{back}")], b""

    def token(self, request, form):
        basic = "Basic " + base64.b64encode(b"shop:s3cr%20et").decode()
        if request.headers.get("Authorization") != basic or request.command != "POST":
            return answer(401, {"error": "invalid_client"})
        nonce = {}
        if form["grant_type"] == "authorization_code":
            args = self.codes.pop(form["code"], None)
            challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
            if not args or args["redirect_uri"] != form["redirect_uri"] or args["code_challenge"].encode() != challenge:
                return answer(400, {"error": "invalid_grant"})
            nonce = {"nonce": args["nonce"]}
        elif self.refresh_tokens.pop(form["refresh_token"], None) is None:
            return answer(400, {"error": "invalid_grant"})
        access, refresh, now = secrets.token_urlsafe(24), secrets.token_urlsafe(24), int(time.time())
        self.access_tokens[access] = self.refresh_tokens[refresh] = True
        claims = {"iss": self.issuer, "aud": "shop", "sub": "ann", "iat": now, "exp": now + 300} | nonce | self.spoil.get("id", {})
        token = jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": "k1"})
        body = {"access_token": access, "refresh_token": refresh, "id_token": token, "token_type": "Bearer"}
        return answer(200, body | {"expires_in": self.life})


def answer(status, body):
    return status, [("Content-Type", "application/json")], json.dumps(body).encode()


def serve(handle):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, fields, text = handle(self, body)
            self.send_response(status)
            for name, value in fields:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = answer

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def main():
    cases, provider = Cases(), Provider()
    upstream = serve(lambda r, b: (200, [], json.dumps(dict(r.headers.items()) | {"path": r.path}).encode()))
    port = free_port()
    provider.redirect_uri = f"http://localhost:{port}/app/callback"
    config = CONFIG.format(upstream=upstream, issuer=provider.issuer, port=port, secret="k" * 32)
    gateway = Gateway(config)
    browser = Browser(gateway.port)

    def local(url):
        return url.replace(f"http://localhost:{port}", "")

    def login(browser, url="/app/page?x=1"):
        return browser.follow(url, local)

    cases.equal("a script is not sent to log in", browser.get("/app/api", accept="application/json")[0], 401)
    cases.equal("nor is a post", browser.get("/app/page", method="POST")[0], 401)
    status, _, body = login(browser)
    seen = json.loads(body)
    cases.equal("after the login the browser is where it wanted to go", (status, seen["path"]), (200, "/app/page?x=1"))
    cases.equal("the service knows who it is", (seen["X-User-Id"], seen["X-Email"]), ("ann", "ann@test"))
    cases.equal("it gets the access token", seen["Authorization"].removeprefix("Bearer ") in provider.access_tokens, True)
    cases.equal("and none of the gateway's cookies", seen["Cookie"], "own=1")
    cases.equal("the session lasts", browser.get("/app/api", accept="application/json")[0], 200)
    cases.equal("the login's cookie is gone", [n for n in browser.cookies if "login" in n], [])

    changed = Browser(gateway.port)
    value = browser.cookies["gw_session"]
    changed.cookies["gw_session"] = value[:-2] + ("AA" if value[-2:] != "AA" else "BB")
    cases.equal("a changed session is none", changed.get("/app/api", accept="*/*")[0], 401)

    # Attacks on the callback.
    victim = Browser(gateway.port)
    status, headers, _ = victim.get("/app/page")
    state = urllib.parse.parse_qs(urllib.parse.urlsplit(headers["Location"]).query)["state"][0]
    attacker = Browser(gateway.port)
    cases.equal("another's login", attacker.get(f"/app/callback?code=x&state={state}")[0], 401)
    cases.equal("a made-up state", victim.get(f"/app/callback?code=x&state={state[:8]}{'A' * 35}")[0], 401)
    cases.equal("a made-up code", victim.get(f"/app/callback?code=x&state={state}")[0], 401)
    cases.equal("another issuer", victim.get(f"/app/callback?code=x&state={state}&iss=http://evil.test")[0], 401)
    cases.equal("no state", victim.get("/app/callback?code=x")[0], 401)
    status, _, body = victim.get(f"/app/callback?error=access_denied%0d%0aX:1&state={state}")
    cases.equal("an error", (status, b"access_deniedX1" in body), (401, True))
    status, headers, _ = Browser(gateway.port).get("//evil.test/app")
    cases.equal("never to another site", "evil" in headers.get("Location", ""), False)

    for name, spoil in [
        ("nonce", {"id": {"nonce": "other"}}),
        ("audience", {"id": {"aud": "other"}}),
        ("issuer", {"id": {"iss": "http://evil.test"}}),
        ("expiry", {"id": {"exp": int(time.time()) - 600}}),
    ]:
        provider.spoil = spoil
        cases.equal(f"an ID token with a wrong {name}", login(Browser(gateway.port))[0], 401)
    provider.spoil = {"userinfo": "bob"}
    cases.equal("the user info of somebody else", login(Browser(gateway.port))[0], 503)
    provider.spoil = {}
    provider.mode = "down"
    cases.equal("a provider that is down", login(Browser(gateway.port))[0], 503)
    provider.mode = "up"

    # Tokens that end at once are refreshed at each request; refresh tokens are good once, so one request asks.
    provider.life = 5
    short = Browser(gateway.port)
    cases.equal("a short session", login(short)[0], 200)
    provider.life = 3600
    before, results = dict(short.cookies), []

    def with_old_session():
        one = Browser(gateway.port)
        one.cookies = dict(before)
        results.append((one.get("/app/api", accept="*/*")[0], one.cookies != before))

    threads = [threading.Thread(target=with_old_session) for _ in range(12)]
    provider.log.clear()
    [t.start() for t in threads]
    [t.join() for t in threads]
    cases.equal("all go on, with a new session each", set(results), {(200, True)})
    cases.equal("one asks", provider.log.count("/token"), 1)

    ending = Browser(gateway.port)
    provider.life = 1
    login(ending)
    provider.refresh_tokens.clear()
    time.sleep(1.1)
    cases.equal("a session that the provider has ended", ending.get("/app/api", accept="*/*")[0], 401)
    status, headers, _ = ending.get("/app/page")
    cases.equal("is renewed by logging in", (status, "/authorize?" in headers["Location"]), (302, True))
    provider.life = 3600

    status, headers, _ = browser.get("/app/logout")
    to = urllib.parse.urlsplit(headers["Location"])
    args = dict(urllib.parse.parse_qsl(to.query))
    cases.equal("the logout goes to the provider", (status, to.path, args["client_id"]), (302, "/end", "shop"))
    cases.equal("with a hint", "id_token_hint" in args and args["post_logout_redirect_uri"], f"http://localhost:{port}/")
    cases.equal("and ends the session", (browser.cookies, browser.get("/app/api", accept="*/*")[0]), ({}, 401))
    cases.equal("the gateway ends well", gateway.stop(), 0)
    cases.end()


main()
