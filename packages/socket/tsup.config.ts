export { default } from '@virtio/config/tsup';
