import { P9FileSystem, Virtio9p } from '@virtio/9p';
import { DeviceType } from '@virtio/core';
import { host, open } from '#playground';

await host.folder.write('from-host.txt', 'Hello from the host');

const { transport, hal } = open(DeviceType.P9);
using device = new Virtio9p(transport, hal);
await using fs = await P9FileSystem.mount(device);

console.log('the guest reads:', await fs.readFile('/from-host.txt', 'utf8'));
await fs.writeFile('/from-guest.txt', 'Hello from the guest');
console.log('the host reads:', await host.folder.read('from-guest.txt'));
console.log('names:', (await fs.readdir('/')).join(', '));
