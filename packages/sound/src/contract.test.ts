import { contract } from '@virtio/testing';
import { describe, it } from 'vitest';
import { soundSubject } from '../test/contract-subject.ts';

contract(soundSubject, { describe, it });
