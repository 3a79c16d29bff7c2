import { contract } from '@virtio/testing';
import { describe, it } from 'vitest';
import { fsSubject } from '../test/contract-subject.ts';

contract(fsSubject, { describe, it });
