"""Servers that decide about callers: token introspection, forward-auth and Lambda authorizers, over real sockets.

Needs PyJWT, as the key set's script does; `GW_BIN` names the gateway.
"""

import base64
import http.client
import http.server
import json
import threading
import time
import urllib.parse

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway import Cases, Gateway

CONFIG = """
_format_version: "3.0"
services:
- name: s
  url: http://127.0.0.1:{upstream}
  routes:
  - name: tokens
    paths: [/tokens]
    plugins: [{{ name: oauth2-introspection, config: {{ introspection_url: "http://127.0.0.1:{auth}/introspect",
      client_id: gw, client_secret: s3cret, timeout: 1500, scopes_all: [read], claims_to_headers: {{ sub: X-User-Id }},
      hide_credentials: true }} }}]
  - name: traefik
    paths: [/traefik]
    plugins: [{{ name: forward-auth, config: {{ url: "http://127.0.0.1:{auth}/verify", timeout: 1000,
      response_headers: [X-User], client_headers: [Set-Cookie], cache: {{ ttl: 60, by: [X-Key] }} }} }}]
  - name: envoy
    paths: [/envoy]
    strip_path: false
    plugins: [{{ name: forward-auth, config: {{ contract: envoy, service: auth, path: /ext, with_body: {{ max_bytes: 10 }},
      request_headers: [X-Key] }} }}]
  - name: lambda
    paths: ["~/lambda/(?<id>[0-9]+)$"]
    plugins: [{{ name: forward-auth, config: {{ contract: aws-lambda, url: "http://127.0.0.1:{auth}/lambda",
      identity_sources: [$request.header.X-Key], cache: {{ ttl: 60 }}, claims_to_headers: {{ tenant: X-Tenant }} }} }}]
  - name: told
    paths: [/told]
    plugins:
    - {{ name: key-auth }}
    - {{ name: upstream-identity, config: {{ token: {{ private_key: "{key}", issuer: "https://gw.test", audience: s }} }} }}
- name: auth
  url: http://127.0.0.1:{auth}
routes: [{{ name: keys, paths: [/.well-known/jwks.json], plugins: [{{ name: gateway-keys }}] }}]
consumers: [{{ username: ann, keyauth_credentials: [{{ key: anns-key }}] }}]
"""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_):
        pass


def serve(handle):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, fields, answer = handle(self, body)
            self.send_response(status)
            for name, value in fields:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        do_GET = do_POST = do_PUT = do_HEAD = answer

        def log_message(self, *_):
            pass

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


class Auth:
    """The server that decides."""

    def __init__(self):
        self.mode, self.asked, self.lock, self.gone = "up", [], threading.Lock(), 0
        self.port = serve(self.handle)

    def handle(self, request, body):
        with self.lock:
            self.asked.append((request.command, request.path, dict(request.headers.items()), body))
        if self.mode == "slow":
            time.sleep(3)
        if self.mode == "down":
            return 500, [], b"down"
        path = urllib.parse.urlsplit(request.path).path
        if path == "/introspect":
            return self.introspect(request, body)
        if path == "/verify":
            key = request.headers.get("X-Key")
            time.sleep(0.1)
            if key == "good":
                return 200, [("X-User", "ann"), ("Set-Cookie", "seen=1"), ("X-Admin", "1")], b""
            return 302, [("Location", "https://login.test/")], b"log in"
        if path.startswith("/ext"):
            ok = request.headers.get("X-Key") == "good" and body in (b"", b"hello")
            return (200, [], b"") if ok else (403, [("X-Why", "key")], b"no")
        if path == "/lambda":
            event = json.loads(body)
            key = event["identitySource"][0]
            if key == "simple":
                return 200, [], json.dumps({"isAuthorized": True, "context": {"tenant": event["pathParameters"]["id"]}}).encode()
            resource = event["routeArn"].rsplit("/", 1)[0] + "/1*"
            statement = {"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": resource}
            document = {"Version": "2012-10-17", "Statement": [statement]}
            return 200, [], json.dumps({"principalId": "p", "policyDocument": document}).encode()
        return 404, [], b""

    def introspect(self, request, body):
        want = "Basic " + base64.b64encode(b"gw:s3cret").decode()
        if request.headers.get("Authorization") != want or request.command != "POST":
            return 401, [], b"{}"
        token = urllib.parse.parse_qs(body.decode())["token"][0]
        time.sleep(0.1)
        answer = {"active": token.startswith("good"), "sub": token, "scope": "read" if "read" in token else "none"}
        if token == "good-read-ending":
            answer["exp"] = int(time.time()) + 2
        return 200, [("Content-Type", "application/json")], json.dumps(answer).encode()

    def count(self):
        with self.lock:
            asked, self.asked = self.asked, []
            return asked


