// AWS's own SDK for JavaScript against @connections: FOLDER ENDPOINT CONNECTION ANOTHER SLOW, where FOLDER has the package and SLOW
// names a client that does not read.
"use strict";

const assert = require("node:assert");
const { createRequire } = require("node:module");

const [folder, endpoint, connection, another, slow] = process.argv.slice(2);
const sdk = createRequire(`${folder}/`)("@aws-sdk/client-apigatewaymanagementapi");
const { ApiGatewayManagementApiClient, DeleteConnectionCommand, GetConnectionCommand, PostToConnectionCommand } = sdk;

function client(url) {
  const credentials = { accessKeyId: "AKIDTEST", secretAccessKey: "the secret of the tests" };
  return new ApiGatewayManagementApiClient({ endpoint: url, region: "eu-west-1", credentials, maxAttempts: 1 });
}

const post = (api, id, data) => api.send(new PostToConnectionCommand({ ConnectionId: id, Data: data }));

async function main() {
  for (const url of [endpoint, `${endpoint}/prod`]) {
    const api = client(url);
    assert.equal((await post(api, connection, "text"))["$metadata"].httpStatusCode, 200);
    await post(api, connection, Buffer.from([0xff, 0]));
    const told = await api.send(new GetConnectionCommand({ ConnectionId: connection }));
    assert.equal(told.Identity.SourceIp, "127.0.0.1");
    assert.equal(told.Identity.UserAgent, "tester/1");
    assert(told.ConnectedAt <= told.LastActiveAt && Math.abs(told.ConnectedAt - Date.now()) < 300_000);
  }
  const api = client(endpoint);
  assert.equal((await api.send(new DeleteConnectionCommand({ ConnectionId: another })))["$metadata"].httpStatusCode, 204);
  const deadline = Date.now() + 30_000;
  for (;;) {
    try {
      await post(api, another, "late");
    } catch (error) {
      assert(error instanceof sdk.GoneException, error);
      break;
    }
    assert(Date.now() < deadline, "it never goes");
  }
  const made = { ConnectionId: "L0SM9cOFvHcCIhw=" };
  await assert.rejects(api.send(new GetConnectionCommand(made)), sdk.GoneException);
  await assert.rejects(api.send(new DeleteConnectionCommand(made)), sdk.GoneException);
  const flood = async () => {
    for (let n = 0; n < 1000; n += 1) await post(api, slow, Buffer.alloc(60_000, "x"));
  };
  await assert.rejects(flood(), sdk.LimitExceededException);
  await assert.rejects(post(api, connection, Buffer.alloc(70_000, "x")), sdk.PayloadTooLargeException);
  console.log("good");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
