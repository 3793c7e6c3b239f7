// The SDK of Centrifugo for JavaScript, unchanged: centrifuge.js SCENARIO URL [..]. Prints what happens, a line each.
'use strict';

const crypto = require('crypto');
const path = require('path');
const tools = path.join(__dirname, '../.tools/node_modules');
const WebSocket = require(path.join(tools, 'ws'));
const { Centrifuge } = require(path.join(tools, 'centrifuge'));

const [scenario, url, ...rest] = process.argv.slice(2);
const quick = { minReconnectDelay: 5, maxReconnectDelay: 40 };

function client(options) {
  const made = new Centrifuge(url, { websocket: WebSocket, ...quick, ...options });
  made.on('error', (context) => console.log('error', context.error.code, context.error.message));
  return made;
}

function token(claims, secret) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const head = `${encode({ alg: 'HS256' })}.${encode(claims)}`;
  return `${head}.${crypto.createHmac('sha256', secret).update(head).digest('base64url')}`;
}

const once = (emitter, event) => new Promise((resolve) => emitter.once(event, resolve));
const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;

const scenarios = {
  // Everything that an SDK can ask, by two clients.
  async everything() {
    const ann = client({});
    ann.connect();
    const connected = await once(ann, 'connected');
    console.log('connected', connected.client.length, connected.transport);
    const sub = ann.newSubscription('room', { recoverable: true, joinLeave: true });
    const joins = [];
    sub.on('join', (context) => joins.push(context.info.client));
    sub.subscribe();
    const subscribed = await once(sub, 'subscribed');
    console.log('subscribed', subscribed.recoverable, subscribed.positioned, subscribed.streamPosition.offset);
    const first = once(sub, 'publication');
    await sub.publish({ text: 'one\ntwo' });
    const publication = await first;
    console.log('publication', JSON.stringify(publication.data), publication.offset, publication.info.client === connected.client);
    const ben = client({});
    const other = ben.newSubscription('room');
    ben.connect();
    other.subscribe();
    await once(other, 'subscribed');
    await ben.publish('room', 'from outside');
    const presence = await sub.presence();
    const stats = await sub.presenceStats();
    console.log('presence', Object.keys(presence.clients).length, stats.numClients, stats.numUsers);
    const history = await sub.history({ limit: 10 });
    console.log('history', history.publications.map((one) => one.offset).join(), history.offset);
    const since = await sub.history({ limit: 10, since: { offset: 1, epoch: history.epoch } });
    console.log('since', since.publications.map((one) => one.data).join());
    const left = once(sub, 'leave');
    ben.disconnect();
    await left;
    console.log('joins', joins.length, joins[0] === connected.client);
    await ann.rpc('method', {}).catch((error) => console.log('rpc', error.code));
    ann.send({ any: 1 });
    const many = Array.from({ length: 20 }, (_, number) => ann.publish('many', number));
    await Promise.all(many);
    const refused = ann.newSubscription('no:such');
    refused.subscribe();
    console.log('unsubscribed', (await once(refused, 'unsubscribed')).code);
    sub.unsubscribe();
    ann.disconnect();
  },

  // Clients that hear numbers up to the last, each once and in order, or are told that they missed some.
  async numbers() {
    const [channel, count, last] = [rest[0], Number(rest[1]), Number(rest[2])];
    const all = Array.from({ length: count }, async () => {
      const made = client({});
      const sub = made.newSubscription(channel);
      let next = null;
      const seen = { recovered: 0, lost: 0, wrong: 0 };
      const end = new Promise((resolve) => {
        sub.on('subscribed', (context) => {
          if (context.wasRecovering && context.recovered) seen.recovered += 1;
          if (context.wasRecovering && !context.recovered) {
            seen.lost += 1;
            next = null;
          }
        });
        sub.on('publication', ({ data }) => {
          if (next !== null && data !== next) seen.wrong += 1;
          next = data + 1;
          if (data === last) resolve();
        });
      });
      sub.subscribe();
      made.connect();
      await end;
      made.disconnect();
      return seen;
    });
    for (const seen of await Promise.all(all)) console.log('seen', seen.recovered, seen.lost, seen.wrong);
  },

  // Tokens that expire are replaced; a bad one is the end.
  async tokens() {
    const secret = rest[0];
    let asked = 0;
    const ann = client({
      token: token({ sub: 'ann', exp: inSeconds(-100) }, secret),
      getToken: async () => token({ sub: 'ann', exp: inSeconds(2) }, secret),
    });
    ann.on('connected', (context) => console.log('connected', context.client.length));
    ann.on('disconnected', (context) => console.log('disconnected', context.code));
    const sub = ann.newSubscription('$private', {
      getToken: async ({ channel }) => {
        asked += 1;
        return token({ sub: 'ann', channel, exp: inSeconds(2), info: { seat: 1 } }, secret);
      },
    });
    sub.subscribe();
    ann.connect();
    await once(sub, 'subscribed');
    while (asked < 3) await new Promise((resolve) => setTimeout(resolve, 20));
    console.log('state', ann.state, sub.state);
    const bad = client({ token: token({ sub: 'ann' }, 'x'.repeat(32)) });
    bad.connect();
    console.log('refused', (await once(bad, 'disconnected')).code);
    const wrong = ann.newSubscription('$other', { getToken: async () => token({ sub: 'ben', channel: '$other' }, secret) });
    wrong.subscribe();
    console.log('unsubscribed', (await once(wrong, 'unsubscribed')).code);
    ann.disconnect();
  },

  // What the server and backends do with a client: put on channels, taken off, sent away.
  async ordered() {
    const secret = rest[0];
    const subs = { news: { info: { seat: 2 } } };
    const ann = client({ token: token({ sub: 'ann', channels: ['mail'], subs }, secret) });
    for (const event of ['subscribed', 'unsubscribed', 'publication']) {
      ann.on(event, (context) => console.log(event, context.channel, context.data === undefined ? '' : context.data));
    }
    const sub = ann.newSubscription('own');
    sub.on('subscribing', (context) => console.log('subscribing', context.code));
    sub.on('subscribed', () => console.log('subscribed own'));
    sub.on('unsubscribed', (context) => console.log('unsubscribed', context.code));
    sub.subscribe();
    ann.connect();
    console.log('disconnected', (await once(ann, 'disconnected')).code);
  },
};

scenarios[scenario]().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