def main():
    cases, auth = Cases(), Auth()
    upstream = serve(lambda r, b: (200, [], json.dumps(dict(r.headers.items())).encode()))
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = pem.decode().replace("\n", "\\n")
    gateway = Gateway(CONFIG.format(upstream=upstream, auth=auth.port, key=key))

    def ask(method, path, headers=None, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, response.headers, text

    def token(t):
        return ask("GET", "/tokens", {"Authorization": "Bearer " + t})

    status, _, body = token("good-read")
    cases.equal("an active token", (status, json.loads(body).get("X-User-Id")), (200, "good-read"))
    cases.equal("is kept from the service", json.loads(body).get("Authorization"), None)
    cases.equal("without the scope", token("good-other")[0], 403)
    status, fields, _ = token("bad")
    cases.equal("not active", (status, "invalid_token" in fields["WWW-Authenticate"]), (401, True))
    auth.count()
    cases.equal("remembered", (token("good-read")[0], token("bad")[0], auth.count()), (200, 401, []))

    results = []
    threads = [threading.Thread(target=lambda: results.append(token("good-read-many")[0])) for _ in range(50)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    cases.equal("of many one asks", (set(results), len(auth.count())), ({200}, 1))

    cases.equal("a token that ends soon", token("good-read-ending")[0], 200)
    time.sleep(3.2)
    auth.count()
    token("good-read-ending")
    cases.equal("is asked about again", len(auth.count()), 1)

    # A flood of distinct bad tokens displaces no good one.
    def flood(start):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
        for n in range(start, start + 40):
            connection.request("GET", "/tokens", headers={"Authorization": f"Bearer bad-{n}"})
            connection.getresponse().read()

    threads = [threading.Thread(target=flood, args=(n * 40,)) for n in range(16)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    auth.count()
    cases.equal("good tokens stay remembered", (token("good-read-many")[0], auth.count()), (200, []))

    for mode in ["down", "slow"]:
        auth.mode = mode
        began = time.monotonic()
        status, fields, _ = token("good-read-" + mode)
        cases.equal(f"{mode}: 503 and not 401", (status, fields["Retry-After"]), (503, "1"))
        cases.equal(f"{mode}: in time", time.monotonic() - began < 2.5, True)
        cases.equal(f"{mode}: what is known stays known", token("good-read")[0], 200)
        cases.equal(f"{mode}: forward-auth fails closed", ask("GET", "/traefik", {"X-Key": mode})[0] in (500, 503), True)
        auth.mode = "up"
    time.sleep(1.1)

    status, fields, body = ask("POST", "/traefik/x?y", {"X-Key": "good", "X-User": "forged", "X-Admin": "forged"}, b"hi")
    seen = json.loads(body)
    cases.equal("consent", (status, seen["X-User"], seen["X-Admin"], fields["Set-Cookie"]), (200, "ann", "forged", "seen=1"))
    method, path, headers, body = auth.count()[-1]
    said = [headers.get("X-Forwarded-" + n) for n in ("Method", "Uri", "Proto", "For")]
    cases.equal("the question", (method, path, body, said), ("GET", "/verify", b"", ["POST", "/traefik/x?y", "http", "127.0.0.1"]))
    status, fields, body = ask("GET", "/traefik", {"X-Key": "bad"})
    cases.equal("refusal", (status, fields["Location"], body), (302, "https://login.test/", b"log in"))
    results.clear()
    threads = [
        threading.Thread(target=lambda: results.append(ask("GET", "/traefik/many", {"X-Key": "good"})[0])) for _ in range(30)
    ]
    auth.count()
    [t.start() for t in threads]
    [t.join() for t in threads]
    cases.equal("of many one asks, too", (set(results), len(auth.count())), ({200}, 1))

    cases.equal("envoy with a body", ask("PUT", "/envoy/a?b", {"X-Key": "good"}, b"hello")[0], 200)
    method, path, headers, body = auth.count()[-1]
    want = ("PUT", "/ext/envoy/a?b", b"hello", f"127.0.0.1:{gateway.port}")
    cases.equal("envoy's question", (method, path, body, headers["Host"]), want)
    status, fields, body = ask("GET", "/envoy", {"X-Key": "bad"})
    cases.equal("envoy refuses", (status, fields["X-Why"], body), (403, "key", b"no"))
    cases.equal("envoy with too much", ask("PUT", "/envoy", {"X-Key": "good"}, b"x" * 11)[0], 413)

    status, _, body = ask("GET", "/lambda/7", {"X-Key": "simple", "X-Tenant": "forged"})
    cases.equal("lambda, simple", (status, json.loads(body)["X-Tenant"]), (200, "7"))
    auth.count()
    cases.equal("lambda, policy", [ask("GET", f"/lambda/{n}", {"X-Key": "iam"})[0] for n in (1, 12, 2)], [200, 200, 403])
    cases.equal("one answer for all of them", len(auth.count()), 1)
    cases.equal("lambda, nobody", (ask("GET", "/lambda/7")[0], auth.count()), (401, []))

    # A service verifies the gateway's token by the published keys alone.
    keys = jwt.PyJWKClient(f"http://127.0.0.1:{gateway.port}/.well-known/jwks.json")
    _, _, body = ask("GET", "/told", {"apikey": "anns-key", "X-Gateway-Token": "forged"})
    told = json.loads(body)["X-Gateway-Token"]
    claims = jwt.decode(
        told, keys.get_signing_key_from_jwt(told).key, algorithms=["ES256"], audience="s", issuer="https://gw.test"
    )
    cases.equal("the service knows the caller", (claims["sub"], claims["consumer_username"]), ("ann", "ann"))
    _, fields, body = ask("GET", "/.well-known/jwks.json")
    cases.equal("no private part is published", ('"d"' in body.decode(), fields["Content-Type"]), (False, "application/jwk-set+json"))
    cases.equal("keys are only read", ask("POST", "/.well-known/jwks.json")[0], 405)

    # A client that goes away takes its question with it.
    auth.mode = "slow"
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    connection.request("GET", "/tokens", headers={"Authorization": "Bearer good-read-gone"})
    time.sleep(0.3)
    connection.close()
    time.sleep(0.1)
    auth.mode = "up"
    cases.equal("the next one asks", token("good-read-gone")[0], 200)
    cases.equal("the gateway ends well", gateway.stop(), 0)
    cases.end()


main()
