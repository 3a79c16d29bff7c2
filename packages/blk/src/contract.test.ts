import { contract } from '@virtio/testing';
import { describe, it } from 'vitest';
import { blkSubject } from '../test/contract-subject.ts';

contract(blkSubject, { describe, it });
