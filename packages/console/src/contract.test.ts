import { contract } from '@virtio/testing';
import { describe, it } from 'vitest';
import { consoleSubject } from '../test/contract-subject.ts';

contract(consoleSubject, { describe, it });
