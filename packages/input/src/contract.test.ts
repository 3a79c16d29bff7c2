import { contract } from '@virtio/testing';
import { describe, it } from 'vitest';
import { inputSubject } from '../test/contract-subject.ts';

contract(inputSubject, { describe, it });
