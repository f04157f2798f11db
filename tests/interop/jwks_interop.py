"""Tokens that PyJWT mints, for issuers that publish their keys: rotation under load, issuers that are down or slow.

Needs PyJWT with cryptography; `GW_BIN` names the gateway.
"""

import http.client
import http.server
import json
import threading
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway import Cases, Gateway


def server(handle):
    """A server on a free port; `handle(path)` gives status, fields and body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            status, fields, body = handle(self)
            self.send_response(status)
            for name, value in fields.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass

    made = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    return made


class Issuer:
    """Publishes keys, and signs with the newest one."""

    def __init__(self):
        self.keys, self.count, self.mode, self.fetches = [], 0, "up", 0
        self.lock = threading.Lock()
        self.server = server(self.handle)
        self.name = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.rotate("ES256")

    def handle(self, request):
        if self.mode == "slow":
            time.sleep(2)
        if self.mode == "down":
            return 503, {}, b"down"
        fields = {"Content-Type": "application/json", "Cache-Control": "max-age=3600"}
        if request.path == "/.well-known/openid-configuration":
            body = {"issuer": self.name, "jwks_uri": self.name + "/keys"}
            return 200, fields, json.dumps(body).encode()
        with self.lock:
            self.fetches += 1
            return 200, fields, json.dumps({"keys": [public for _, _, _, public in self.keys]}).encode()

    def rotate(self, alg):
        """A new key, at once in use; the one before stays published, as older tokens are still about."""
        self.count += 1
        kid = f"{alg}-{self.count}"
        private, kind = {
            "RS256": lambda: (rsa.generate_private_key(65537, 2048), RSAAlgorithm),
            "PS256": lambda: (rsa.generate_private_key(65537, 2048), RSAAlgorithm),
            "ES256": lambda: (ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
            "ES384": lambda: (ec.generate_private_key(ec.SECP384R1()), ECAlgorithm),
            "ES512": lambda: (ec.generate_private_key(ec.SECP521R1()), ECAlgorithm),
            "EdDSA": lambda: (ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm),
        }[alg]()
        public = kind.to_jwk(private.public_key(), as_dict=True) | {"kid": kid, "use": "sig", "alg": alg}
        with self.lock:
            self.keys = self.keys[-1:] + [(kid, alg, private, public)]

    def token(self, kid=None, key=None, headers=None, **claims):
        with self.lock:
            newest, alg, private, _ = self.keys[-1]
        now = int(time.time())
        claims = {"iss": self.name, "aud": "api", "sub": "ann", "iat": now, "exp": now + 300} | claims
        headers = {"kid": kid or newest} | (headers or {})
        return jwt.encode(claims, key or private, algorithm=alg, headers=headers)


CONFIG = """
_format_version: "3.0"
services:
- name: s
  url: http://127.0.0.1:{upstream}
  routes:
  - name: keys
    paths: [/keys]
    plugins: [{{ name: jwt, config: {{ claims_to_headers: {{ sub: X-User-Id }}, issuers: [{{ issuer: "{a}",
      jwks_uri: "{a}/keys", audiences: [api], algorithms: [{algorithms}] }}] }} }}]
  - name: discovery
    paths: [/discovery]
    plugins: [{{ name: jwt, config: {{ issuers: [{{ issuer: "{b}", discovery: true }}] }} }}]
  - name: down
    paths: [/down]
    plugins: [{{ name: jwt, config: {{ issuers: [{{ issuer: "{c}", jwks_uri: "{c}/keys" }}] }} }}]
"""

ALGORITHMS = ["RS256", "PS256", "ES256", "ES384", "ES512", "EdDSA"]


class Client:
    """One connection to the gateway."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def get(self, path, token):
        self.connection.request("GET", path, headers={"Authorization": "Bearer " + token})
        response = self.connection.getresponse()
        body = response.read()
        return response.status, dict(response.getheaders()), body


def rotation(cases, issuer, port, path):
    """Under load, with keys that are used the moment that they are published, nobody with a good token is refused."""
    end, bad, good = time.monotonic() + 6, [], [0]

    def load():
        client = Client(port)
        while time.monotonic() < end:
            status, _, body = client.get(path, issuer.token())
            good[0] += status == 200
            if status != 200:
                bad.append((status, body))

    def nonsense():
        client, n = Client(port), 0
        key = ec.generate_private_key(ec.SECP256R1())
        while time.monotonic() < end:
            # Known keys with wrong signatures.
            with issuer.lock:
                kid, alg, _, _ = issuer.keys[-1]
            if alg == "ES256":
                status, _, _ = client.get(path, issuer.token(kid=kid, key=key))
                if status != 401:
                    bad.append((status, "nonsense"))
            n += 1
            time.sleep(0.01)

    threads = [threading.Thread(target=load) for _ in range(4)] + [threading.Thread(target=nonsense)]
    [t.start() for t in threads]
    turns = 0
    while time.monotonic() < end - 0.5:
        time.sleep(0.25)
        issuer.rotate(["ES256", "RS256", "EdDSA"][turns % 3] if path == "/keys" else "ES256")
        turns += 1
    [t.join() for t in threads]
    cases.equal(f"rotation on {path}: no token is refused", bad[:3], [])
    cases.run(f"rotation on {path}: there was load", lambda: must(good[0] > 200, good))
    # A token may come while an older question is under way, whose answer may be too old for it.
    cases.run(f"rotation on {path}: few fetches", lambda: must(issuer.fetches <= 2 * turns + 4, issuer.fetches))


