import { describe, expect, it } from 'vitest';
import { CommonFeatures, Feature, FeatureTable } from './features.ts';

const Blk = new FeatureTable('BlkFeatures', { RO: 5, FLUSH: 9, ODD: 66 });

describe('FeatureTable', () => {
  it('numbers the device-independent features as the specification does [6]', () => {
    expect(Feature).toMatchObject({
      NOTIFY_ON_EMPTY: 24,
      ANY_LAYOUT: 27,
      INDIRECT_DESC: 28,
      EVENT_IDX: 29,
      VERSION_1: 32,
      ACCESS_PLATFORM: 33,
      RING_PACKED: 34,
      IN_ORDER: 35,
      ORDER_PLATFORM: 36,
      SR_IOV: 37,
      NOTIFICATION_DATA: 38,
      NOTIF_CONFIG_DATA: 39,
      RING_RESET: 40,
      ADMIN_VQ: 41,
      SUSPEND: 43,
    });
  });

  it('makes sets of names, above 64 bits as well', () => {
    const set = Blk.set('RO', 'ODD', 'VERSION_1');
    expect(set.bits).toBe((1n << 5n) | (1n << 66n) | (1n << 32n));
    expect(set.has('RO')).toBe(true);
    expect(set.has('FLUSH')).toBe(false);
    expect(set.names()).toEqual(['RO', 'ODD', 'VERSION_1']);
  });

  it('prints by name and keeps unknown bits visible', () => {
    expect(String(Blk.fromBits(0x220n | (1n << 50n)))).toBe('BlkFeatures(RO | FLUSH | 0x4000000000000)');
    expect(String(CommonFeatures.fromBits(0n))).toBe('Features(0)');
  });
});
