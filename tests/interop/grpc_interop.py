"""gRPC through the gateway must be the same as without it.

Runs every case against a grpcio server directly, then through `gw` over each combination of clear text and TLS, and
compares what the client saw. Needs grpcio; `GW_BIN` names the gateway, `TLS_CERT` and `TLS_KEY` a certificate for
`localhost`.
"""

import os
import threading
import time
from concurrent import futures

import grpc

from gateway import Cases, Gateway, free_port

SERVICE = "echo.Echo"
MIB = 1024 * 1024
OPTIONS = [("grpc.max_receive_message_length", 16 * MIB), ("grpc.max_send_message_length", 16 * MIB)]
cancelled = threading.Event()


# The server.


def reply_metadata(context):
    echoed = [(k, v) for k, v in context.invocation_metadata() if k.startswith("x-test-")]
    context.send_initial_metadata([("x-initial", "here"), ("x-initial-bin", b"\x00\xff\n")] + echoed)
    context.set_trailing_metadata([("x-trailing", "there"), ("x-trailing-bin", bytes(range(256)))] + echoed)


def unary(request, context):
    reply_metadata(context)
    return request


def server_stream(request, context):
    reply_metadata(context)
    for n in range(int(request)):
        yield b"%d" % n


def client_stream(requests, context):
    reply_metadata(context)
    count = total = 0
    for request in requests:
        count, total = count + 1, total + len(request)
    return b"%d %d" % (count, total)


def bidi(requests, context):
    reply_metadata(context)
    for request in requests:
        yield request[::-1]


def fail(request, context):
    reply_metadata(context)
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: 100 % \u00e9chou\u00e9\nreally")


def fail_midway(request, context):
    yield b"first"
    context.abort(grpc.StatusCode.DATA_LOSS, "lost")


def early(requests, context):
    """Answers without having read the client's stream."""
    next(requests)
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")


def slow(request, context):
    context.add_callback(cancelled.set)
    deadline = time.monotonic() + float(request)
    while context.is_active() and time.monotonic() < deadline:
        time.sleep(0.01)
    return b"late"


def silent_stream(request, context):
    context.add_callback(cancelled.set)
    yield b"first"
    slow(request, context)
    yield b"second"


def metadata(request, context):
    wanted = ("x-test-", "x-forwarded-", "x-real-ip", "user-agent", "content-type", "te")
    found = sorted((k, v) for k, v in context.invocation_metadata() if k.startswith(wanted))
    return repr(found).encode()


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailMidway": grpc.unary_stream_rpc_method_handler(fail_midway),
    "Early": grpc.stream_unary_rpc_method_handler(early),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
    "SilentStream": grpc.unary_stream_rpc_method_handler(silent_stream),
    "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
}


def start_server(port, tls=None, options=(), handlers=HANDLERS):
    pool = futures.ThreadPoolExecutor(max_workers=256)
    server = grpc.server(pool, options=[("grpc.so_reuseport", 0), *OPTIONS, *options])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    address = f"127.0.0.1:{port}"
    assert server.add_secure_port(address, tls) if tls else server.add_insecure_port(address)
    server.start()
    return server


# The cases: each gives what the client saw.

SENT = (("x-test-a", "1"), ("x-test-a", "2"), ("x-test-bytes-bin", bytes(range(256))))
ADDED = ("via", "x-kong-", "date", "server", "grpc-accept-encoding")


def seen(pairs):
    return sorted((k, v) for k, v in pairs or () if not k.startswith(ADDED))


def outcome(call):
    """Messages, status and metadata of a call, however it ended."""
    call, streams = call
    messages, code, details = [], grpc.StatusCode.OK, ""
    try:
        if streams:
            for message in call:
                messages.append(message)
        else:
            messages.append(call.result(60))
    except grpc.RpcError as e:
        code, details = e.code(), e.details()
    return messages, code, details, seen(call.initial_metadata()), seen(call.trailing_metadata())


