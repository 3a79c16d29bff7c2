/**
 * The PCI configuration access capability: access to the device's registers through configuration space, for platforms that cannot
 * map BARs. Each access takes up to four accesses to configuration space, so use it only if nothing else works.
 */
import { checkRegister, type RegisterWindow, VirtioError } from '@virtio/core';
import { virtioStructures, VirtioPciCapField } from './virtio-capabilities.ts';

/**
 * A part of a BAR, accessed through the PCI configuration access capability. Accesses stay inside it, so that a window of one
 * virtio structure never leaves that structure [4.1.4.9.2].
 */
export class PciCfgWindow implements RegisterWindow {
  readonly size: number;
  readonly #config: RegisterWindow;
  readonly #capability: number;
  readonly #bar: number;
  readonly #offset: number;

  /**
   * @param config the function's configuration space
   * @param capability the offset of the capability in configuration space
   * @param offset where the window starts in the BAR: a multiple of 4
   */
  constructor(config: RegisterWindow, capability: number, bar: number, offset: number, size: number) {
    this.#config = config;
    this.#capability = capability;
    this.#bar = bar;
    this.#offset = offset;
    this.size = size;
  }

  read8(offset: number): number {
    this.#point(offset, 1);
    return this.#config.read8(this.#capability + VirtioPciCapField.PCI_CFG_DATA);
  }

  read16(offset: number): number {
    this.#point(offset, 2);
    return this.#config.read16(this.#capability + VirtioPciCapField.PCI_CFG_DATA);
  }

  read32(offset: number): number {
    this.#point(offset, 4);
    return this.#config.read32(this.#capability + VirtioPciCapField.PCI_CFG_DATA);
  }

  write8(offset: number, value: number): void {
    this.#point(offset, 1);
    this.#config.write8(this.#capability + VirtioPciCapField.PCI_CFG_DATA, value);
  }

  write16(offset: number, value: number): void {
    this.#point(offset, 2);
    this.#config.write16(this.#capability + VirtioPciCapField.PCI_CFG_DATA, value);
  }

  write32(offset: number, value: number): void {
    this.#point(offset, 4);
    this.#config.write32(this.#capability + VirtioPciCapField.PCI_CFG_DATA, value);
  }

  /**
   * Selects the register that `pci_cfg_data` accesses. The selection is not cached: windows of several structures share the
   * capability.
   */
  #point(offset: number, width: number): void {
    checkRegister(offset, width, this.size);
    // 4.1.4.9.2: the offset is a multiple of the length.
    checkRegister(this.#offset + offset, width, Infinity);
    this.#config.write8(this.#capability + VirtioPciCapField.BAR, this.#bar);
    this.#config.write32(this.#capability + VirtioPciCapField.OFFSET, this.#offset + offset);
    this.#config.write32(this.#capability + VirtioPciCapField.LENGTH, width);
  }
}

/**
 * A `mapBar` for {@link PciTransport} that accesses BARs through configuration space.
 *
 * @param name the function, for messages
 * @throws {@link VirtioError} `UNSUPPORTED` if the device does not have the capability
 */
export function mapThroughConfig(
  config: RegisterWindow,
  name: string,
): (bar: number, offset: number, length: number) => RegisterWindow {
  const { pciCfg } = virtioStructures(config, name);
  if (pciCfg === undefined) {
    throw new VirtioError(
      'UNSUPPORTED',
      `${name} has no PCI configuration access capability; map its BARs instead`,
    );
  }
  return (bar, offset, length) => new PciCfgWindow(config, pciCfg, bar, offset, length);
}
