"""JSON calls through the gateway to a grpcio server whose messages protobuf's own library makes.

Needs grpcio and grpcio-tools; `GW_BIN` names the gateway.
"""

import http.client
import importlib
import json
import pathlib
import struct
import sys
import tempfile
from concurrent import futures

import grpc
from google.protobuf import json_format
from grpc_tools import protoc

from gateway import Cases, Gateway, free_port

HERE = pathlib.Path(__file__).parent
CONFIG = """
_format_version: "3.0"
services:
- name: library
  url: grpc://127.0.0.1:{port}
  read_timeout: 3000
  routes:
  - name: json
    protocols: [http, https]
    paths: [/v1]
    plugins:
    - {{ name: grpc-gateway, config: {{ proto: {proto} }} }}
  - name: strict
    protocols: [http, https]
    paths: [/v1]
    headers: {{ x-strict: ["yes"] }}
    plugins:
    - {{ name: grpc-gateway, config: {{ proto: {proto}, unknown: reject, defaults: false, names: proto }} }}
- name: web
  url: grpc://127.0.0.1:{port}
  routes:
  - name: web
    protocols: [http, https]
    paths: [/library.Library]
    plugins: [{{ name: grpc-web, config: {{ proto: {proto} }} }}]
- name: away
  url: grpc://127.0.0.1:{dead}
  retries: 0
  routes:
  - name: away
    protocols: [http, https]
    headers: {{ x-away: ["yes"] }}
    paths: [/v1]
    plugins: [{{ name: grpc-gateway, config: {{ proto: {proto} }} }}]
"""
HTTP = 'syntax = "proto3"; package google.api; message HttpRule { string get = 2; string put = 3; string post = 4; string delete = 5; string patch = 6; string body = 7; repeated HttpRule additional_bindings = 11; }'
ANNOTATIONS = 'syntax = "proto3"; package google.api; import "google/api/http.proto"; import "google/protobuf/descriptor.proto"; extend google.protobuf.MethodOptions { HttpRule http = 72295728; }'


def compiled():
    """The module of `library.proto`, as protoc makes it."""
    out = pathlib.Path(tempfile.mkdtemp(prefix="gw-proto-"))
    api = out / "include/google/api"
    api.mkdir(parents=True)
    (api / "http.proto").write_text(HTTP)
    (api / "annotations.proto").write_text(ANNOTATIONS)
    well_known = pathlib.Path(protoc.__file__).parent / "_proto"
    include = [f"-I{HERE}", f"-I{out / 'include'}", f"-I{well_known}"]
    files = ["library.proto", "google/api/http.proto", "google/api/annotations.proto"]
    assert protoc.main(["protoc", *include, f"--python_out={out}", *files]) == 0
    # `google` is a package of its own already, so the rules' module is not looked for there.
    sys.path.insert(0, str(out))
    import google

    google.__path__.append(str(out / "google"))
    return importlib.import_module("library_pb2")


pb = compiled()


def get(request, context):
    context.send_initial_metadata([("x-initial", "here")])
    return pb.Book(name=request.name, tags=request.tags, kind=request.kind)


def create(request, context):
    book = request.book
    book.name = f"{request.parent}/books/{book.name}{'?' if request.dry_run else ''}"
    return book


def update(request, context):
    request.book.tags.extend(request.mask.paths)
    return request.book


def watch(request, context):
    for n in range(request.count):
        yield pb.Book(name=str(n))
    if request.fail_with:
        context.abort(grpc.StatusCode.DATA_LOSS, "broken off")


def load(requests, context):
    return pb.WatchRequest(count=sum(1 for _ in requests))


def fail(request, context):
    code = next(c for c in grpc.StatusCode if c.value[0] == request.code)
    context.abort(code, "it \u00e9chou\u00e9 100%")


