/**
 * How many requirements (MUST, MUST NOT) each section of VIRTIO 1.4 has for drivers, of the chapters that the project
 * implements. The ledgers must have a row for each, so that none is forgotten. Counted in the text of the specification: each MUST of
 * a section "Driver Requirements", and one for a section of another kind that obliges drivers.
 */
export const DRIVER_REQUIREMENTS: Readonly<Record<string, number>> = {
  // Basic facilities.
  '2.1.1': 3,
  '2.2.1': 7,
  '2.2.3': 1,
  '2.5.1': 3,
  '2.6.1.1.2': 1,
  '2.6.1.2.2': 1,
  '2.7.1': 1,
  '2.7.2': 1,
  '2.7.3': 1,
  '2.7.4.2': 1,
  '2.7.5.2': 2,
  '2.7.5.3.1': 5,
  '2.7.6.1': 1,
  '2.7.7.1': 3,
  '2.7.8.3': 1,
  '2.7.10.1': 5,
  '2.7.13.3.1': 1,
  '2.7.13.4.1': 1,
  '2.8.11': 1,
  '2.8.16': 3,
  '2.8.17': 6,
  '2.8.19': 4,
  '2.8.21.1.1': 1,
  '2.8.21.3.1': 1,
  '2.12.1.1.7': 4,
  '2.12.1.2.5': 3,
  '2.12.1.3': 1,
  '2.12.1.3.6': 4,
  '2.12.1.4.4.2': 2,
  '2.12.1.6': 7,
  '2.13.2': 5,
  '3.1.1': 5,
  '3.1.2': 1,
  '3.3.1': 2,
  '3.4.1': 5,
  // PCI.
  '4.1.2.2': 3,
  '4.1.3.1': 1,
  '4.1.4.1': 5,
  '4.1.4.3.2': 8,
  '4.1.4.8.2': 1,
  '4.1.4.9.2': 3,
  '4.1.4.10': 1,
  '4.1.5.1.1.1': 1,
  '4.1.5.1.2.2': 3,
  '4.1.5.2.1': 6,
  '4.1.5.4.2': 1,
  // MMIO.
  '4.2.2.2': 19,
  '4.2.3.1.1': 6,
  '4.2.3.4.1': 2,
  // Block devices.
  '5.2.4.1': 1,
  '5.2.5.1': 4,
  '5.2.6.1': 20,
  '5.2.6.3': 1,
  '5.2.6.4': 1,
  // Consoles.
  '5.3.4.1': 1,
  '5.3.6.1': 2,
  '5.3.6.2.2': 3,
  '5.3.6.3': 1,
  '5.3.6.4': 1,
  // Entropy devices.
  '5.4.6.1': 2,
  // Input devices.
  '5.8.5.1': 2,
  '5.8.6.1': 3,
  // Reserved feature bits.
  '6.1': 6,
  '6.3': 1,
};
