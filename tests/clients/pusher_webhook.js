// A backend that takes webhooks, with the webhook class of Pusher's server SDK, unchanged. Prints where it listens, and what comes.
// The first POST is answered by 503: it is to come again.
'use strict';

const http = require('http');
const path = require('path');
const Pusher = require(path.join(__dirname, '../.tools/node_modules/pusher'));

const pusher = new Pusher({ appId: '7', key: 'app-key', secret: 'app-secret', host: '127.0.0.1', useTLS: false });
let refused;

const server = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const rawBody = Buffer.concat(chunks).toString();
  const webhook = pusher.webhook({ headers: request.headers, rawBody });
  if (!webhook.isValid() || request.method !== 'POST' || request.url !== '/hook?a=b') {
    console.log('bad', request.method, request.url, webhook.isContentTypeValid(), webhook.isBodyValid());
    return response.writeHead(400).end();
  }
  if (refused === undefined) {
    refused = rawBody;
    console.log('refused', webhook.getEvents().length);
    return response.writeHead(503).end();
  }
  if (refused === rawBody) console.log('again');
  if (Math.abs(webhook.getTime() - Date.now()) > 60_000) console.log('bad time', webhook.getTime());
  for (const { name, channel, ...rest } of webhook.getEvents()) {
    console.log(name, channel, JSON.stringify(Object.entries(rest).filter(([field]) => field !== 'socket_id').map(([, value]) => value)));
    if ('socket_id' in rest && !/^\d+\.\d+$/.test(rest.socket_id)) console.log('bad socket', rest.socket_id);
  }
  response.writeHead(200).end();
});
server.listen(0, '127.0.0.1', () => console.log('listening', server.address().port));
