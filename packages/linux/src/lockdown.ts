/** Advice for when the kernel refuses access to registers: by its lockdown (Secure Boot) it refuses root, too, with the same error. */
import { errorName } from './system-error.ts';
import type { SystemFiles } from './system-files.ts';

/**
 * Advice for a refused access to memory or registers.
 *
 * @param error why the kernel refused
 * @param otherwise the advice if it is a matter of rights on a file
 */
export function accessAdvice(files: SystemFiles, error: unknown, otherwise: string): string {
  // EACCES is about the file; EPERM comes from a check of capabilities, or from the lockdown.
  if (errorName(error) !== 'EPERM') return otherwise;
  const mode = /\[(\w+)\]/.exec(files.text('/sys/kernel/security/lockdown') ?? '')?.[1];
  if (mode !== undefined && mode !== 'none') {
    return (
      `the kernel is locked down (mode "${mode}", /sys/kernel/security/lockdown), which root cannot change: turn Secure Boot off, ` +
      'or use VFIO behind an IOMMU, which works under lockdown'
    );
  }
  return (
    'the process needs CAP_SYS_RAWIO, which root has but not in most containers; or the kernel is locked down by Secure Boot ' +
    '("cat /sys/kernel/security/lockdown"): then turn it off, or use VFIO behind an IOMMU'
  );
}
