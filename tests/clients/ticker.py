"""Asks a ticker feed with Python's websockets: ticker.py URL. Says what came."""

import asyncio
import json
import sys

from websockets.asyncio.client import connect


async def main(url):
    async with connect(url) as socket:
        say = lambda name, value: socket.send(f"{name}:{json.dumps(value)}")
        await say("TickerRequest", {"Id": "python", "Tickers": ["SPY", "NEW.PY", "AAPL"]})
        changes = pings = 0
        prices = {}
        answered = False
        while not answered:
            name, _, value = (await socket.recv()).partition(":")
            value = json.loads(value)
            if name == "TickerChange":
                changes += 1
                prices |= {change["Symbol"]: change["Price"] for change in value["Changes"]}
                assert all(change["Price"] > 0 and change["UpdateTime"] > 1_700_000_000 for change in value["Changes"])
            elif name == "Ping":
                pings += 1
                assert value["Sequence"] == pings, value
                await say("Pong", value)
                if pings == 2:
                    # From now on it is never asked again.
                    await say("Ping", {"Sequence": 7, "Seconds": 8, "Nanos": 9})
            else:
                assert (name, value) == ("Pong", {"Sequence": 7, "Seconds": 8, "Nanos": 9}), (name, value)
                answered = True
        assert changes >= 3, changes
        print("symbols:", ", ".join(sorted(prices)))
    print("closed:", socket.close_code)


asyncio.run(main(*sys.argv[1:]))
