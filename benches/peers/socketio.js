// Rooms with Socket.IO, as its documentation advises: WebSocket alone, without compression, bufferutil installed.
// socketio.js PORT. Clients send "subscribe" with a room, and "publish" with a room and what everybody in it gets.
'use strict';

const { Server } = require('socket.io');

const io = new Server({ transports: ['websocket'], perMessageDeflate: false, httpCompression: false, serveClient: false });
io.on('connection', (socket) => {
  socket.on('subscribe', (room, done) => {
    socket.join(room);
    done();
  });
  socket.on('publish', (room, data) => io.to(room).emit('message', data));
  // A connection that stays should not keep the request that it began with.
  socket.conn.request = null;
});
io.listen(Number(process.argv[2]));
