export { default } from '@virtio/config/vitest';
