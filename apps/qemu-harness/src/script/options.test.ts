import { describe, expect, it } from 'vitest';
import { parseGuestOptions } from './options.ts';

describe('parseGuestOptions', () => {
  it('takes switches', () => {
    expect(parseGuestOptions(['s.ts'])).toMatchObject({ console: false, display: false, sound: undefined });
    expect(parseGuestOptions(['--display', '--sound', 'a.wav', '--console', 's.ts'])).toMatchObject({
      console: true,
      display: true,
      sound: 'a.wav',
    });
  });

  it('leaves everything after the script to the script', () => {
    expect(parseGuestOptions(['--machine', 'microvm', 'a.ts', '--machine', 'q35', '--', 'x'])).toMatchObject({
      machine: 'microvm',
      transport: 'mmio-v2',
      script: 'a.ts',
      args: ['--machine', 'q35', '--', 'x'],
    });
  });

  it('splits QEMU’s arguments as a shell does and gathers those of several options', () => {
    const options = parseGuestOptions([
      '--qemu',
      "-device 'virtio-rng-pci'",
      '--qemu=-m 2G',
      '--disk',
      'a',
      '--disk=b',
      's.ts',
    ]);
    expect(options?.qemu).toEqual(['-device', 'virtio-rng-pci', '-m', '2G']);
    expect(options?.disks).toEqual(['a', 'b']);
  });

  it('finds the machine of a transport', () => {
    expect(parseGuestOptions(['--transport', 'mmio-v1', 's.ts'])).toMatchObject({ machine: 'microvm' });
    expect(parseGuestOptions(['s.ts'])).toMatchObject({ machine: 'q35', transport: 'pci-vfio' });
  });

  it.each([
    [[], /script is missing/],
    [['--machine', 'pc', 's.ts'], /q35 or microvm/],
    [['--machine', 'q35', '--transport', 'mmio-v1', 's.ts'], /on q35/],
    [['--transport', 'usb', 's.ts'], /pci-vfio \(q35\)/],
    [['--wat', 's.ts'], /no option --wat/],
    [['--qemu'], /needs a value/],
    [['--console=yes', 's.ts'], /takes no value/],
    [['-x', 's.ts'], /no option -x/],
    [['--timeout', '-1', 's.ts'], /positive/],
    [['--qemu', "'", 's.ts'], /not closed/],
  ])('refuses %j', (argv, message) => {
    expect(() => parseGuestOptions(argv)).toThrow(message);
  });

  it('only shows help when asked', () => {
    expect(parseGuestOptions(['--help'])).toBeUndefined();
    expect(parseGuestOptions(['s.ts', '--help'])?.args).toEqual(['--help']);
  });
});
