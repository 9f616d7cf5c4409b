// What a model's server does: tokens as they are made, and large files taken in.
// A token is made when somebody asks another port for it, which is not shared.
import { createHash } from 'node:crypto'
import { createServer } from 'node:http'

let streams = []
const server = createServer((request, response) => {
  switch (request.url) {
    case '/chunked':
      response.setHeader('Content-Type', 'text/plain; charset=utf-8')
      response.flushHeaders()
      streams.push({ send: (token) => response.write(token + ' '), end: () => response.end() })
      return
    case '/events':
      response.setHeader('Content-Type', 'text/event-stream')
      response.flushHeaders()
      streams.push({ send: (token) => response.write(`data: {"token":"${token}"}\n\n`), end: () => response.end('data: [DONE]\n\n') })
      return
    case '/upload': {
      const sum = createHash('sha256')
      let length = 0
      request.on('data', (piece) => { sum.update(piece); length += piece.length })
      request.on('end', () => response.end(JSON.stringify({ length, sha256: sum.digest('hex'), type: request.headers['content-type'] })))
      return
    }
  }
  response.statusCode = 404
  response.end()
})
const maker = createServer((request, response) => {
  const token = request.url.slice(1)
  for (const stream of streams) token === '' ? stream.end() : stream.send(token)
  if (token === '') streams = []
  response.end()
})
server.listen(0, '127.0.0.1', () => maker.listen(0, '127.0.0.1', () =>
  console.log(JSON.stringify({ event: 'listening', port: server.address().port, make: maker.address().port }))))