def call(channel, method, request, metadata=SENT, timeout=30):
    """A running call, and whether its answer is a stream."""
    path = f"/{SERVICE}/{method}"
    if method in ("ServerStream", "FailMidway", "SilentStream"):
        return channel.unary_stream(path)(request, timeout=timeout, metadata=metadata), True
    if method in ("ClientStream", "Early"):
        return channel.stream_unary(path).future(request, timeout=timeout, metadata=metadata), False
    if method == "Bidi":
        return channel.stream_stream(path)(request, timeout=timeout, metadata=metadata), True
    return channel.unary_unary(path).future(request, timeout=timeout, metadata=metadata), False


def run(method, request, **options):
    """A case that makes one call; `request` is a function where the request is a stream."""
    return lambda channel: outcome(call(channel, method, request() if callable(request) else request, **options))


def ping_pong(channel):
    """Each message is sent only after the answer to the one before."""
    turn, got = threading.Semaphore(1), []

    def requests():
        for n in range(20):
            turn.acquire()
            yield b"ping %d" % n

    for reply in call(channel, "Bidi", requests())[0]:
        got.append(reply)
        turn.release()
    return got


def parallel(channel):
    calls = [call(channel, "Unary", b"%d" % n) for n in range(100)]
    return [outcome(c) for c in calls]


def parallel_streams(channel):
    """Streams that are all open at once: more than one connection to an upstream may carry."""
    gate = threading.Event()

    def requests(n):
        yield b"%d" % n
        gate.wait(20)
        yield b"end"

    calls = [call(channel, "Bidi", requests(n))[0] for n in range(90)]
    first = [next(c) for c in calls]
    gate.set()
    return first, [list(c) for c in calls]


def cancel(channel):
    cancelled.clear()
    running, _ = call(channel, "Slow", b"20")
    time.sleep(0.2)
    running.cancel()
    return cancelled.wait(5)


def cancel_stream(channel):
    cancelled.clear()
    running, _ = call(channel, "SilentStream", b"20")
    first = next(running)
    running.cancel()
    return first, cancelled.wait(5)


def deadline(channel):
    """The message of a missed deadline names times and is not compared."""
    cancelled.clear()
    messages, code, *_ = outcome(call(channel, "Slow", b"20", timeout=0.3))
    return messages, code, cancelled.wait(5)


def many_pieces(size, count):
    return lambda: (b"x" * size for _ in range(count))


CASES = {
    "unary": run("Unary", b"hello"),
    "unary, empty message": run("Unary", b""),
    "unary, 1 MiB": run("Unary", bytes(range(256)) * 4096),
    "unary, 8 MiB": run("Unary", bytes(range(256)) * 32768),
    "server stream": run("ServerStream", b"100"),
    "server stream, nothing": run("ServerStream", b"0"),
    "client stream": run("ClientStream", many_pieces(1000, 50)),
    "client stream, 8 MiB": run("ClientStream", many_pieces(64 * 1024, 128)),
    "client stream, nothing": run("ClientStream", many_pieces(0, 0)),
    "bidi": run("Bidi", lambda: iter([b"abc", b"", b"def"])),
    "bidi, 4 MiB": run("Bidi", many_pieces(64 * 1024, 64)),
    "bidi, by turns": ping_pong,
    "error": run("Fail", b""),
    "error after a message": run("FailMidway", b""),
    "error before the client has ended": run("Early", many_pieces(10, 100)),
    "unknown method": run("Nothing", b""),
    "long metadata": run("Unary", b"", metadata=(("x-test-long", "y" * 4000),)),
    "deadline": deadline,
    "100 parallel calls": parallel,
    "90 open streams": parallel_streams,
    "cancelled call": cancel,
    "cancelled stream": cancel_stream,
}


