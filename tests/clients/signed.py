"""Signatures of AWS's SDK: ENDPOINT CONNECTION KEY SECRET, where the gateway knows that key."""

import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint, connection, key, secret = sys.argv[1:]
once = Config(retries={"max_attempts": 0})


def client(url, key, secret, token=None, region="eu-west-1"):
    return boto3.client("apigatewaymanagementapi", endpoint_url=url, region_name=region, config=once,
                        aws_access_key_id=key, aws_secret_access_key=secret, aws_session_token=token)


for url in (endpoint, endpoint + "/prod", endpoint + "/a%20b/c"):
    for token, region in ((None, "eu-west-1"), ("a token", "us-east-2")):
        api = client(url, key, secret, token, region)
        api.post_to_connection(ConnectionId=connection, Data="grün".encode())
        assert api.get_connection(ConnectionId=connection)["Identity"]["SourceIp"] == "127.0.0.1"
        try:
            api.delete_connection(ConnectionId="L0SM9cOFvHcCIhw=")
            raise AssertionError("a made-up connection is there")
        except api.exceptions.GoneException:
            pass
for wrong, code in (
    (client(endpoint, key, secret + "x"), "InvalidSignatureException"),
    (client(endpoint, "AKIDANOTHER", secret), "UnrecognizedClientException"),
):
    for call, arguments in ((wrong.get_connection, {}), (wrong.delete_connection, {}), (wrong.post_to_connection, {"Data": b"x"})):
        try:
            call(ConnectionId=connection, **arguments)
            raise AssertionError(f"{code} is let in")
        except ClientError as error:
            assert error.response["Error"]["Code"] == code, error.response
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 403, error.response
print("good")
