"""The second backend of the demo: it publishes news every few seconds, by Centrifugo's SDK for Python.

    pip install cent && python3 news.py
"""

import itertools
import os
import time

from cent import CentError, Client, PublishRequest

SERVICE = os.environ.get("SERVICE", "127.0.0.1:9465")
EVERY = float(os.environ.get("EVERY", "8"))
NEWS = [
    "The ferry to the island leaves ten minutes late",
    "The market hall has strawberries again",
    "Lift 2 is back in service",
    "The observatory is open tonight: clear sky until midnight",
    "The library has extended its hours on Thursdays",
    "The night train to the coast runs in July",
]


def main():
    """Publishes without end. A percore that is not there yet, or is restarted, is tried again."""
    client = Client(f"http://{SERVICE}/api", os.environ.get("API_KEY", ""))
    for number, text in enumerate(itertools.cycle(NEWS), 1):
        data = {"number": number, "text": text, "at": int(time.time() * 1000)}
        try:
            result = client.publish(PublishRequest(channel="news", data=data))
            print(f"{text} (offset {result.offset})", flush=True)
        except CentError as error:
            print(f"not published: {error!r}", flush=True)
        time.sleep(EVERY)


if __name__ == "__main__":
    main()
