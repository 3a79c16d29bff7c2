import { contract } from '@virtio/testing';
import { describe, it } from 'vitest';
import { rngSubject } from '../test/contract-subject.ts';

contract(rngSubject, { describe, it });
