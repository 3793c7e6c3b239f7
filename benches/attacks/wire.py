"""Bytes: frames, requests and deflated messages, as a client writes them. No sockets."""

import json
import struct
import zlib

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
# Any key but zero, with which a server might have less to do.
KEY = b"\x37\xfa\x21\x3d"
# What a sync flush ends with, and a message leaves out (RFC 7692, section 7.2.1).
TAIL = b"\0\0\xff\xff"
# A final block of nothing with fixed codes, padded to whole bytes: the end of a DEFLATE stream.
FINAL_BLOCK = b"\x03\0"


def masked(payload):
    """A payload under the key, as one number: a loop over the bytes would take seconds."""
    size = len(payload)
    key = (KEY * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def header(opcode, size, final=True, compressed=False):
    """The head of a frame with `size` bytes of payload, its key included."""
    first = final << 7 | compressed << 6 | opcode
    if size < 126:
        return struct.pack("!BB", first, 0x80 | size) + KEY
    if size < 65536:
        return struct.pack("!BBH", first, 0x80 | 126, size) + KEY
    return struct.pack("!BBQ", first, 0x80 | 127, size) + KEY


def frame(payload, opcode=BINARY, final=True, compressed=False):
    """A frame."""
    return header(opcode, len(payload), final, compressed) + masked(payload)


def deflated(payload, opcode=TEXT):
    """A message compressed as small as can be, with a window of its own."""
    return frame(deflate(payload), opcode, compressed=True)


def deflate(payload):
    """The payload of a compressed message."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def with_final_blocks(zeros, blocks):
    """A compressed message of so many zeros, after which its stream ends so many times more."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = stream.compress(bytes(zeros)) + stream.flush(zlib.Z_FINISH) + FINAL_BLOCK * blocks + b"\0"
    return frame(payload, BINARY, compressed=True)


def with_code_tables(blocks):
    """A compressed message of nothing, in so many blocks (of eight each) that each bring Huffman codes of their own."""
    bits = _code_table() * 8
    packed = bytes(sum(bit << at for at, bit in enumerate(bits[start:start + 8])) for start in range(0, len(bits), 8))
    return frame(packed * blocks + b"\0", BINARY, compressed=True)


def _code_table():
    """The bits of a block with dynamic codes and without content. The codes are as long as they may be, so that tables
    for them are large: lengths 1 to 14, and twice 15."""
    bits = []

    def put(value, count):
        bits.extend(value >> at & 1 for at in range(count))

    def put_code(symbol):
        """The lengths 1 to 15 and a run of zeros (18) have codes of four bits, which go in order, highest bit first."""
        code = [*range(1, 16), 18].index(symbol)
        bits.extend(code >> at & 1 for at in (3, 2, 1, 0))

    # A block that is not the last, with dynamic codes: 257 literals and lengths, 1 distance, 19 code lengths.
    put(0, 1), put(2, 2), put(0, 5), put(0, 5), put(15, 4)
    for symbol in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15):
        put(0 if symbol in (0, 16, 17) else 4, 3)
    # 241 zeros, then the lengths of 16 codes, the last of which is that of the end of the block; and of one distance.
    put_code(18), put(138 - 11, 7), put_code(18), put(103 - 11, 7)
    for length in (*range(1, 16), 15):
        put_code(length)
    put_code(1)
    # The end of the block: the last code of all.
    put((1 << 15) - 1, 15)
    return bits


def request(path, host="x", lines=()):
    """A request without content."""
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode()


def upgrade(path, deflate_offer=None):
    """A request for an upgrade."""
    lines = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    return request(path, lines=lines + ([f"Sec-WebSocket-Extensions: {deflate_offer}"] if deflate_offer else []))


def envelope(channel, kind, contents):
    """What a client of the chat sends, without its frame."""
    message = {"channel": channel, "message": {"type": kind, "contents": contents}}
    return json.dumps(message, separators=(",", ":")).encode()


def submit(text):
    """A message for everyone in the chat."""
    return envelope("chat", "SubmitMessage", text)


def join(room):
    """A wish to be in a room."""
    return envelope("chat-room", "JoinRoom", {"room": room})


def leave(room):
    """A wish to be there no longer."""
    return envelope("chat-room", "LeaveRoom", {"room": room})


def many_keys(count):
    """A message of the chat whose contents are an object of so many fields that nobody asks for."""
    return envelope("chat", "SubmitMessage", {f"{number:x}": 0 for number in range(count)})


def tickers(symbols):
    """A wish for prices."""
    return b"TickerRequest:" + json.dumps({"Id": "x", "Tickers": list(symbols)}, separators=(",", ":")).encode()
