import { withoutTexts } from '@virtio/config/terse';
import { expect, it } from 'vitest';

it('leaves out the texts of errors, and nothing else', () => {
  const source = `
throw new VirtioError('QUEUE_FULL', \`\${this.who()}: full, \${'very'}\`);
throw new VirtioError('DMA_ERROR', 'no memory', { cause: new VirtioError('NOT_READY', 'late', { reason: 'R' }) });
const text = 'stays';
throw new Error('stays');
`;
  expect(withoutTexts(source)).toBe(`
throw new VirtioError('QUEUE_FULL', '');
throw new VirtioError('DMA_ERROR', '', { cause: new VirtioError('NOT_READY', '', { reason: 'R' }) });
const text = 'stays';
throw new Error('stays');
`);
});
