/** Node's HTTP. An import of the module makes Node.js load its WebSocket, too, for which a guest takes half a second. */
import type * as Http from 'node:http';
import process from 'node:process';

/** The module, for those who need it: there are guests without it. */
export function nodeHttp(): typeof Http {
  return process.getBuiltinModule('node:http');
}
