"""Calls as browsers make them, through the gateway to a grpcio server.

Needs grpcio; `GW_BIN` names the gateway. The client is Python's own HTTP/1.1 client, with gRPC-Web's frames by hand.
"""

import base64
import http.client
import struct

import grpc_interop
from gateway import Cases, Gateway, free_port

CONFIG = """
_format_version: "3.0"
services:
- name: echo
  url: grpc://127.0.0.1:{port}
  read_timeout: 1000
  routes:
  - name: web
    protocols: [http, https]
    paths: [/echo.Echo]
    plugins:
    - {{ name: grpc-web, config: {{ allow_origin_header: "https://shop.test" }} }}
- name: away
  url: grpc://127.0.0.1:{dead}
  retries: 0
  routes:
  - {{ name: away, protocols: [http, https], paths: [/away.Away], plugins: [{{ name: grpc-web }}] }}
"""


def frame(message):
    return b"\x00" + struct.pack(">I", len(message)) + message


def call(port, path, messages, text=False, headers=()):
    """Status, messages and trailers of a call."""
    body = b"".join(frame(m) for m in messages)
    kind = "application/grpc-web-text" if text else "application/grpc-web+proto"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    sent = {"Content-Type": kind, "X-Grpc-Web": "1", "Origin": "https://shop.test", **dict(headers)}
    connection.request("POST", path, base64.b64encode(body) if text else body, sent)
    response = connection.getresponse()
    answer = response.read()
    assert response.getheader("content-type") == kind, response.getheaders()
    answer = base64.b64decode(answer) if text else answer
    got, trailers = [], {}
    while answer:
        flag, length = answer[0], struct.unpack(">I", answer[1:5])[0]
        piece, answer = answer[5 : 5 + length], answer[5 + length :]
        assert len(piece) == length
        if flag & 0x80:
            assert not answer, "trailers come last"
            trailers = dict(line.split(": ", 1) for line in piece.decode().split("\r\n") if line)
        else:
            got.append(piece)
    return response, got, trailers


def main():
    ports = {"port": free_port(), "dead": free_port()}
    server = grpc_interop.start_server(ports["port"])
    gateway = Gateway(CONFIG.format(**ports))
    cases = Cases()
    port = gateway.port
    for text in (False, True):
        how = "text" if text else "binary"
        response, got, trailers = call(port, "/echo.Echo/Unary", [b"a\x00\xff"], text, [("x-test-a", "1")])
        cases.equal(f"unary, {how}", (response.status, got, trailers["grpc-status"]), (200, [b"a\x00\xff"], "0"))
        cases.equal(f"trailers, {how}", (trailers["x-trailing"], trailers["x-test-a"]), ("there", "1"))
        cases.equal(f"metadata, {how}", response.getheader("x-initial"), "here")
        cases.equal(f"origin, {how}", response.getheader("access-control-allow-origin"), "https://shop.test")
        _, got, trailers = call(port, "/echo.Echo/ServerStream", [b"3"], text)
        cases.equal(f"server stream, {how}", (got, trailers["grpc-status"]), ([b"0", b"1", b"2"], "0"))
        _, got, trailers = call(port, "/echo.Echo/Fail", [b""], text)
        message = "not now: 100 %25 %C3%A9chou%C3%A9%0Areally"
        cases.equal(f"fail, {how}", (got, trailers["grpc-status"], trailers["grpc-message"].upper()), ([], "9", message.upper()))
        _, got, trailers = call(port, "/echo.Echo/FailMidway", [b""], text)
        cases.equal(f"fail midway, {how}", (got, trailers["grpc-status"]), ([b"first"], "15"))
        _, got, trailers = call(port, "/echo.Echo/None", [b""], text)
        cases.equal(f"no such method, {how}", (got, trailers["grpc-status"]), ([], "12"))
    large = bytes(range(256)) * 4096
    _, got, trailers = call(port, "/echo.Echo/Unary", [large])
    cases.equal("a megabyte", (got == [large], trailers["grpc-status"]), (True, "0"))
    _, got, trailers = call(port, "/echo.Echo/Slow", [b"5"])
    cases.equal("too slow", (got, trailers["grpc-status"]), ([], "4"))
    _, got, trailers = call(port, "/away.Away/Unary", [b""])
    cases.equal("away", (got, trailers["grpc-status"]), ([], "14"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("OPTIONS", "/echo.Echo/Unary", headers={"Origin": "https://shop.test"})
    response = connection.getresponse()
    allowed = (response.getheader("access-control-allow-methods"), response.getheader("access-control-allow-headers"))
    cases.equal("preflight", (response.status, allowed), (200, ("POST", "content-type,x-grpc-web,x-user-agent")))
    response.read()
    for body, kind, want in ((b"\x00\x00\x00\x00\x05a", "application/grpc-web", 400), (b"{}", "application/json", 415)):
        connection.request("POST", "/echo.Echo/Unary", body, {"Content-Type": kind})
        response = connection.getresponse()
        cases.equal(f"bad: {kind}", response.status, want)
        response.read()
    server.stop(None)
    gateway.stop()
    cases.end()


if __name__ == "__main__":
    main()
