/** Node's HTTP. An import of the module makes Node.js load its WebSocket, too, for which a guest takes half a second. */
import process from 'node:process';

export const { createServer, request } = process.getBuiltinModule('node:http');
