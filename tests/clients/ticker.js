// Asks a ticker feed with what browsers have, on node's ws: ticker.js URL. Says what came.
'use strict';

const assert = require('assert');
const path = require('path');
const WebSocket = require(path.join(__dirname, '../.tools/node_modules/ws'));

const socket = new WebSocket(process.argv[2]);
const say = (name, value) => socket.send(`${name}:${JSON.stringify(value)}`);
let changes = 0;
let pings = 0;

socket.onopen = () => {
  say('TickerRequest', { Id: 'browser', Tickers: ['SPY', 'NEW.JS', 'AAPL'] });
  say('Ping', { Sequence: 7, Seconds: 8, Nanos: 9 });
};
socket.onmessage = ({ data }) => {
  const colon = data.indexOf(':');
  const [name, value] = [data.slice(0, colon), JSON.parse(data.slice(colon + 1))];
  if (name === 'TickerChange') {
    changes += 1;
    assert(value.Changes.every(({ Price, UpdateTime }) => Price > 0 && UpdateTime > 1700000000));
  } else if (name === 'Ping') {
    pings += 1;
    assert.strictEqual(value.Sequence, pings);
    say('Pong', value);
  } else {
    assert.deepStrictEqual([name, value], ['Pong', { Sequence: 7, Seconds: 8, Nanos: 9 }]);
  }
  if (name === 'TickerChange' && changes >= 3 && pings >= 3) {
    console.log('symbols:', value.Changes.map((change) => change.Symbol).join(', '));
    socket.onmessage = null;
    socket.close(1000);
  }
};
socket.onclose = ({ code }) => console.log('closed:', code);
socket.onerror = ({ message }) => {
  console.error(message);
  process.exit(1);
};
