import { FakePciDevice } from '@virtio/testing';
import { describe, expect, it } from 'vitest';
import { device, interrupting, negotiate, open, setQueue } from '../fixture.ts';
import { readBars } from './bars.ts';
import { Command, writeCommand } from './config-space.ts';
import { InterruptLines } from './interrupts.ts';
import { MsixCapability, msixVectors } from './msix.ts';

function find(pci: FakePciDevice): MsixCapability {
  const bars = readBars(pci.config, 'x');
  writeCommand(pci.config, Command.from(Command.MEMORY_SPACE | Command.BUS_MASTER));
  const found = MsixCapability.find(
    pci.config,
    bars,
    (bar, offset, length) => pci.mapBar(bar, offset, length),
    'x',
  );
  if (!found) throw new Error('no MSI-X');
  return found;
}

/** Changes the capability: its bytes after id and link. */
const editing = (edit: (body: number[]) => void): FakePciDevice =>
  new FakePciDevice(device(), {
    vectors: 4,
    capabilities: (all) =>
      all.map((capability) => {
        if (capability.id !== 0x11) return capability;
        const body = Array.from(capability.body);
        edit(body);
        return { id: 0x11, body };
      }),
  });

describe('MsixCapability', () => {
  it.each([1, 3, 65, 2048])('knows how many of %d vectors there are', (vectors) => {
    const pci = new FakePciDevice(device(), { vectors });
    expect(msixVectors(pci.config, 'x')).toBe(vectors);
    expect(find(pci).size).toBe(vectors);
  });

  it('is not there if the function does not have it', () => {
    const pci = new FakePciDevice(device(), { vectors: 0 });
    expect(msixVectors(pci.config, 'x')).toBe(0);
    expect(
      MsixCapability.find(pci.config, [], (bar, offset, length) => pci.mapBar(bar, offset, length), 'x'),
    ).toBeUndefined();
  });

  it('enables, masks and disables all vectors, one bit at a time', () => {
    const pci = new FakePciDevice(device(), { vectors: 4 });
    const msix = find(pci);
    const control = (): number => pci.peek((pci.capabilityOffsets[1] as number) + 2, 2);
    expect([msix.enabled, control()]).toEqual([false, 3]);
    msix.maskAll(true);
    expect(control()).toBe(0x4003);
    msix.enable();
    expect([msix.enabled, control()]).toEqual([true, 0x8003]);
    msix.maskAll(true);
    expect(control()).toBe(0xc003);
    msix.maskAll(false);
    msix.disable();
    expect([msix.enabled, control()]).toEqual([false, 3]);
  });

  it('sets messages while their vector is masked', () => {
    const pci = new FakePciDevice(device(), { vectors: 4 });
    const msix = find(pci);
    msix.unmask(2);
    msix.setMessage(2, 0x12_fee0_1000, 0x8000_4041);
    expect(pci.msixEntry(2)).toEqual({ address: 0x12_fee0_1000, data: 0x8000_4041, masked: true });
    msix.unmask(2);
    expect(pci.msixEntry(2).masked).toBe(false);
    msix.mask(2);
    expect(pci.msixEntry(2).masked).toBe(true);
    expect(pci.device.violations).toEqual([]);
  });

  it.each([
    ['no address', NaN, 1],
    ['a fraction', 0.5, 1],
    ['an address that is no multiple of 4', 0xfee0_0002, 1],
    ['an address beyond 2^53', 2 ** 53, 1],
    ['an address below 0', -4, 1],
    ['a bigint', 0xfee0_0000n, 1],
    ['no data', 0xfee0_0000, undefined],
    ['data beyond 32 bits', 0xfee0_0000, 2 ** 32],
    ['data below 0', 0xfee0_0000, -1],
  ])('sends no message to %s: the device would write elsewhere', (_, address, data) => {
    const pci = new FakePciDevice(device(), { vectors: 4 });
    const msix = find(pci);
    expect(() => msix.setMessage(1, address as number, data as number)).toThrow(
      expect.objectContaining({ code: 'INVALID_PARAM' }),
    );
    expect(pci.msixEntry(1)).toEqual({ address: 0, data: 0, masked: true });
  });

  it.each([-1, 4, 1.5])('has no vector %d', (vector) => {
    const msix = find(new FakePciDevice(device(), { vectors: 4 }));
    for (const access of [
      () => msix.mask(vector),
      () => msix.unmask(vector),
      () => msix.pending(vector),
      () => msix.setMessage(vector, 0, 0),
    ]) {
      expect(access).toThrow(expect.objectContaining({ code: 'INVALID_PARAM' }));
    }
  });

  it.each([
    ['a table outside its BAR', [2, 0x01, 0xff, 0xff, 0x00]],
    ['a table in a BAR that does not exist', [2, 0x03, 0, 0, 0]],
    ['a table in BAR 7', [2, 0x07, 0, 0, 0]],
    ['pending bits outside their BAR', [6, 0xf9, 0xff, 0xff, 0x7f]],
  ] as const)('refuses %s', (_, [place, ...bytes]) => {
    const pci = editing((body) => bytes.forEach((byte, i) => (body[place + i] = byte)));
    expect(() => find(pci)).toThrow(expect.objectContaining({ code: 'INVALID_DEVICE' }));
  });

  it('shows what a masked vector has to send, and sends it then', async () => {
    const fired: number[] = [];
    const pci = new FakePciDevice(device(), { vectors: 40, onVector: (vector) => fired.push(vector) });
    const msix = find(pci);
    msix.enable();
    const transport = open(pci, { interrupts: new InterruptLines(40) });
    negotiate(transport);
    transport.finishInit();
    pci.device.changeConfig(() => undefined);
    await Promise.resolve();
    expect(fired).toEqual([]);
    expect([msix.pending(0), msix.pending(1), msix.pending(33)]).toEqual([true, false, false]);
    msix.unmask(0);
    await Promise.resolve();
    expect(fired).toEqual([0]);
    expect(msix.pending(0)).toBe(false);
  });

  it('carries interrupts on a platform that programs it', async () => {
    const heard: string[] = [];
    const fixed = interrupting(3, { pci: {} });
    fixed.pci.poke((fixed.pci.capabilityOffsets[1] as number) + 2, 2, 2);
    const msix = find(fixed.pci);
    for (let vector = 0; vector < msix.size; vector += 1) {
      msix.setMessage(vector, 0xfee0_0000, 0x40 + vector);
      msix.unmask(vector);
    }
    msix.enable();
    fixed.transport.interrupts?.onConfig(() => void heard.push('config'));
    negotiate(fixed.transport);
    setQueue(fixed, 0, 8);
    fixed.transport.finishInit();
    fixed.device.changeConfig(() => undefined);
    await Promise.resolve();
    expect(heard).toEqual(['config']);
    expect(fixed.pci.msixEntry(2)).toEqual({ address: 0xfee0_0000, data: 0x42, masked: false });
  });
});
