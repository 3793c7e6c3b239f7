"""Just enough of WebSocket and HTTP to subscribe and to make what is published."""

import socket
import struct

UPGRADE = ("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
           "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n")
TEXT, BINARY = 0x81, 0x82


def request(path, headers=""):
    """The request of a handshake."""
    return UPGRADE.format(path=path, headers=headers).encode()


def frame(payload, opcode=TEXT):
    """A frame of a client. Its mask is zero, so that the payload stands in it as it is."""
    length = len(payload)
    head = bytes([opcode, 0x80 | length]) if length < 126 else bytes([opcode, 0xFE]) + struct.pack("!H", length)
    return head + bytes(4) + payload


def post(path, body, headers=""):
    """A POST of JSON."""
    return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def connect(port):
    """A connection to this machine."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class WebSocket:
    """A connection whose frames are read one by one, until it is handed over to the load."""

    def __init__(self, port, path, headers=""):
        self.socket, self._read = connect(port), b""
        self.socket.sendall(request(path, headers))
        head = self._until(b"\r\n\r\n")
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise OSError(f"no upgrade: {head[:200]}")

    def _until(self, end):
        while end not in self._read:
            self._more()
        found, self._read = self._read.split(end, 1)
        return found

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise OSError("the server closed the connection")
        self._read += data

    def say(self, text, opcode=TEXT):
        """Sends a message."""
        self.socket.sendall(frame(text.encode(), opcode))

    def hear(self):
        """The payload of the next frame."""
        length = self._take(2)[1] & 0x7F
        return self._take(struct.unpack("!H", self._take(2))[0] if length == 126 else length)

    def _take(self, count):
        while len(self._read) < count:
            self._more()
        taken, self._read = self._read[:count], self._read[count:]
        return taken

    def until(self, part):
        """Reads frames up to one that has this in it."""
        while part not in self.hear():
            pass