def must(so, what):
    assert so, what


def flood(cases, issuer, port):
    """Tokens with unknown keys are refused, and do not decide how often the issuer is asked."""
    before, client = issuer.fetches, Client(port)
    answers = {client.get("/keys", issuer.token(kid=f"unknown-{n}"))[0] for n in range(300)}
    cases.equal("unknown keys are refused", answers, {401})
    cases.run("and seldom asked for", lambda: must(issuer.fetches - before <= 6, issuer.fetches - before))
    cases.equal("good tokens are let in meanwhile", client.get("/keys", issuer.token())[0], 200)


def main():
    cases = Cases()
    upstream = server(lambda r: (200, {}, json.dumps(dict(r.headers.items())).encode()))
    a, b, c = Issuer(), Issuer(), Issuer()
    c.mode = "down"
    config = CONFIG.format(
        upstream=upstream.server_address[1], a=a.name, b=b.name, c=c.name, algorithms=", ".join(ALGORITHMS)
    )
    b.mode = "slow"
    gateway = Gateway(config)
    client = Client(gateway.port)

    status, _, body = client.get("/discovery", b.token())
    cases.equal("a request waits for the first keys of a slow issuer", status, 200)
    b.mode = "up"

    began = time.monotonic()
    status, fields, body = client.get("/down", c.token())
    cases.equal("without keys nobody is judged", (status, fields.get("Retry-After")), (503, "5"))
    cases.run("and says why", lambda: must(b"keys of the token's issuer are not available" in body, body))
    cases.run("soon", lambda: must(time.monotonic() - began < 8, time.monotonic() - began))
    cases.equal("other tokens are judged", client.get("/down", a.token())[0], 401)

    for alg in ALGORITHMS:
        a.rotate(alg)
        status, _, body = client.get("/keys", a.token())
        cases.equal(f"{alg}", status, 200)
        cases.equal(f"{alg} subject", json.loads(body).get("X-User-Id"), "ann")
        no_kid = jwt.encode(
            {"iss": a.name, "aud": "api", "exp": int(time.time()) + 60}, a.keys[-1][2], algorithm=alg
        )
        cases.equal(f"{alg} without kid", client.get("/keys", no_kid)[0], 200)

    past = int(time.time()) - 3600
    for name, token, why in [
        ("expired", a.token(exp=past), "exp: token expired"),
        ("another audience", a.token(aud="other"), "aud: not this audience"),
        ("not yet", a.token(nbf=int(time.time()) + 3600), "nbf: token not valid yet"),
        ("an ID token's kind", a.token(headers={"typ": "logout+jwt"}), "invalid typ"),
        ("another key of its own", a.token(headers={"jwk": a.keys[-1][3], "jku": a.name}, kid="x"), "No key found"),
    ]:
        status, fields, _ = client.get("/keys", token)
        cases.equal(name, status, 401)
        challenge = fields.get("WWW-Authenticate", "")
        cases.run(f"{name}: the challenge says why", lambda c=challenge, w=why: must(w in c and "invalid_token" in c, c))

    a.rotate("ES256")
    cases.equal("before the load", client.get("/keys", a.token())[0], 200)
    a.fetches, b.fetches = 0, 0
    rotation(cases, a, gateway.port, "/keys")
    rotation(cases, b, gateway.port, "/discovery")
    flood(cases, a, gateway.port)

    a.mode = "down"
    cases.equal("stale keys are served while the issuer is down", client.get("/keys", a.token())[0], 200)
    a.rotate("ES256")
    statuses = {client.get("/keys", a.token())[0] for _ in range(5)}
    cases.run("a key that cannot be asked for is no reason to refuse", lambda: must(statuses <= {503, 401}, statuses))
    a.mode = "up"
    deadline = time.monotonic() + 60
    while client.get("/keys", a.token())[0] != 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    cases.equal("and is let in once the issuer is back", client.get("/keys", a.token())[0], 200)
    cases.equal("the gateway ends well", gateway.stop(), 0)
    cases.end()


main()
