"""AWS's own SDK against @connections: ENDPOINT CONNECTION ANOTHER SLOW, where SLOW names a client that does not read."""

import sys
import time

import boto3
from botocore.config import Config

endpoint, connection, another, slow = sys.argv[1:]
once = Config(retries={"max_attempts": 0})


def client(url):
    return boto3.client("apigatewaymanagementapi", endpoint_url=url, region_name="eu-west-1", config=once,
                        aws_access_key_id="x", aws_secret_access_key="y")


for url in (endpoint, endpoint + "/prod"):
    api = client(url)
    assert api.post_to_connection(ConnectionId=connection, Data=b"text")["ResponseMetadata"]["HTTPStatusCode"] == 200
    api.post_to_connection(ConnectionId=connection, Data=b"\xff\x00")
    told = api.get_connection(ConnectionId=connection)
    assert told["Identity"]["SourceIp"] == "127.0.0.1", told
    assert told["Identity"]["UserAgent"] == "tester/1", told
    assert told["ConnectedAt"] <= told["LastActiveAt"], told
    assert abs(told["ConnectedAt"].timestamp() - time.time()) < 300, told

api.delete_connection(ConnectionId=another)
deadline = time.time() + 30
while True:
    try:
        api.post_to_connection(ConnectionId=another, Data=b"late")
    except api.exceptions.GoneException as error:
        assert error.response["Error"]["Code"] == "GoneException"
        break
    assert time.time() < deadline, "it never goes"
for call in (api.get_connection, api.delete_connection):
    try:
        call(ConnectionId="L0SM9cOFvHcCIhw=")
        raise AssertionError("a made-up connection is there")
    except api.exceptions.GoneException:
        pass
try:
    for _ in range(1000):
        api.post_to_connection(ConnectionId=slow, Data=b"x" * 60_000)
    raise AssertionError("a client that does not read takes everything")
except api.exceptions.LimitExceededException:
    pass
try:
    api.post_to_connection(ConnectionId=connection, Data=b"x" * 70_000)
    raise AssertionError("there is a longest message")
except api.exceptions.PayloadTooLargeException:
    pass
print("good")
