import { contract } from '@virtio/testing';
import { describe, it } from 'vitest';
import { gpuSubject } from '../test/contract-subject.ts';

contract(gpuSubject, { describe, it });
