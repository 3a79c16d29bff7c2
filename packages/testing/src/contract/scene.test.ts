import { describe, expect, it } from 'vitest';
import { ringVariants } from '../ring-variants.ts';
import { sampleSubject } from './sample-driver.fixture.ts';
import { Scene } from './scene.ts';

const inOrder = ringVariants.filter((ring) => ring.inOrder);
const [requests] = sampleSubject.requests ?? [];
if (requests === undefined) throw new Error('the sample has requests');

describe.each(inOrder)('the device of a scene, on $name', (ring) => {
  it('answers no other request instead of one that it has answered', async () => {
    const scene = new Scene(sampleSubject, { ring, wake: 'no interrupts', queueSize: 8 });
    scene.answering = false;
    for (const mark of [1, 2]) scene.submit(requests.call(mark));
    const [first] = scene.held;
    if (first === undefined) throw new Error('the device got no request');
    scene.answer([first]);
    scene.answer([first]);
    expect(scene.held.map(({ mark }) => mark)).toEqual([2]);
    scene.answer();
    await scene.end();
  });
});
