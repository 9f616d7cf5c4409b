// A chat: what one says, all others hear.
import { createServer } from 'node:http'
import { Server } from 'socket.io'

const server = createServer((request, response) => {
  response.setHeader('Content-Type', 'text/html')
  response.end('<!doctype html><title>Chat</title><script src="/socket.io/socket.io.js"></script>')
})
new Server(server).on('connection', (socket) => {
  socket.on('say', (text, heard) => {
    socket.broadcast.emit('said', text)
    heard(socket.conn.transport.name)
  })
})
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ event: 'listening', port: server.address().port })))
