// Takes part in a room of a chat with node's ws: chat.js URL ROOM. Says the lines of its input, prints what it hears.
'use strict';

const path = require('path');
const readline = require('readline');
const WebSocket = require(path.join(__dirname, '../.tools/node_modules/ws'));

const [url, room] = process.argv.slice(2);
const socket = new WebSocket(url, { perMessageDeflate: { threshold: 0 } });

function say(type, contents) {
  socket.send(JSON.stringify({ channel: 'chat-room', message: { type, contents: { room, ...contents } } }));
}

let joined = false;
const printed = {
  MemberList: ({ users }) => `here: ${users.join(' ')}`,
  JoinedRoom: ({ user }) => `joined: ${user}`,
  LeftRoom: ({ user }) => `left: ${user}`,
  NewMessage: ({ user, message }) => `${user}: ${message}`,
};

socket.on('open', () => {
  console.log('compression:', Object.keys(socket._extensions).join() === 'permessage-deflate' ? 'on' : 'off');
  say('JoinRoom', {});
  const lines = readline.createInterface({ input: process.stdin });
  lines.on('line', (message) => say('SendMessage', { message }));
  lines.on('close', () => socket.close());
});
socket.on('message', (data) => {
  const { type, contents } = JSON.parse(data).message;
  // The first that joins is this one.
  if (type === 'JoinedRoom' && !joined) joined = true;
  else console.log(printed[type](contents));
});
socket.on('error', (error) => {
  console.error(error);
  process.exit(1);
});
