import { MappedRegisters } from '@virtio/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { capabilities } from './capabilities.ts';
import { PciRegister } from './config-space.ts';

/** Configuration space with a list of capabilities: where, id, link. */
function list(
  first: number,
  links: readonly (readonly [at: number, id: number, next: number])[],
  status = 0x10,
) {
  const bytes = new Uint8Array(256);
  bytes[PciRegister.STATUS] = status;
  bytes[PciRegister.CAPABILITIES] = first;
  for (const [at, id, next] of links) bytes.set([id, next], at);
  return new MappedRegisters(bytes.buffer);
}

describe('capabilities', () => {
  it('are found in the order of the list', () => {
    expect(
      capabilities(
        list(0x60, [
          [0x60, 9, 0x40],
          [0x40, 0x11, 0xf8],
          [0xf8, 5, 0],
        ]),
        'x',
      ),
    ).toEqual([
      { id: 9, offset: 0x60 },
      { id: 0x11, offset: 0x40 },
      { id: 5, offset: 0xf8 },
    ]);
  });

  it('are none if the status says that there is no list', () => {
    expect(capabilities(list(0x40, [[0x40, 9, 0]], 0), 'x')).toEqual([]);
  });

  it('are none if the list is empty', () => {
    expect(capabilities(list(0, []), 'x')).toEqual([]);
  });

  it('are read with the reserved bits of links masked, so that no link is misaligned', () => {
    expect(
      capabilities(
        list(0x43, [
          [0x40, 9, 0x52],
          [0x50, 5, 3],
        ]),
        'x',
      ),
    ).toEqual([
      { id: 9, offset: 0x40 },
      { id: 5, offset: 0x50 },
    ]);
  });

  it.each([
    ['to itself', [[0x40, 9, 0x40]]],
    [
      'back',
      [
        [0x40, 9, 0x50],
        [0x50, 9, 0x60],
        [0x60, 9, 0x50],
      ],
    ],
    ['into the header', [[0x40, 9, 0x3c]]],
  ] as const)('are refused if the list leads %s', (_, links) => {
    expect(() => capabilities(list(0x40, links), 'PCI 0000:00:03.0')).toThrow(
      expect.objectContaining({
        code: 'INVALID_DEVICE',
        reason: 'BAD_CAPABILITY_LIST',
        message: expect.stringContaining('0000:00:03.0') as string,
      }),
    );
  });

  it('end, whatever the device writes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 256, maxLength: 256 }), (bytes) => {
        const config = new MappedRegisters(bytes.slice().buffer);
        try {
          expect(capabilities(config, 'x').length).toBeLessThanOrEqual(48);
        } catch (error) {
          expect(error).toMatchObject({ code: 'INVALID_DEVICE' });
        }
      }),
    );
  });
});
