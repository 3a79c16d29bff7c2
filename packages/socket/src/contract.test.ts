import { contract } from '@virtio/testing';
import { describe, it } from 'vitest';
import { connectionSubject, packetSubject } from '../test/contract-subject.ts';

contract(packetSubject, { describe, it });
contract(connectionSubject, { describe, it });
