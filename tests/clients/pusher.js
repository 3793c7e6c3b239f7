// The SDKs of Pusher for JavaScript, client and server, unchanged: pusher.js CLIENT_PORT SERVICE_PORT. Prints what happens.
'use strict';

const path = require('path');
const tools = path.join(__dirname, '../.tools/node_modules');
const Client = require(path.join(tools, 'pusher-js'));
const Server = require(path.join(tools, 'pusher'));

const [port, service] = process.argv.slice(2);
const backend = new Server({ appId: '7', key: 'app-key', secret: 'app-secret', host: '127.0.0.1', port: service, useTLS: false });

const once = (emitter, event) => new Promise((resolve) => {
  const handler = (data) => {
    emitter.unbind(event, handler);
    resolve(data);
  };
  emitter.bind(event, handler);
});

function client(user) {
  return new Client('app-key', {
    wsHost: '127.0.0.1',
    wsPort: port,
    forceTLS: false,
    enabledTransports: ['ws'],
    cluster: '',
    disableStats: true,
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, done) => {
        const member = channelName.startsWith('presence-') ? { user_id: user, user_info: { name: user } } : undefined;
        if (channelName === 'private-forbidden') done(null, { auth: 'app-key:00' });
        else done(null, backend.authorizeChannel(socketId, channelName, member));
      },
    },
    userAuthentication: {
      customHandler: ({ socketId }, done) => done(null, backend.authenticateUser(socketId, { id: user })),
    },
  });
}

async function main() {
  const ann = client('ann');
  await once(ann.connection, 'connected');
  console.log('connected', /^\d+\.\d+$/.test(ann.connection.socket_id));
  const news = ann.subscribe('news');
  await once(news, 'pusher:subscription_succeeded');
  const heard = once(news, 'greeting');
  await backend.trigger('news', 'greeting', { text: 'one\n"two"' });
  console.log('event', JSON.stringify(await heard));

  // Not to the one that sends.
  const others = [];
  news.bind('except', (data) => others.push(data));
  await backend.trigger('news', 'except', 1, { socket_id: ann.connection.socket_id });
  await backend.triggerBatch([{ channel: 'news', name: 'except', data: 2 }]);
  while (others.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  console.log('except', others.join());

  // Who is there, by user: two connections of one are one.
  const room = ann.subscribe('presence-room');
  const members = await once(room, 'pusher:subscription_succeeded');
  console.log('members', members.count, members.me.id, JSON.stringify(members.me.info));
  const added = once(room, 'pusher:member_added');
  const ben = client('ben');
  const twin = client('ben');
  const [own, same] = [ben.subscribe('presence-room'), twin.subscribe('presence-room')];
  await Promise.all([once(own, 'pusher:subscription_succeeded'), once(same, 'pusher:subscription_succeeded')]);
  console.log('added', (await added).id, own.members.count);
  const direct = once(room, 'client-wave');
  own.trigger('client-wave', { hand: 'left' });
  console.log('client event', JSON.stringify(await direct));
  const info = await (await backend.get({ path: '/channels/presence-room', params: { info: 'user_count' } })).json();
  console.log('info', JSON.stringify(info));
  const users = await (await backend.get({ path: '/channels/presence-room/users' })).json();
  console.log('users', users.users.map((user) => user.id).join());
  const list = await (await backend.get({ path: '/channels', params: { filter_by_prefix: 'presence-' } })).json();
  console.log('channels', Object.keys(list.channels).join());
  const removed = once(room, 'pusher:member_removed');
  ben.disconnect();
  twin.disconnect();
  console.log('removed', (await removed).id);

  const forbidden = ann.subscribe('private-forbidden');
  console.log('forbidden', (await once(forbidden, 'pusher:subscription_error')).status);
  ann.signin();
  await ann.user.signinDonePromise;
  console.log('signed in', ann.user.user_data.id);
  const gone = once(ann.connection, 'disconnected');
  await backend.terminateUserConnections('ann');
  await gone;
  console.log('terminated');
  const bad = new Server({ appId: '7', key: 'app-key', secret: 'wrong', host: '127.0.0.1', port: service, useTLS: false });
  await bad.trigger('news', 'greeting', 1).catch((error) => console.log('refused', error.status));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
