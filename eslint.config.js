export { default } from '@virtio/config/eslint';
