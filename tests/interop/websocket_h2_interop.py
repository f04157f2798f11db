"""WebSockets over HTTP/2 (RFC 8441) by libraries that others wrote, through the gateway to an upstream of HTTP/1.1.

Needs h2, wsproto and websockets; `GW_BIN` names the gateway, `TLS_CERT` and `TLS_KEY` what it serves TLS with.
"""

import asyncio
import os
import socket
import ssl
import threading

import h2.config
import h2.connection
import h2.events
import wsproto.connection
import wsproto.events
import wsproto.frame_protocol
from websockets.asyncio.server import serve

from gateway import Cases, Gateway, free_port

CONFIG = """
_format_version: "3.0"
gateway: {{websocket_over_http2: true}}
services:
  - {{name: echo, host: 127.0.0.1, port: {echo}, routes: [{{name: echo, paths: [/echo]}}]}}
"""


class Client:
    """One HTTP/2 connection, on which streams become WebSockets."""

    def __init__(self, port):
        context = ssl.create_default_context(cafile=os.environ["TLS_CERT"])
        context.set_alpn_protocols(["h2"])
        raw = socket.create_connection(("127.0.0.1", port), 10)
        self.socket = context.wrap_socket(raw, server_hostname="localhost")
        assert self.socket.selected_alpn_protocol() == "h2"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events = []
        self.flush()
        while not self.h2.remote_settings.enable_connect_protocol:
            self.turn()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def turn(self):
        data = self.socket.recv(65536)
        assert data, "the gateway closed the connection"
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            self.events.append(event)
        self.flush()

    def wait(self, stream, *kinds):
        """The next event of these kinds on a stream."""
        while True:
            for event in self.events:
                if getattr(event, "stream_id", None) == stream and isinstance(event, kinds):
                    self.events.remove(event)
                    return event
            self.turn()

    def open(self, path):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [
            (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", path),
            (":authority", "localhost"), ("sec-websocket-version", "13"),
        ])
        self.flush()
        answer = self.wait(stream, h2.events.ResponseReceived)
        return WebSocket(self, stream, dict(answer.headers)[":status"])


class WebSocket:
    def __init__(self, client, stream, status):
        self.client, self.stream, self.status = client, stream, status
        self.frames = wsproto.connection.Connection(wsproto.connection.ConnectionType.CLIENT)

    def send(self, event):
        data = self.frames.send(event)
        while data:
            room = min(self.client.h2.local_flow_control_window(self.stream), 16384)
            if room == 0:
                self.client.turn()
                continue
            self.client.h2.send_data(self.stream, data[:room])
            self.client.flush()
            data = data[room:]

    def receive(self):
        """A whole message, or how the connection was closed."""
        parts = []
        while True:
            for event in self.frames.events():
                if isinstance(event, wsproto.events.CloseConnection):
                    return event.code
                if isinstance(event, wsproto.events.Message):
                    parts.append(event.data)
                    if event.message_finished:
                        return type(event.data)().join(parts)
            event = self.client.wait(self.stream, h2.events.DataReceived)
            self.frames.receive_data(event.data)

    def echo(self, message):
        self.send(wsproto.events.Message(data=message))
        return self.receive()


async def echo(ws):
    async for message in ws:
        await ws.send(message)


def upstream(port):
    async def run():
        async with serve(echo, "127.0.0.1", port, max_size=None):
            await asyncio.Future()
    threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()


def main():
    port, cases = free_port(), Cases()
    upstream(port)
    gateway = Gateway(CONFIG.format(echo=port), os.environ["TLS_CERT"], os.environ["TLS_KEY"])
    client = Client(gateway.tls_port)
    one, two = client.open("/echo"), client.open("/echo")
    cases.equal("both are open", (one.status, two.status), ("200", "200"))
    cases.equal("text", one.echo("grüße"), "grüße")
    cases.equal("binary", two.echo(b"\0\xff"), b"\0\xff")
    large = os.urandom(500_000)
    cases.equal("more than any window", one.echo(large), large)
    one.send(wsproto.events.CloseConnection(code=4001, reason="done"))
    cases.equal("closed as asked", one.receive(), 4001)
    cases.equal("the other goes on", two.echo("still"), "still")
    cases.equal("no route", client.open("/nowhere").status, "404")
    client.socket.close()
    cases.equal("the gateway ends", gateway.stop(), 0)
    cases.end()


if __name__ == "__main__":
    main()
