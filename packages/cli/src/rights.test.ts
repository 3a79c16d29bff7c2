/** Commands that need rights, in a process of a user who has none. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';

const PCI = 'sys/bus/pci/devices/0000:00:03.0';

let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'virtio-cli-'));
  const file = (path: string, text = ''): void => {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    writeFileSync(join(root, path), text, { mode: 0o444 });
  };
  file(`${PCI}/vendor`, '0x1af4\n');
  file(`${PCI}/driver_override`);
  file('sys/bus/pci/drivers_probe');
  file('sys/bus/pci/drivers/virtio-pci/unbind');
  file('sys/bus/pci/drivers/vfio-pci/unbind');
  symlinkSync('../../drivers/virtio-pci', join(root, PCI, 'driver'));
  // Who has no rights may read it, as sysfs.
  chmodSync(root, 0o755);
});

afterEach(() => {
  rmSync(root, { recursive: true });
});

/** Runs a command as somebody who is not root. */
function virtio(...argv: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  const module = (name: string): string => JSON.stringify(fileURLToPath(new URL(name, import.meta.url)));
  const script = `
    const { run } = await import(${module('main.ts')});
    const { LinuxSystem } = await import(${module('system.ts')});
    if (process.getuid() === 0) process.setuid(65534);
    const { stdin, stdout, stderr } = process;
    const signal = new AbortController().signal;
    const system = new LinuxSystem({ root: ${JSON.stringify(root)} });
    process.exitCode = await run(${JSON.stringify(argv)}, { stdin, stdout, stderr, env: {}, signal, system });`;
  const args = ['--conditions=@virtio/source', '--input-type=module', '-e', script];
  return spawnSync(process.execPath, args, { encoding: 'utf8' });
}

it.each([
  ['unbind', [], 'unbound from its driver'],
  ['bind', ['--take-over'], 'bound to vfio-pci'],
] as const)(
  '%s says that root may do it, and changes nothing',
  (command, more, act) => {
    const { status, stdout, stderr } = virtio(command, '0000:00:03.0', ...more);
    const message = `PCI 0000:00:03.0 could not be ${act}: ${join(root, PCI)}/driver/unbind could not be written (EACCES); run it as root`;
    expect({ status, stdout }).toEqual({ status: 4, stdout: '' });
    expect(stderr.split('\n')).toEqual([
      `virtio: ${message}`,
      expect.stringMatching(/^hint: run the command as root/),
      'more: virtio explain PERMISSION_DENIED',
      '',
    ]);
    const json = virtio(command, '0000:00:03.0', ...more, '--json');
    expect({ status: json.status, stdout: json.stdout }).toEqual({ status: 4, stdout: '' });
    expect(JSON.parse(json.stderr)).toEqual({
      error: {
        code: 'PERMISSION_DENIED',
        message,
        advice: expect.stringMatching(/^run the command as root/) as string,
        help: 'virtio explain PERMISSION_DENIED',
      },
    });
    expect(readFileSync(join(root, PCI, 'driver_override'), 'utf8')).toBe('');
  },
  60_000,
);