def start(port):
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler

    def handler(make, function, request):
        return make(function, request.FromString, lambda m: m.SerializeToString())

    handlers = {
        "GetBook": handler(unary, get, pb.GetBookRequest),
        "DeleteBook": handler(unary, get, pb.GetBookRequest),
        "CreateBook": handler(unary, create, pb.CreateBookRequest),
        "UpdateBook": handler(unary, update, pb.UpdateBookRequest),
        "WatchBooks": handler(stream, watch, pb.WatchRequest),
        "LoadBooks": handler(grpc.stream_unary_rpc_method_handler, load, pb.Book),
        "Fail": handler(unary, fail, pb.FailRequest),
    }
    server = grpc.server(futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("library.Library", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


def ask(port, method, path, body=None, headers=()):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    if isinstance(body, (dict, list)):
        body = json.dumps(body)
    sent = {"Content-Type": "application/json", **dict(headers)} if body is not None else dict(headers)
    connection.request(method, path, body, sent)
    response = connection.getresponse()
    return response, response.read()


def main():
    ports = {"port": free_port(), "dead": free_port()}
    server = start(ports["port"])
    gateway = Gateway(CONFIG.format(proto=HERE / "library.proto", **ports))
    port, cases = gateway.port, Cases()

    def book(case, got, **want):
        """The answer must be what protobuf's own library makes of the message."""
        response, body = got
        message = pb.Book(**want)
        by_library = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
        cases.equal(case, (response.status, json.loads(body)), (200, by_library))

    got = ask(port, "GET", "/v1/shelves/1/books/2?tags=a&tags=b%20c&kind=NOVEL&utm_source=x")
    book("get", got, name="shelves/1/books/2", tags=["a", "b c"], kind=pb.NOVEL)
    cases.equal("metadata", got[0].getheader("x-initial"), "here")
    cases.equal("type", got[0].getheader("content-type"), "application/json; charset=utf-8")
    book("another binding", ask(port, "GET", "/v1/books/a%2Fb"), name="a/b")
    book("delete", ask(port, "DELETE", "/v1/shelves/1/books/2"), name="shelves/1/books/2")
    whole = pb.Book(name="n", kind=pb.NOVEL, copies_sold=2**53 + 1, cover=b"\x00\xff\xfe", tags=["x"], marks={"a": 0.1})
    whole.added.FromJsonString("2020-01-02T03:04:05.678Z")
    want = pb.Book()
    want.CopyFrom(whole)
    want.name = "shelves/3/books/n?"
    response, body = ask(port, "POST", "/v1/shelves/3/books?dryRun=true", json_format.MessageToDict(whole))
    cases.equal("create", (response.status, json_format.Parse(body, pb.Book())), (200, want))
    body = {"book": {"copies_sold": "7", "name": "other"}, "mask": "copiesSold,tags"}
    got = ask(port, "PATCH", "/v1/shelves/3/books/4", body)
    book("patch", got, name="shelves/3/books/4", copies_sold=7, tags=["copies_sold", "tags"])

    response, body = ask(port, "GET", "/v1/books:watch?count=3", headers={"x-strict": "yes"})
    lines = [json.loads(line) for line in body.splitlines()]
    cases.equal("stream", (response.status, lines), (200, [{"name": "0"}, {"name": "1"}, {"name": "2"}]))
    cases.equal("stream's type", response.getheader("content-type"), "application/x-ndjson")
    _, body = ask(port, "GET", "/v1/books:watch?count=1&fail_with=15", headers={"x-strict": "yes"})
    lines = [json.loads(line) for line in body.splitlines()]
    cases.equal("stream that fails", (lines[0], lines[1]["error"]["message"]), ({"name": "0"}, "broken off"))
    response, body = ask(port, "POST", "/v1/books:load", '{"name":"a"}\n{"name":"b"}\n', {"Content-Type": "application/x-ndjson"})
    cases.equal("load", (response.status, json.loads(body)["count"]), (200, 2))
    response, body = ask(port, "GET", "/v1/shelves/1/books/2?kind=1", headers={"x-strict": "yes"})
    cases.equal("names and defaults", json.loads(body), {"name": "shelves/1/books/2", "kind": "NOVEL"})

    table = {1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 500, 13: 500, 14: 503, 15: 500, 16: 401}
    for code, status in table.items():
        response, body = ask(port, "GET", f"/v1/fail/{code}")
        want = {"code": code, "message": "it \u00e9chou\u00e9 100%", "details": []}
        cases.equal(f"code {code}", (response.status, json.loads(body)), (status, want))
    for name, (status, method, path, body, headers) in {
        "no such path": (404, "GET", "/v1/nothing", None, {}),
        "no such method": (405, "PUT", "/v1/books/x", None, {}),
        "not JSON": (400, "POST", "/v1/shelves/3/books", "{", {}),
        "another type": (415, "POST", "/v1/shelves/3/books", "<a/>", {"Content-Type": "text/xml"}),
        "wrong number": (400, "GET", "/v1/fail/x", None, {}),
        "wrong enum": (400, "GET", "/v1/books/x?kind=NOPE", None, {}),
        "unknown argument": (400, "GET", "/v1/books/x?nope=1", None, {"x-strict": "yes"}),
        "unknown member": (400, "POST", "/v1/shelves/3/books", {"nope": 1}, {"x-strict": "yes"}),
        "unknown member, ignored": (200, "POST", "/v1/shelves/3/books", {"nope": 1}, {}),
        "away": (503, "GET", "/v1/books/x", None, {"x-away": "yes"}),
    }.items():
        response, _ = ask(port, method, path, body, headers)
        cases.equal(name, response.status, status)
    def web(path, *messages):
        """The frames of a gRPC-Web call in JSON: flags and contents."""
        body = b"".join(b"\0" + struct.pack(">I", len(m)) + m for m in messages)
        kind = "application/grpc-web+json"
        response, answer = ask(port, "POST", path, body, {"Content-Type": kind})
        assert response.getheader("content-type") == kind, response.getheaders()
        frames = []
        while answer:
            length = struct.unpack(">I", answer[1:5])[0]
            frames.append((answer[0], answer[5 : 5 + length]))
            answer = answer[5 + length :]
        return frames

    message, end = web("/library.Library/GetBook", b'{"name":"x","kind":"NOVEL"}')
    cases.equal("JSON in frames", (json.loads(message[1])["name"], json.loads(message[1])["kind"]), ("x", "NOVEL"))
    cases.equal("its end", (end[0], b"grpc-status: 0\r\n" in end[1]), (0x80, True))
    frames = web("/library.Library/WatchBooks", b'{"count":3}')
    cases.equal("a stream in frames", [json.loads(m)["name"] for flag, m in frames if flag == 0], ["0", "1", "2"])
    for name, path, message, status in (
        ("no such method", "/library.Library/Nope", b"{}", 12),
        ("no such message", "/library.Library/GetBook", b'{"name":1}', 3),
    ):
        frames = web(path, message)
        cases.equal(f"frames: {name}", f"grpc-status: {status}\r\n".encode() in frames[-1][1], True)
    server.stop(None)
    gateway.stop()
    cases.end()


if __name__ == "__main__":
    main()
