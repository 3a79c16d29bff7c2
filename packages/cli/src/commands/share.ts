/** What the commands of `virtio 9p` and `virtio fs` work on. */
import type { P9FileSystem } from '@virtio/9p';
import type { FuseFileSystem } from '@virtio/fs';

/** A tree of files that a host shares. */
export type Share = P9FileSystem | FuseFileSystem;
