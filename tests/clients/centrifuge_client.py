"""The SDK of Centrifugo for Python, unchanged: centrifuge_client.py URL. Prints what happens, a line each."""

import asyncio
import sys

from centrifuge import CentrifugeError, Client, SubscriptionEventHandler


class Events(SubscriptionEventHandler):
    def __init__(self):
        self.queue = asyncio.Queue()

    async def on_subscribed(self, ctx):
        await self.queue.put(("subscribed", ctx))

    async def on_publication(self, ctx):
        await self.queue.put(("publication", ctx.pub))

    async def on_join(self, ctx):
        await self.queue.put(("join", ctx.info))


async def main(url):
    events = Events()
    client = Client(url)
    sub = client.new_subscription("room", events=events, recoverable=True, join_leave=True)
    await client.connect()
    await sub.subscribe()
    kind, context = await events.queue.get()
    print(kind, context.recoverable, context.stream_position.offset)
    kind, info = await events.queue.get()
    print(kind, len(info.client))
    await sub.publish({"text": "a\nb"})
    kind, publication = await events.queue.get()
    print(kind, publication.data, publication.offset)
    presence = await sub.presence()
    print("presence", len(presence.clients))
    stats = await sub.presence_stats()
    print("stats", stats.num_clients, stats.num_users)
    history = await sub.history(limit=10)
    print("history", [one.data for one in history.publications], history.offset)
    try:
        await client.rpc("method", {})
    except CentrifugeError as error:
        print("rpc", getattr(error, "code", None))
    await sub.unsubscribe()
    await client.disconnect()


asyncio.run(main(sys.argv[1]))
