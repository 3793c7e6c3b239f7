// An echo with ws on 127.0.0.1: node ws.js PORT [deflate]. NODE_PATH says where ws, and bufferutil for its masks, are.
'use strict';
const http = require('http');
const { WebSocketServer } = require('ws');

// As percore compresses: level 1, no window kept between messages, from 1 KiB on.
const deflate = {
  zlibDeflateOptions: { level: 1 },
  serverNoContextTakeover: true,
  clientNoContextTakeover: true,
  threshold: 1024,
};
const server = http.createServer();
const sockets = new WebSocketServer({
  server,
  clientTracking: false,
  perMessageDeflate: process.argv[3] === 'deflate' && deflate,
});
sockets.on('connection', (socket) => {
  socket.on('message', (data, binary) => socket.send(data, { binary }));
  // An error closes the connection.
  socket.on('error', () => {});
});
server.listen({ host: '127.0.0.1', port: Number(process.argv[2]), backlog: 4096 });
