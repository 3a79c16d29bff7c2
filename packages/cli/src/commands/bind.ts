/** `virtio bind`, `virtio unbind`: change the kernel's driver of a device. */
import type { Command } from 'commander';
import { formatAddress, parseAddress } from '../address.ts';
import { CliError, ExitStatus, usage } from '../errors.ts';
import type { Host } from '../host.ts';
import { Printer, type PrintOptions } from '../output.ts';
import { addPrintOptions } from '../session.ts';

interface BindOptions extends PrintOptions {
  readonly driver: string;
  readonly takeOver?: boolean;
}

function pciOf(host: Host, device: string): string {
  const address = parseAddress(device);
  if (address.kind !== 'pci') {
    throw usage(`${formatAddress(address)} is not on PCI; only the driver of a PCI device can be changed`);
  }
  const uses = host.system.kernelDisks(address).flatMap((disk) => disk.uses);
  if (uses.length > 0) {
    throw new CliError(
      ExitStatus.REFUSED,
      `the kernel uses the disk at ${device}: ${uses.join(', ')}`,
      'unmount it first',
    );
  }
  return address.address;
}

/** Adds the commands. */
export function addBind(program: Command, host: Host): void {
  addPrintOptions(
    program
      .command('bind')
      .description('bind a PCI device to a driver of the kernel: vfio-pci, for processes')
      .argument('<device>', 'the address of the device')
      .option('--driver <name>', 'the driver, such as vfio-pci, virtio-pci or uio_pci_generic', 'vfio-pci')
      .option('--take-over', 'take the device from its present driver'),
  ).action((device: string, options: BindOptions) => {
    const printer = new Printer(host, options);
    const address = pciOf(host, device);
    host.system.bind(address, options.driver, options.takeOver === true);
    printer.result({ address: `pci:${address}`, driver: options.driver });
    printer.line(`pci:${address} has the driver ${options.driver}`);
  });

  addPrintOptions(
    program
      .command('unbind')
      .description("unbind a PCI device from the kernel's driver")
      .argument('<device>', 'the address of the device'),
  ).action((device: string, options: PrintOptions) => {
    const printer = new Printer(host, options);
    const address = pciOf(host, device);
    host.system.unbind(address);
    printer.result({ address: `pci:${address}`, driver: null });
    printer.line(`pci:${address} has no driver`);
  });
}
