"""Echoes through a server with Python's websockets: echo.py URL {none|deflate}. Says what was agreed on."""

import asyncio
import os
import sys

import websockets
from websockets.asyncio.client import connect


async def main(url, compression):
    deflate = "deflate" if compression == "deflate" else None
    async with connect(url, compression=deflate, max_size=None, subprotocols=["other", "echo"]) as socket:
        for size in (0, 1, 125, 126, 127, 1000, 65535, 65536, 1 << 20):
            text = ("h\u00e9llo \U0001f980 " * (size // 5 + 1))[:size]
            await socket.send(text)
            assert await socket.recv() == text, size
            for data in (os.urandom(size), bytes(size)):
                await socket.send(data)
                assert await socket.recv() == data, size
        await socket.send(["in ", "frag", "", "ments"])
        assert await socket.recv() == "in fragments"
        await asyncio.wait_for(await socket.ping(b"are you there"), 60)
        print("subprotocol:", socket.subprotocol)
        print("extensions:", [extension.name for extension in socket.protocol.extensions])
        await socket.close(4321, "enough")
        print("closed:", socket.close_code)
    try:
        async with connect(url + "/nothing-here"):
            raise AssertionError("upgraded")
    except websockets.exceptions.InvalidStatus as error:
        print("elsewhere:", error.response.status_code)


asyncio.run(main(*sys.argv[1:]))
