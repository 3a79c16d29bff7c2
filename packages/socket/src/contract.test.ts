import { contract } from '@virtio/testing';
import { describe, it } from 'vitest';
import { connectedSocket, packetSubject } from '../test/contract-subject.ts';

contract(packetSubject, { describe, it });
contract(connectedSocket, { describe, it });
