"""WebSockets through the gateway must be the same as without it.

Needs websockets; `GW_BIN` names the gateway.
"""

import asyncio
import base64
import os
import random

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway import Cases, Gateway, free_port

MIB = 1024 * 1024

CONFIG = """
_format_version: "3.0"
services:
  - {{name: echo, host: 127.0.0.1, port: {echo}, routes: [{{name: echo, paths: [/echo]}}]}}
  - {{name: raw, host: 127.0.0.1, port: {raw}, routes: [{{name: raw, paths: [/raw]}}]}}
  - {{name: keyed, host: 127.0.0.1, port: {echo}, plugins: [{{name: key-auth}}], routes: [
      {{name: keyed, paths: [/keyed]}}]}}
consumers: [{{username: ann, keyauth_credentials: [{{key: ann-key}}]}}]
"""


async def echo(socket):
    """Echoes; a few words are orders."""
    try:
        async for message in socket:
            if message == "close 4001":
                await socket.close(4001, "as asked")
            elif message == "path":
                await socket.send(socket.request.path)
            elif message == "break":
                socket.transport.abort()
            elif message == "subprotocol":
                await socket.send(str(socket.subprotocol))
            else:
                await socket.send(message)
    except ConnectionClosed:
        pass


def choose(_, offered):
    return "b.test" if "b.test" in offered else None


async def said(url, *messages, **options):
    """What comes back, and how the connection ends."""
    got = []
    async with connect(url, max_size=None, **options) as socket:
        for message in messages:
            try:
                await socket.send(message)
                got.append(await asyncio.wait_for(socket.recv(), 20))
            except ConnectionClosed as e:
                frame = e.rcvd
                return got, frame and (frame.code, frame.reason)
        await socket.close(1000, "bye")
        return got, (socket.close_code, socket.close_reason)


async def pings(url):
    async with connect(url) as socket:
        for payload in (b"", b"x" * 125):
            await asyncio.wait_for(await socket.ping(payload), 5)
        await socket.send("after")
        return await socket.recv()


async def flood(url):
    """Both directions full at once."""
    messages = [random.Random(n).randbytes(100_000) for n in range(100)]
    async with connect(url, max_size=None) as socket:
        async def send():
            for message in messages:
                await socket.send(message)

        sending = asyncio.create_task(send())
        got = [await asyncio.wait_for(socket.recv(), 20) for _ in messages]
        await sending
        return got == messages


async def fragments(url):
    async with connect(url) as socket:
        await socket.send(["one ", "two ", "three"])
        return await socket.recv()


async def many(url):
    async def one(n):
        return await said(url, f"{n}")

    return await asyncio.gather(*(one(n) for n in range(50)))


CASES = {
    "text": lambda url: said(url, "hello", "", "\u00e9\u4e16\U0001f600"),
    "binary": lambda url: said(url, b"", bytes(range(256))),
    "4 MiB": lambda url: said(url, random.Random(1).randbytes(4 * MIB)),
    "4 MiB, not compressed": lambda url: said(url, b"z" * 4 * MIB, compression=None),
    "ping": pings,
    "fragments": fragments,
    "close code": lambda url: said(url, "close 4001"),
    "broken off": lambda url: said(url, "one", "break"),
    "subprotocol": lambda url: said(url, "subprotocol", subprotocols=["a.test", "b.test"]),
    "both ways at once": flood,
    "50 at once": many,
}

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: x.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
)


async def raw_server(reader, writer):
    """Takes any handshake, then waits for the client's end and answers it: a half-closed connection."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Accept: x\r\n\r\nfirst"
    )
    rest = await reader.read()
    writer.write(b"got " + rest)
    await writer.drain()
    writer.close()


async def half_closed(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(os.urandom(16)).decode()
    # What a client sends with its handshake goes to the upstream, too.
    writer.write(HANDSHAKE.format(path="/raw", key=key).encode() + b"early ")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.write(b"late")
    writer.write_eof()
    rest = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return head.split(b"\r\n")[0], rest


async def refused(url, **options):
    try:
        async with connect(url, **options):
            return 101
    except InvalidStatus as e:
        return e.response.status_code


async def drain(cases, gateway, url):
    async with connect(url) as socket:
        await socket.send("before")
        cases.equal("before the drain", await socket.recv(), "before")
        gateway.terminate()
        await asyncio.sleep(0.3)
        await socket.send("during")
        cases.equal("during the drain", await socket.recv(), "during")
        began = asyncio.get_running_loop().time()
        await asyncio.wait_for(socket.wait_closed(), 20)
        took = asyncio.get_running_loop().time() - began
        cases.equal("tunnel ends with the drain", took < 4, True)
    code = await asyncio.to_thread(gateway.process.wait, 20)
    cases.equal("exit code", code, 0)


async def main():
    ports = {"echo": free_port(), "raw": free_port()}
    cases = Cases()
    servers = [
        await serve(echo, "127.0.0.1", ports["echo"], max_size=None, select_subprotocol=choose),
        await asyncio.start_server(raw_server, "127.0.0.1", ports["raw"]),
    ]
    gateway = Gateway(CONFIG.format(**ports) + "gateway: {drain: 3}\n")
    direct, through = f"ws://127.0.0.1:{ports['echo']}/", f"ws://127.0.0.1:{gateway.port}/echo/"
    for name, case in CASES.items():
        want = await asyncio.wait_for(case(direct), 30)
        cases.equal(name, await asyncio.wait_for(case(through), 30), want)
    cases.equal("path", await said(through + "a?b=c", "path"), (["/a?b=c"], (1000, "bye")))
    keyed = f"ws://127.0.0.1:{gateway.port}/keyed"
    cases.equal("no key", await refused(keyed), 401)
    cases.equal("key", await refused(keyed, additional_headers={"apikey": "ann-key"}), 101)
    want = (b"HTTP/1.1 101 Switching Protocols", b"firstgot early late")
    cases.equal("half-closed", await half_closed(gateway.port), want)
    await drain(cases, gateway, through)
    for server in servers:
        server.close()
    cases.end()


if __name__ == "__main__":
    asyncio.run(main())
