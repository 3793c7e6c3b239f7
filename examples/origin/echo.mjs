// An application behind `percore serve gateway`: it sends back what it hears. Node alone is all it needs.
//
//     percore serve gateway --origin-url http://127.0.0.1:3000/
//     node examples/origin/echo.mjs

import { createServer } from "node:http";

const gateway = process.env.GATEWAY ?? "127.0.0.1:9465";

/** Has the gateway send a text to connections. */
async function send(ids, text) {
  const message = { ConnectionIds: ids, Message: { Text: text } };
  const body = JSON.stringify({ OutgoingWebSocketMessages: [message] });
  await fetch(`http://${gateway}/sr`, { method: "POST", body });
}

async function take(body) {
  const event = JSON.parse(body).WebSocketEvent;
  if (event?.MessageReceived) {
    await send([event.ConnectionId], event.MessageReceived.Text ?? "");
  }
}

const server = createServer(async (request, response) => {
  const chunks = await request.toArray();
  try {
    await take(Buffer.concat(chunks).toString());
    // Any status of success takes the event; another one closes the connection.
    response.writeHead(204).end();
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
});
server.listen(Number(process.env.PORT ?? 3000), process.env.HOST ?? "127.0.0.1");