CONFIG = """
_format_version: "3.0"
services:
  - {{name: clear, protocol: grpc, host: 127.0.0.1, port: {clear}, retries: 1, routes: [
      {{name: clear, protocols: [grpc, grpcs], paths: [/echo.Echo], hosts: [clear.test]}}]}}
  - {{name: tls, protocol: grpcs, host: localhost, port: {tls}, routes: [
      {{name: tls, protocols: [grpc, grpcs], paths: [/echo.Echo], hosts: [tls.test]}}]}}
  - {{name: few, protocol: grpc, host: 127.0.0.1, port: {few}, routes: [
      {{name: few, protocols: [grpc, grpcs], hosts: [few.test], paths: [/]}}]}}
  - {{name: hasty, protocol: grpc, host: 127.0.0.1, port: {clear}, read_timeout: 300, routes: [
      {{name: hasty, protocols: [grpc, grpcs], hosts: [hasty.test], paths: [/]}}]}}
  - {{name: dead, protocol: grpc, host: 127.0.0.1, port: {dead}, connect_timeout: 500, routes: [
      {{name: dead, protocols: [grpc, grpcs], hosts: [dead.test], paths: [/]}}]}}
  - {{name: mortal, protocol: grpc, host: 127.0.0.1, port: {mortal}, routes: [
      {{name: mortal, protocols: [grpc, grpcs], hosts: [mortal.test], paths: [/]}}]}}
  - {{name: keyed, protocol: grpc, host: 127.0.0.1, port: {clear}, plugins: [{{name: key-auth}}], routes: [
      {{name: keyed, protocols: [grpc, grpcs], hosts: [keyed.test], paths: [/]}}]}}
  - {{name: secure, protocol: grpc, host: 127.0.0.1, port: {clear}, routes: [
      {{name: secure, protocols: [grpcs], hosts: [secure.test], paths: [/]}}]}}
"""


def channel_to(port, authority=None, root=None):
    options = list(OPTIONS) + [("grpc.enable_retries", 0)]
    if authority:
        options.append(("grpc.default_authority", authority))
    if root:
        options.append(("grpc.ssl_target_name_override", "localhost"))
        return grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(root), options)
    return grpc.insecure_channel(f"127.0.0.1:{port}", options)


def status(channel, method="Unary", request=b"x", **options):
    _, code, details, *_ = outcome(call(channel, method, request, **options))
    return code.name, details


def gateway_answers(cases, gateway, ports):
    """What the gateway itself says is said in gRPC's words."""

    def at(host):
        return channel_to(gateway.port, host)

    for name, host, method, want in [
        ("no route", "none.test", "Unary", ("NOT_FOUND", "no Route matched with those values")),
        ("no key", "keyed.test", "Unary", ("UNAUTHENTICATED", "No API key found in request")),
        ("grpcs alone", "secure.test", "Unary", ("CANCELLED", "gRPC request matched gRPCs route")),
        ("dead upstream", "dead.test", "Unary",
         ("UNAVAILABLE", "An invalid response was received from the upstream server")),
    ]:
        cases.equal(name, status(at(host), method), want)
    late = ("DEADLINE_EXCEEDED", "The upstream server is timing out")
    cases.equal("slow upstream", status(at("hasty.test"), "Slow", b"5"), late)
    messages, code, details, *_ = outcome(call(at("hasty.test"), "SilentStream", b"5"))
    cases.equal("silent upstream", (messages, code.name, details), ([b"first"], *late))
    cases.equal("again after that", status(at("hasty.test")), ("OK", ""))
    told = outcome(call(at("clear.test"), "Metadata", b""))[0][0].decode()
    for part in ("('x-forwarded-for', '127.0.0.1')", "('x-forwarded-host', 'clear.test')",
                 "('x-forwarded-proto', 'http')", "('x-real-ip', '127.0.0.1')", "grpc-python/"):
        cases.equal(f"told the upstream {part}", part in told, True)


def upstream_goes_away(cases, gateway, port):
    channel = channel_to(gateway.port, "mortal.test")
    server = start_server(port)
    cases.equal("before", status(channel), ("OK", ""))
    running, _ = call(channel, "SilentStream", b"20")
    assert next(running) == b"first"
    server.stop(None).wait()
    code = None
    try:
        next(running)
    except grpc.RpcError as e:
        code = e.code().name
    # The server's own last word, where it has one.
    cases.equal("upstream stops amid a stream", code in ("UNAVAILABLE", "CANCELLED"), True)
    cases.equal("while it is away", status(channel)[0], "UNAVAILABLE")
    server = start_server(port)
    cases.equal("when it is back", status(channel), ("OK", ""))
    server.stop(None)


