import { describe, expect, it } from 'vitest';
import { planDisplay } from './display.ts';

describe('planDisplay', () => {
  it('opens a window where there is a desktop and QEMU has one', () => {
    expect(planDisplay(['none', 'gtk'], { DISPLAY: ':0' }, 'q35', [])).toEqual({
      args: ['-device', 'virtio-gpu-pci', '-display', 'gtk'],
      vnc: false,
    });
    expect(planDisplay(['sdl'], { WAYLAND_DISPLAY: 'wayland-0' }, 'q35', []).args).toContain('sdl');
  });

  it('listens on a loopback socket everywhere else', () => {
    for (const plan of [
      planDisplay(['none', 'gtk'], { DISPLAY: '' }, 'microvm', []),
      planDisplay(['none', 'curses'], { DISPLAY: ':0' }, 'microvm', []),
    ]) {
      expect(plan).toEqual({
        args: ['-device', 'virtio-gpu-device', '-vnc', '127.0.0.1:0,to=99,share=ignore'],
        vnc: true,
      });
    }
  });

  it('leaves it at the GPU that the user gave', () => {
    expect(planDisplay([], {}, 'q35', ['-device', 'virtio-gpu-pci,max_outputs=2']).args).not.toContain(
      '-device',
    );
  });
});
