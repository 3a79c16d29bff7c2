import { VirtioConsole } from '@virtio/console';
import { DeviceType } from '@virtio/core';
import { host, open } from '#playground';

// v86 uses the chains of its control queue twice, which this driver takes for a lie: so without ports.
const { transport, hal } = open(DeviceType.Console);
using device = new VirtioConsole(transport, hal, { multiport: false });
const port = device.port();

host.console.onOutput((text) => console.log('the user sees:', text.trimEnd()));
await port.write('What is your name?\n');

host.console.type('Ada\n');
const name = await port.readLine();
await port.write(`Hello ${name ?? 'nobody'}!\n`);
await port.flush();
