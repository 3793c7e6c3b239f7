// Asks a ticker feed with what browsers have, on node's ws: ticker.js URL. Says what came.
'use strict';

const assert = require('assert');
const path = require('path');
const WebSocket = require(path.join(__dirname, '../.tools/node_modules/ws'));

const socket = new WebSocket(process.argv[2]);
const say = (name, value) => socket.send(`${name}:${JSON.stringify(value)}`);
const prices = new Map();
let changes = 0;
let pings = 0;

socket.onopen = () => {
  say('TickerRequest', { Id: 'browser', Tickers: ['SPY', 'NEW.JS', 'AAPL'] });
};
socket.onmessage = ({ data }) => {
  const colon = data.indexOf(':');
  const [name, value] = [data.slice(0, colon), JSON.parse(data.slice(colon + 1))];
  if (name === 'TickerChange') {
    changes += 1;
    value.Changes.forEach(({ Symbol, Price }) => prices.set(Symbol, Price));
    assert(value.Changes.every(({ Price, UpdateTime }) => Price > 0 && UpdateTime > 1700000000));
  } else if (name === 'Ping') {
    pings += 1;
    assert.strictEqual(value.Sequence, pings);
    say('Pong', value);
    // From then on it is never asked again.
    if (pings === 2) say('Ping', { Sequence: 7, Seconds: 8, Nanos: 9 });
  } else {
    assert.deepStrictEqual([name, value], ['Pong', { Sequence: 7, Seconds: 8, Nanos: 9 }]);
    assert(changes >= 3);
    console.log('symbols:', [...prices.keys()].sort().join(', '));
    socket.onmessage = null;
    socket.close(1000);
  }
};
socket.onclose = ({ code }) => console.log('closed:', code);
socket.onerror = ({ message }) => {
  console.error(message);
  process.exit(1);
};
