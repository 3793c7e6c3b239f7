"""Events as AWS gives them, a JSON line each, read by the models of AWS's library for Lambda functions."""

import json
import sys

from aws_lambda_powertools.utilities.parser.models import (
    APIGatewayWebSocketConnectEventModel,
    APIGatewayWebSocketDisconnectEventModel,
    APIGatewayWebSocketMessageEventModel,
)

MODELS = {
    "CONNECT": APIGatewayWebSocketConnectEventModel,
    "MESSAGE": APIGatewayWebSocketMessageEventModel,
    "DISCONNECT": APIGatewayWebSocketDisconnectEventModel,
}
for line in sys.stdin:
    kind = json.loads(line)["requestContext"]["eventType"]
    MODELS[kind].model_validate_json(line)
    print(kind)
