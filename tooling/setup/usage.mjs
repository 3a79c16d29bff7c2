// How to call the commands of package.json. It stands here so that `--help` is answered before anything is set up.

const start = `npm start -- [options] [WORD …]

Sets everything up, boots guests in QEMU, runs every driver in them and writes apps/qemu-harness/report.

  WORD         only tests whose device, name or kind of guest contains it, e.g. blk or microvm; with several words, all must match
  --full       every test in every kind of guest; otherwise all tests run in the first kind, and one or two a device in
               the others
  --arch NAME  guests of this architecture: x86_64 (default), aarch64 or riscv64; may be repeated
  --plain      print plain lines even on a terminal
  --json FILE  also write the report as JSON to this file
  --help       show this

Exit status: 0 if all tests passed, 1 if one failed, 2 if the arguments are wrong, 130 after Ctrl-C.`;

const test = `npm test

Runs every check: lint, format, types, build, packages, examples, reference manual, guest tests (more than npm start: disks
through every transport and ring), guests with no operating system, vhost-user back ends, unit tests, conformance.
It takes no arguments. For a part: npm run lint, typecheck, build or docs; npm run unit -- packages/blk; npm start -- blk

Exit status: 0 if all passed, 1 if one failed, 2 if there were arguments, 130 after Ctrl-C.`;

const guest = `npm run guest -- [options] script.ts [arguments of the script…]

Runs a TypeScript file in a Linux guest in which nothing but your script drives the virtio devices.

  --disk FILE       attach a disk image (raw or qcow2) as a virtio disk; may be repeated
  --qemu 'ARGS'     further arguments for QEMU, in a shell's quoting, e.g. '-device virtio-rng-pci'; may be repeated
  --machine NAME    q35 (PCI, the default) or microvm (MMIO)
  --transport NAME  q35: pci-vfio (default) or pci-physical (no IOMMU); microvm: mmio-v2 (default) or mmio-v1
  --memory MIB      memory of the guest (default 1280)
  --timeout SECONDS stop the guest after this time (default 3600)
  --console         show the guest's kernel messages
  --bare ARCH       no Linux at all: a small JavaScript engine on riscv64, aarch64 or x86_64; see apps/bare-guest. Of the other
                    options it has --disk (raw), --qemu, --timeout and --transport mmio-v2 (default), mmio-v1 or pci
  --display         show the guest's display: in a window, or by VNC on a loopback socket; adds a GPU if --qemu has none
  --sound FILE      add a sound device; what it plays becomes a WAV file
  --help            show this

Without --disk and without a virtio device in --qemu, the guest gets an empty disk of 64 MiB that is thrown away.

Exit status: the script's; 128 + n if signal n ended it; 70 if the guest died; 2 if the arguments are wrong; 1 if the
script cannot be bundled; 130 after Ctrl-C.`;

const bench = `npm run bench [-- WORD …]

Runs the benchmarks in packages/*/bench and apps/*/bench whose path contains one of the words, e.g. blk; without a word all of them, and then
the sizes of the packages.`;

const docs = `npm run docs

Writes the reference manual of all packages to docs/reference/ (open its index.html). It takes no arguments.`;

const api = `npm run api -- [--write | --since REF]

Compares the public interface of each built package with its committed report (packages/NAME/NAME.api.md).

  --write      update the reports
  --since REF  compare nothing; fail if a report changed since REF and no changeset names its package

Exit status: 0 if no report differs, 1 if one does, 2 if the arguments are wrong. \`npm run build\` comes first.`;

const fuzz = `npm run fuzz -- [--minutes N] [--format split|packed] [--seed S] [--steps N]
npm run fuzz -- --drivers [--minutes N]
npm run fuzz -- --driver NAME [--minutes N] [--seed S] [--steps N]

The first form tries the virtqueues against honest and lying devices, the others whole drivers. A finding prints the command
that replays it.

  --minutes N  how long in all (default 1)
  --format F   one format of queue only: split or packed
  --drivers    all drivers that have a test/contract-subject.ts, one after the other
  --driver N   one of them, e.g. blk
  --seed S     where to begin; of a driver, with --steps 1, the one life that has this seed
  --steps N    steps of an episode of a queue (default 1,000,000), or of a driver in all

Exit status: 0 without a finding, 1 with one, 2 if the arguments are wrong.`;

export const USAGE = { start, test, guest, bench, docs, api, fuzz };
