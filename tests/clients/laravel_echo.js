// Laravel Echo with pusher-js, both unchanged: laravel_echo.js CLIENT_PORT SERVICE_PORT. Prints what happens.
'use strict';

const path = require('path');
const tools = path.join(__dirname, '../.tools/node_modules');
const Pusher = require(path.join(tools, 'pusher-js'));
const Server = require(path.join(tools, 'pusher'));

const [port, service] = process.argv.slice(2);
const backend = new Server({ appId: '7', key: 'app-key', secret: 'app-secret', host: '127.0.0.1', port: service, useTLS: false });

// As an application has it in resources/js/echo.js, for Reverb and any other server of this protocol.
function echo(Echo, user) {
  return new Echo({
    broadcaster: 'reverb',
    Pusher,
    key: 'app-key',
    wsHost: '127.0.0.1',
    wsPort: port,
    forceTLS: false,
    enabledTransports: ['ws'],
    authorizer: (channel) => ({
      authorize: (socketId, done) => {
        const member = channel.name.startsWith('presence-') ? { user_id: user, user_info: { name: user } } : undefined;
        done(null, backend.authorizeChannel(socketId, channel.name, member));
      },
    }),
  });
}

const heard = (register) => new Promise((resolve) => register(resolve));

async function main() {
  const { default: Echo } = await import(path.join(tools, 'laravel-echo/dist/echo.js'));
  const ann = echo(Echo, 'ann');
  const order = ann.channel('orders');
  await heard((done) => order.subscribed(done));
  const shipped = heard((done) => order.listen('OrderShipped', done));
  // Laravel names events by their class.
  await backend.trigger('orders', 'App\\Events\\OrderShipped', { order: 7 });
  console.log('event', JSON.stringify(await shipped), /^\d+\.\d+$/.test(ann.socketId()));

  const inbox = ann.private('inbox.ann');
  await heard((done) => inbox.subscribed(done));
  const note = heard((done) => inbox.notification(done));
  await backend.trigger('private-inbox.ann', 'Illuminate\\Notifications\\Events\\BroadcastNotificationCreated', { text: 'hi' });
  console.log('notification', JSON.stringify(await note));

  let joined, left;
  const room = ann.join('room');
  const joining = heard((done) => (joined = done));
  const leaving = heard((done) => (left = done));
  const here = heard((done) => room.here(done));
  room.joining((user) => joined(user)).leaving((user) => left(user));
  console.log('here', JSON.stringify(await here));
  const ben = echo(Echo, 'ben');
  const own = ben.join('room');
  console.log('here', JSON.stringify((await heard((done) => own.here(done))).map((user) => user.name).sort()));
  console.log('joining', (await joining).name);
  const typing = heard((done) => room.listenForWhisper('typing', done));
  own.whisper('typing', { name: 'ben' });
  console.log('whisper', JSON.stringify(await typing));
  ben.leave('room');
  console.log('leaving', (await leaving).name);
  ann.disconnect();
  ben.disconnect();
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
