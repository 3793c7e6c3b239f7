// The application of the demo: it serves the page, says who its users are, and publishes what they write, by Pusher's SDK.
//
//     percore serve channels --config channels.toml --jwt-secret-file demo.secret --origin http://localhost:3000
//     npm install && node backend.js
'use strict';

const { createHmac, randomUUID, timingSafeEqual } = require('node:crypto');
const { readFileSync } = require('node:fs');
const { createServer } = require('node:http');
const path = require('node:path');
const Pusher = require('pusher');

const { HOST = '127.0.0.1', PORT = '3000', SERVICE = '127.0.0.1:9465' } = process.env;
// Where browsers reach percore; empty where that is behind the same address as this page.
const HUB = process.env.HUB ?? 'ws://localhost:8000/connection/websocket';
const TOKEN_SECONDS = 3600;
const MOST_BYTES = 4096;
const secret = readFileSync(path.join(__dirname, 'demo.secret'), 'utf8').trim();
const [host, port] = SERVICE.split(':');
const pusher = new Pusher({ appId: 'demo', key: 'demo-key', secret: 'demo-secret', host, port, useTLS: false });

const files = {
  '/': ['text/html; charset=utf-8', path.join(__dirname, 'index.html')],
  '/centrifuge.js': ['text/javascript', path.join(path.dirname(require.resolve('centrifuge')), '../dist/centrifuge.js')],
};

const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const sign = (text) => createHmac('sha256', secret).update(text).digest('base64url');

/** A JSON Web Token, which percore asks of each client. */
function token(claims) {
  const text = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode(claims)}`;
  return `${text}.${sign(text)}`;
}

/** The claims of a token that this application gave, and that has not expired. */
function claims(given) {
  const [head, body, signature = ''] = (given ?? '').replace(/^Bearer /, '').split('.');
  const wanted = Buffer.from(sign(`${head}.${body}`));
  const got = Buffer.from(signature);
  if (got.length !== wanted.length || !timingSafeEqual(got, wanted)) return undefined;
  const found = JSON.parse(Buffer.from(body, 'base64url'));
  return found.exp * 1000 > Date.now() ? found : undefined;
}

async function body(request) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes > MOST_BYTES) return undefined;
    chunks.push(chunk);
  }
  return JSON.parse(Buffer.concat(chunks));
}

async function answer(request, response) {
  const { pathname, searchParams } = new URL(request.url, 'http://localhost');
  const reply = (status, value) => response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(value));
  if (request.method === 'GET' && files[pathname]) {
    const [type, file] = files[pathname];
    return response.writeHead(200, { 'Content-Type': type }).end(readFileSync(file));
  }
  if (request.method === 'GET' && pathname === '/token') {
    // A real application asks its session who the user is. Here everybody is who he says.
    const name = (searchParams.get('name') ?? '').slice(0, 40) || 'somebody';
    const user = (searchParams.get('user') ?? '').slice(0, 40) || randomUUID();
    const exp = Math.floor(Date.now() / 1000) + TOKEN_SECONDS;
    return reply(200, { token: token({ sub: user, info: { name }, exp }), hub: HUB });
  }
  if (request.method === 'POST' && pathname === '/messages') {
    const user = claims(request.headers.authorization);
    if (!user) return reply(401, { error: 'ask for a token first' });
    const { text } = (await body(request)) ?? {};
    if (typeof text !== 'string' || text.trim() === '') return reply(400, { error: 'a message needs a text, of 4 KiB at most' });
    await pusher.trigger('room', 'message', { user: user.sub, name: user.info.name, text: text.trim(), at: Date.now() });
    return reply(200, {});
  }
  return reply(404, { error: 'nothing is here' });
}

createServer((request, response) => {
  answer(request, response).catch((error) => {
    console.error(`${request.method} ${request.url}: ${error.message ?? error}`);
    if (!response.headersSent) response.writeHead(500, { 'Content-Type': 'application/json' });
    response.end('{"error":"the message was not published"}');
  });
}).listen(Number(PORT), HOST, () => console.log(`the demo is at http://${HOST === '0.0.0.0' ? 'localhost' : HOST}:${PORT}/`));
process.on('SIGTERM', () => process.exit(0));
