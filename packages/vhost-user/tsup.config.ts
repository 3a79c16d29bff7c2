import { library } from '@virtio/config/tsup';

// `node:fs` stays `node:fs`, which other run times know as well.
const config: ReturnType<typeof library> = library({ platform: 'node', removeNodeProtocol: false });
export default config;
