// Echoes through a server with node's ws: echo.js URL {none|deflate}. Says what was agreed on.
'use strict';

const assert = require('assert');
const crypto = require('crypto');
const { once } = require('events');
const path = require('path');
const WebSocket = require(path.join(__dirname, '../.tools/node_modules/ws'));

async function main(url, compression) {
  const perMessageDeflate = compression === 'deflate' ? { threshold: 0 } : false;
  const socket = new WebSocket(url, ['other', 'echo'], { perMessageDeflate });
  await once(socket, 'open');
  const echo = async (sent, options) => {
    socket.send(sent, options);
    const [data, isBinary] = await once(socket, 'message');
    assert.strictEqual(isBinary, typeof sent !== 'string');
    assert(Buffer.from(sent).equals(data), `${data.length} of ${sent.length} bytes`);
  };
  for (const size of [0, 1, 125, 126, 127, 1000, 65535, 65536, 1 << 20]) {
    await echo('h\u00e9llo \u{1f980} '.repeat(Math.ceil(size / 5)));
    await echo(crypto.randomBytes(size));
    await echo(Buffer.alloc(size));
  }
  for (const part of ['in ', 'frag', '', 'ments']) socket.send(part, { fin: part === 'ments' });
  assert.strictEqual((await once(socket, 'message'))[0].toString(), 'in fragments');
  socket.ping('are you there');
  assert.strictEqual((await once(socket, 'pong'))[0].toString(), 'are you there');
  console.log('subprotocol:', socket.protocol);
  console.log('extensions:', Object.keys(socket._extensions));
  socket.close(4321, 'enough');
  console.log('closed:', (await once(socket, 'close'))[0]);
  const elsewhere = new WebSocket(url + '/nothing-here');
  const [, response] = await once(elsewhere, 'unexpected-response');
  console.log('elsewhere:', response.statusCode);
  response.destroy();
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
