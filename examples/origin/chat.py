"""An application behind `percore serve gateway`: everybody hears what anybody says. Python's standard library is all it needs.

    percore serve gateway --origin-url http://127.0.0.1:3000/
    python3 examples/origin/chat.py
"""

import http.client
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GATEWAY = os.environ.get("GATEWAY", "127.0.0.1:9465")
members, lock = {}, threading.Lock()


def tell_all(text):
    """Has the gateway send a text to everybody, in one request."""
    with lock:
        ids = list(members)
    connection = http.client.HTTPConnection(GATEWAY, timeout=5)
    message = {"ConnectionIds": ids, "Message": {"Text": text}}
    connection.request("POST", "/sr", json.dumps({"OutgoingWebSocketMessages": [message]}))
    connection.getresponse().read()
    connection.close()


class Origin(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        event = body["WebSocketEvent"]
        if event:
            self.take(event["ConnectionId"], event)
        self.send_response(204)
        self.end_headers()

    def take(self, connection, event):
        if event["ConnectionEstablished"]:
            with lock:
                members[connection] = f"guest {len(members) + 1}"
            tell_all(f"{members[connection]} is here")
        elif event["MessageReceived"]:
            tell_all(f"{members.get(connection, 'somebody')}: {event['MessageReceived']['Text']}")
        else:
            with lock:
                name = members.pop(connection, "somebody")
            tell_all(f"{name} has gone")

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer((os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "3000"))), Origin).serve_forever()
