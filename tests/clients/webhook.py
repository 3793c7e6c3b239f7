"""Signed requests, a JSON line each with headers and body, verified by the library of Standard Webhooks: SECRET."""

import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

webhook = Webhook(sys.argv[1])
for line in sys.stdin:
    request = json.loads(line)
    webhook.verify(request["body"], request["headers"])
    try:
        webhook.verify(request["body"] + " ", request["headers"])
        raise AssertionError("a changed body passes")
    except WebhookVerificationError:
        pass
    print("good")
