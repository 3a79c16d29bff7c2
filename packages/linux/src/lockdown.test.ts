import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DevMem } from './dev-mem.ts';
import { FakeMachine } from './sysfs.fixture.ts';
import { SystemFiles } from './system-files.ts';

let machine: FakeMachine;
beforeEach(() => {
  machine = new FakeMachine();
});
afterEach(() => {
  machine[Symbol.dispose]();
});

/** The message of an attempt to map registers from /dev/mem where the kernel answers with an error. */
function refused(code: string): string {
  const files = new SystemFiles(machine.root);
  files.open = () => {
    throw Object.assign(new Error('no'), { code });
  };
  using memory = new DevMem(files);
  try {
    memory.map(0xfeb00000, 512);
  } catch (error) {
    return (error as Error).message;
  }
  throw new Error('it was mapped');
}

describe('/dev/mem', () => {
  it('is not for root to open where the kernel is locked down', () => {
    machine.tree({ 'sys/kernel/security/lockdown': 'none [integrity] confidentiality\n' });
    expect(refused('EPERM')).toContain('locked down (mode "integrity"');
    expect(refused('EPERM')).not.toContain('run as root');
  });

  it('needs a capability where it is not, or where that is not known', () => {
    expect(refused('EPERM')).toContain('CAP_SYS_RAWIO');
    expect(refused('EPERM')).toContain('/sys/kernel/security/lockdown');
    machine.tree({ 'sys/kernel/security/lockdown': '[none] integrity confidentiality\n' });
    expect(refused('EPERM')).toContain('CAP_SYS_RAWIO');
  });

  it('is for root where its rights say so, and may not be there', () => {
    expect(refused('EACCES')).toContain('run as root');
    expect(refused('ENOENT')).toContain('CONFIG_DEVMEM');
  });
});
