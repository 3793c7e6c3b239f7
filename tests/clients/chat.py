"""Takes part in a room of a chat with Python's websockets: chat.py URL ROOM. Says the lines of its input, prints what it hears."""

import asyncio
import json
import sys

from websockets.asyncio.client import connect

PRINTED = {
    "MemberList": lambda it: "here: " + " ".join(it["users"]),
    "JoinedRoom": lambda it: "joined: " + it["user"],
    "LeftRoom": lambda it: "left: " + it["user"],
    "NewMessage": lambda it: it["user"] + ": " + it["message"],
}


async def listen(socket):
    joined = False
    async for text in socket:
        message = json.loads(text)["message"]
        # The first that joins is this one.
        if message["type"] == "JoinedRoom" and not joined:
            joined = True
            continue
        print(PRINTED[message["type"]](message["contents"]), flush=True)


async def main(url, room):
    async with connect(url, max_size=None) as socket:
        extensions = [extension.name for extension in socket.protocol.extensions]
        print("compression:", "on" if extensions == ["permessage-deflate"] else "off", flush=True)

        async def say(kind, **contents):
            message = {"type": kind, "contents": {"room": room, **contents}}
            await socket.send(json.dumps({"channel": "chat-room", "message": message}))

        await say("JoinRoom")
        listening = asyncio.create_task(listen(socket))
        while line := await asyncio.to_thread(sys.stdin.readline):
            await say("SendMessage", message=line.rstrip("\n"))
        await socket.close()
        await listening


asyncio.run(main(*sys.argv[1:]))
