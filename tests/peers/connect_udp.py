"""CONNECT-UDP (RFC 9298) by aioquic, in both roles, for the lab.

client HOST PORT NAME TARGET TARGET-PORT LOCAL-PORT
    Asks a relay for UDP to the target; what comes to the local port goes through it, and back to the last sender.
proxy HOST PORT CERTIFICATE KEY TARGET TARGET-PORT
    Is such a relay, for one target.
get HOST PORT NAME PATH
    Fetches a page and prints its status.
"""

import asyncio
import ssl
import sys

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.h3.connection import H3_ALPN, H3Connection, Setting
from aioquic.h3.events import DatagramReceived, DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ProtocolNegotiated

CONTEXT = b"\x00"
CAPSULE_DATAGRAM = 0


class Http3(H3Connection):
    """aioquic announces datagrams with WebTransport only."""

    def _get_local_settings(self):
        settings = super()._get_local_settings()
        settings[Setting.H3_DATAGRAM] = 1
        settings[Setting.ENABLE_CONNECT_PROTOCOL] = 1
        return settings


class Pipe(asyncio.DatagramProtocol):
    """A UDP socket whose datagrams go to a function."""

    def __init__(self, take):
        self.take = take
        self.transport = None
        self.peer = None

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.peer = addr
        self.take(data)

    def give(self, data):
        if self.peer:
            self.transport.sendto(data, self.peer)


class Capsules:
    """The datagrams in a stream of capsules."""

    def __init__(self):
        self.buffer = b""

    def _varint(self, at):
        if at >= len(self.buffer):
            return None
        size = 1 << (self.buffer[at] >> 6)
        if at + size > len(self.buffer):
            return None
        value = int.from_bytes(self.buffer[at : at + size], "big")
        return value & ((1 << (8 * size - 2)) - 1), at + size

    def push(self, data):
        self.buffer += data
        while True:
            kind = self._varint(0)
            length = kind and self._varint(kind[1])
            if not length or length[1] + length[0] > len(self.buffer):
                return
            value = self.buffer[length[1] : length[1] + length[0]]
            self.buffer = self.buffer[length[1] + length[0] :]
            if kind[0] == CAPSULE_DATAGRAM and value[:1] == CONTEXT:
                yield value[1:]


class Peer(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None
        self.pipe = None
        self.stream = None
        self.capsules = Capsules()
        self.status = asyncio.get_running_loop().create_future()
        self.target = None

    def quic_event_received(self, event):
        if isinstance(event, ProtocolNegotiated):
            self.http = Http3(self._quic)
        if self.http is None:
            return
        for happened in self.http.handle_event(event):
            if isinstance(happened, HeadersReceived):
                self.headers(happened)
            elif isinstance(happened, DatagramReceived) and self.pipe:
                if happened.data[:1] == CONTEXT:
                    self.pipe.give(happened.data[1:])
            elif isinstance(happened, DataReceived) and self.pipe:
                for data in self.capsules.push(happened.data):
                    self.pipe.give(data)

    def headers(self, event):
        fields = dict(event.headers)
        if b":status" in fields:
            if not self.status.done():
                self.status.set_result(int(fields[b":status"]))
        elif fields.get(b":protocol") == b"connect-udp" and self.target:
            asyncio.ensure_future(self.accept(event.stream_id))
        else:
            self.answer(event.stream_id, b"404")

    def answer(self, stream, status):
        ended = status != b"200"
        self.http.send_headers(stream, [(b":status", status), (b"capsule-protocol", b"?1")], end_stream=ended)
        self.transmit()

    async def accept(self, stream):
        self.stream = stream
        loop = asyncio.get_running_loop()
        _, self.pipe = await loop.create_datagram_endpoint(lambda: Pipe(self.send), remote_addr=self.target)
        self.pipe.give = self.pipe.transport.sendto
        self.answer(stream, b"200")
        print("accepted", flush=True)

    def send(self, data):
        # Longer than aioquic's packets, 1,280 bytes, less what is around: as a capsule.
        if len(data) <= 1200:
            self.http.send_datagram(self.stream, CONTEXT + data)
        else:
            length = (len(data) + 1) | 0x80000000
            self.http.send_data(self.stream, b"\x00" + length.to_bytes(4, "big") + CONTEXT + data, end_stream=False)
        self.transmit()

    def ask(self, headers, end_stream):
        self.stream = self._quic.get_next_available_stream_id()
        self.http.send_headers(self.stream, headers, end_stream=end_stream)
        self.transmit()


def configuration(is_client, name=None):
    made = QuicConfiguration(is_client=is_client, alpn_protocols=H3_ALPN, max_datagram_frame_size=65536)
    if is_client:
        made.verify_mode = ssl.CERT_NONE
        made.server_name = name
    return made


def request(method, name, path):
    return [
        (b":method", method),
        (b":scheme", b"https"),
        (b":authority", name.encode()),
        (b":path", path.encode()),
    ]


async def client(host, port, name, target, target_port, local_port):
    async with connect(host, int(port), configuration=configuration(True, name), create_protocol=Peer) as peer:
        path = f"/.well-known/masque/udp/{target}/{target_port}/"
        headers = request(b"CONNECT", name, path)
        headers += [(b":protocol", b"connect-udp"), (b"capsule-protocol", b"?1")]
        peer.ask(headers, False)
        status = await asyncio.wait_for(peer.status, 10)
        loop = asyncio.get_running_loop()
        _, peer.pipe = await loop.create_datagram_endpoint(
            lambda: Pipe(peer.send), local_addr=("127.0.0.1", int(local_port))
        )
        print("status", status, flush=True)
        if status == 200:
            await peer.wait_closed()


async def proxy(host, port, certificate, key, target, target_port):
    made = configuration(False)
    made.load_cert_chain(certificate, key)

    def create(*args, **kwargs):
        peer = Peer(*args, **kwargs)
        peer.target = (target, int(target_port))
        return peer

    await serve(host, int(port), configuration=made, create_protocol=create)
    print("listening", flush=True)
    await asyncio.Event().wait()


async def get(host, port, name, path):
    async with connect(host, int(port), configuration=configuration(True, name), create_protocol=Peer) as peer:
        peer.ask(request(b"GET", name, path), True)
        print("status", await asyncio.wait_for(peer.status, 10), flush=True)


if __name__ == "__main__":
    asyncio.run({"client": client, "proxy": proxy, "get": get}[sys.argv[1]](*sys.argv[2:]))
