import { contract } from '@virtio/testing';
import { describe, it } from 'vitest';
import { netSubject, rawNetSubject } from '../test/contract-subject.ts';

contract(netSubject, { describe, it });
contract(rawNetSubject, { describe, it });
