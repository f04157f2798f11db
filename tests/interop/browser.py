"""A browser that is as careful with cookies as the real ones."""

import http.client
import http.cookies
import urllib.parse


class Browser:
    """Keeps cookies of the gateway, and follows redirects when it is told to."""

    def __init__(self, port):
        self.port, self.cookies = port, {}

    def get(self, url, accept="text/html", method="GET"):
        parts = urllib.parse.urlsplit(url)
        port = parts.port or self.port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {"Accept": accept, "Cookie": "; ".join(f"{n}={v}" for n, v in (self.cookies | {"own": "1"}).items())}
        target = parts.path + ("?" + parts.query if parts.query else "")
        connection.request(method, target, headers=headers if port == self.port else {"Accept": accept})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        for line in response.headers.get_all("Set-Cookie") or []:
            for name, morsel in http.cookies.SimpleCookie(line).items():
                assert morsel["httponly"] and morsel["samesite"] == "Lax" and morsel["path"] == "/", line
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return response.status, response.headers, body

    def follow(self, url, local=lambda url: url):
        """Follows redirects; `local` tells where a URL really is."""
        for _ in range(8):
            status, headers, body = self.get(local(url))
            if status != 302:
                return status, headers, body
            url = headers["Location"]
        raise AssertionError("in circles")
