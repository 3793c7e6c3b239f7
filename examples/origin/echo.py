"""An application behind `percore serve gateway`: it sends back what it hears. Python's standard library is all it needs.

    percore serve gateway --origin-url http://127.0.0.1:3000/
    python3 examples/origin/echo.py
"""

import http.client
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GATEWAY = os.environ.get("GATEWAY", "127.0.0.1:9465")


def send(ids, text):
    """Has the gateway send a text to connections."""
    message = {"ConnectionIds": ids, "Message": {"Text": text}}
    connection = http.client.HTTPConnection(GATEWAY, timeout=5)
    connection.request("POST", "/sr", json.dumps({"OutgoingWebSocketMessages": [message]}))
    connection.getresponse().read()
    connection.close()


class Origin(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        event = body["WebSocketEvent"]
        if event and event["MessageReceived"]:
            send([event["ConnectionId"]], event["MessageReceived"]["Text"] or "")
        # Any status of success takes the event; another one closes the connection.
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    ThreadingHTTPServer((os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "3000"))), Origin).serve_forever()
