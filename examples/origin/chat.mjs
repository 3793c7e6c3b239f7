// An application behind `percore serve gateway`: everybody hears what anybody says. Node alone is all it needs.
//
//     percore serve gateway --origin-url http://127.0.0.1:3000/
//     node examples/origin/chat.mjs

import { createServer } from "node:http";

const gateway = process.env.GATEWAY ?? "127.0.0.1:9465";
const members = new Map();

/** Has the gateway send a text to everybody, in one request. */
async function tellAll(text) {
  const message = { ConnectionIds: [...members.keys()], Message: { Text: text } };
  const body = JSON.stringify({ OutgoingWebSocketMessages: [message] });
  await fetch(`http://${gateway}/sr`, { method: "POST", body });
}

async function take(body) {
  const event = JSON.parse(body).WebSocketEvent;
  if (!event) return;
  const id = event.ConnectionId;
  if (event.ConnectionEstablished) {
    members.set(id, `guest ${members.size + 1}`);
    await tellAll(`${members.get(id)} is here`);
  } else if (event.MessageReceived) {
    await tellAll(`${members.get(id) ?? "somebody"}: ${event.MessageReceived.Text}`);
  } else {
    const name = members.get(id) ?? "somebody";
    members.delete(id);
    await tellAll(`${name} has gone`);
  }
}

const server = createServer(async (request, response) => {
  const chunks = await request.toArray();
  try {
    await take(Buffer.concat(chunks).toString());
    response.writeHead(204).end();
  } catch (error) {
    response.writeHead(500).end(String(error));
  }
});
server.listen(Number(process.env.PORT ?? 3000), process.env.HOST ?? "127.0.0.1");
