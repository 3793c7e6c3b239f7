"""The client of Pusher's HTTP API for Python, unchanged: pusher_api.py PORT. Prints what comes back, a line each."""

import sys

import pusher

client = pusher.Pusher("7", "app-key", "app-secret", ssl=False, host="127.0.0.1", port=int(sys.argv[1]))
print("trigger", client.trigger(["news", "other"], "greeting", {"x": 1}))
print("batch", client.trigger_batch([{"channel": "news", "name": "greeting", "data": {"x": 2}}]))
print("channels", client.channels_info())
print("channel", client.channel_info("news", ["subscription_count"]))
print("users", client.users_info("presence-room"))