PATIENT = """
_format_version: "3.0"
gateway: {{timeouts: {{header: 400, body: 400, write: 400, keep_alive: 400}}}}
services:
  - {{name: patient, protocol: grpc, host: 127.0.0.1, port: {clear}, write_timeout: 500, read_timeout: 20000, routes: [
      {{name: patient, protocols: [grpc, grpcs], hosts: [patient.test], paths: [/]}}]}}
  - {{name: two, protocol: grpc, host: two, retries: 0, routes: [
      {{name: two, protocols: [grpc, grpcs], hosts: [two.test], paths: [/]}}]}}
upstreams:
  - {{name: two, targets: [{{target: "127.0.0.1:{clear}"}}, {{target: "127.0.0.1:{broken}"}}],
      outlier_ejection: {{consecutive_errors: 2, time: 60, max_percent: 50}}}}
"""


def quiet_streams(cases, gateway):
    """A stream on which nobody says anything lives as long as the service's read timeout, whatever else is short."""
    options = [("grpc.default_authority", "patient.test"), ("grpc.keepalive_time_ms", 500),
               ("grpc.http2.max_pings_without_data", 0), ("grpc.keepalive_permit_without_calls", 1)]
    channel = grpc.insecure_channel(f"127.0.0.1:{gateway.port}", options)

    def requests():
        for n in range(3):
            yield b"%d" % n
            time.sleep(2.5)

    cases.equal("quiet stream", list(call(channel, "Bidi", requests())[0]), [b"0", b"1", b"2"])
    # Only its own probes were on the connection meanwhile, and it is the same one.
    time.sleep(2)
    cases.equal("after a quiet connection", status(channel), ("OK", ""))


def ejection(cases, gateway):
    """A server that says it is unavailable gets no more calls."""
    channel = channel_to(gateway.port, "two.test")
    codes = [status(channel)[0] for _ in range(12)]
    cases.equal("calls until the ejection", codes.count("UNAVAILABLE"), 2)
    cases.equal("calls after it", codes[6:], ["OK"] * 6)


def unavailable(request, context):
    context.abort(grpc.StatusCode.UNAVAILABLE, "not today")


def drain(cases, gateway):
    """A call that runs when the gateway is told to end still ends well."""
    running = call(channel_to(gateway.port, "clear.test"), "Slow", b"1")
    time.sleep(0.3)
    gateway.terminate()
    cases.equal("call during a drain", outcome(running)[:2], ([b"late"], grpc.StatusCode.OK))
    cases.equal("exit code", gateway.process.wait(20), 0)


def main():
    cert, key = os.environ["TLS_CERT"], os.environ["TLS_KEY"]
    with open(cert, "rb") as c, open(key, "rb") as k:
        root, private = c.read(), k.read()
    ports = {name: free_port() for name in ("clear", "tls", "few", "dead", "mortal", "broken")}
    servers = [
        start_server(ports["clear"]),
        start_server(ports["tls"], grpc.ssl_server_credentials([(private, root)])),
        start_server(ports["few"], options=[("grpc.max_concurrent_streams", 10)]),
        start_server(ports["broken"], handlers={"Unary": grpc.unary_unary_rpc_method_handler(unavailable)}),
    ]
    gateway = Gateway(CONFIG.format(**ports), cert, key)
    cases = Cases()
    direct = channel_to(ports["clear"])
    ways = {
        "clear to clear": channel_to(gateway.port, "clear.test"),
        "TLS to clear": channel_to(gateway.tls_port, "clear.test", root),
        "clear to TLS": channel_to(gateway.port, "tls.test"),
        "TLS to TLS": channel_to(gateway.tls_port, "tls.test", root),
        "few streams": channel_to(gateway.port, "few.test"),
    }
    for name, case in CASES.items():
        want = case(direct)
        for way, channel in ways.items():
            cases.run(f"{name}, {way}", lambda: cases_equal(case(channel), want))
    gateway_answers(cases, gateway, ports)
    upstream_goes_away(cases, gateway, ports["mortal"])
    patient = Gateway(PATIENT.format(**ports))
    quiet_streams(cases, patient)
    ejection(cases, patient)
    patient.stop()
    drain(cases, gateway)
    for server in servers:
        server.stop(None)
    cases.end()


def cases_equal(got, want):
    assert got == want, f"\n got {str(got)[:2000]}\nwant {str(want)[:2000]}"


if __name__ == "__main__":
    main()
