// A server with a certificate that it has signed itself: server.js CERT KEY
import { createServer } from 'node:https'
import { readFileSync } from 'node:fs'

const [cert, key] = process.argv.slice(2).map((file) => readFileSync(file))
const server = createServer({ cert, key }, (request, response) => response.end(`hello over TLS, for ${request.headers.host}`))
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ event: 'listening', port: server.address().port })))
