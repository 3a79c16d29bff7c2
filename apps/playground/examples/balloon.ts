import { DeviceType } from '@virtio/core';
import { host, open } from '#playground';
import { VirtioBalloon } from '../../examples/src/balloon/virtio-balloon.ts';

const { transport, hal } = open(DeviceType.MemoryBallooning);
using balloon = new VirtioBalloon(transport, hal);

host.balloon.ask(300);
console.log(`the host would like ${balloon.target} pages`);
balloon.resizeSync(balloon.target);
console.log(`it has ${balloon.actual} now`);

host.balloon.ask(-200);
balloon.resizeSync(balloon.target);
console.log(`and now ${balloon.actual}`);
