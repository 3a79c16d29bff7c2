import { contract } from '@virtio/testing';
import { describe, it } from 'vitest';
import { p9Subject } from '../test/contract-subject.ts';

contract(p9Subject, { describe, it });
