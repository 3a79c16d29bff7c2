/** `virtio 9p` and `virtio fs`: list and copy files that a host shares, by 9P or by FUSE (virtiofs). */
import { DeviceType } from '@virtio/core';
import type { Command } from 'commander';
import { usage } from '../errors.ts';
import type { Host } from '../host.ts';
import { Printer } from '../output.ts';
import { addDeviceOptions, type DeviceOptions, openWith } from '../session.ts';
import type { Share } from './share.ts';

interface ListOptions extends DeviceOptions {
  readonly recursive?: boolean;
}

interface PutOptions extends DeviceOptions {
  readonly force?: boolean;
}

/** Mounts the share of a device, and unmounts it when `use` has ended. */
type WithShare = (
  host: Host,
  device: string,
  options: DeviceOptions,
  use: (share: Share) => Promise<void>,
) => Promise<void>;

/** Adds the commands. */
export function addShares(program: Command, host: Host): void {
  addShare(program, host, '9p', 'files that the host shares', withP9);
  addShare(program, host, 'fs', 'files that the host shares by virtiofs', withFuse);
}

function addShare(program: Command, host: Host, name: string, what: string, withShare: WithShare): void {
  const group = program.command(name).description(what);

  addDeviceOptions(
    group
      .command('ls')
      .description('list a directory')
      .argument('<device>', 'the address of the device')
      .argument('[path]', 'the directory', '/')
      .option('-r, --recursive', 'also list all directories below'),
  ).action(async (device: string, path: string, options: ListOptions) => {
    const printer = new Printer(host, options);
    await withShare(host, device, options, async (fs) => {
      const { list } = await import('./share-files.ts');
      await list(fs, printer, path, { ...options, signal: host.signal });
    });
  });

  addDeviceOptions(
    group
      .command('get')
      .description('copy a file from the host')
      .argument('<device>', 'the address of the device')
      .argument('<path>', 'the file on the share')
      .argument('[file]', 'the file to copy to; - is standard output', '-'),
  ).action(async (device: string, path: string, file: string, options: DeviceOptions) => {
    const printer = new Printer(host, options);
    if (printer.json && file === '-') {
      throw usage('the data and the JSON cannot both go to standard output', 'give a file to copy to');
    }
    await withShare(host, device, options, async (fs) => {
      const { get } = await import('./share-files.ts');
      await get(fs, host, printer, path, file);
    });
  });

  addDeviceOptions(
    group
      .command('put')
      .description('copy a file to the host')
      .argument('<device>', 'the address of the device')
      .argument('<file>', 'the file; - is standard input')
      .argument('<path>', 'the file on the share to copy to')
      .option('-f, --force', 'overwrite the file if it exists'),
  ).action(async (device: string, file: string, path: string, options: PutOptions) => {
    const printer = new Printer(host, options);
    await withShare(host, device, options, async (fs) => {
      const { put } = await import('./share-files.ts');
      await put(fs, host, printer, file, path, options.force === true);
    });
  });

  addDeviceOptions(
    group
      .command('shell')
      .description('run a shell on the share: ls, cd, cat, get, put, mkdir, rm, mv, …')
      .argument('<device>', 'the address of the device'),
  ).action(async (device: string, options: DeviceOptions) => {
    const printer = new Printer(host, options);
    await withShare(host, device, options, async (fs) => {
      const { shell } = await import('./share-shell.ts');
      await shell(fs, host, printer, name);
    });
  });
}

const withP9: WithShare = async (host, device, options, use) => {
  const { P9FileSystem, Virtio9p } = await import('@virtio/9p');
  using opened = await openWith(host, device, options, DeviceType.P9, Virtio9p);
  const fs = await P9FileSystem.mount(opened.driver, { signal: host.signal });
  // After an error or SIGINT the device is reset, which ends the mount as well.
  await use(fs);
  await fs.unmount();
};

const withFuse: WithShare = async (host, device, options, use) => {
  const { FuseFileSystem, VirtioFs } = await import('@virtio/fs');
  using opened = await openWith(host, device, options, DeviceType.FileSystem, VirtioFs);
  const fs = await FuseFileSystem.mount(opened.driver, { signal: host.signal });
  await use(fs);
  await fs.unmount();
};
