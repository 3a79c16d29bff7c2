/** What both network drivers have in common: features, configuration, the control queue, and events. */
import {
  BufferDriver,
  DeviceType,
  type DriverEvents,
  type DriverOptions,
  type Hal,
  type LentQueues,
  type QueuePlan,
  type QueuePlanOptions,
  requireInteger,
  requireThreads,
  setUpSpareQueues,
  type SpinOptions,
  type SubmitOptions,
  type ThreadQueues,
  type Transport,
  VirtioError,
  type VirtQueue,
  type WaitOptions,
} from '@virtio/core';
import { type HashLimits, type LinkState, NetConfig } from './config.ts';
import { CONTROL_QUEUE_SIZE, ControlRequests } from './control-requests.ts';
import { type ControlTarget, NetControl, type NetCommand } from './control.ts';
import {
  hasSeveralPairs,
  type NetFeatureName,
  NetFeatures,
  type NetFeatureSet,
  type ReceiveOffload,
  takesLarge,
  wantedFeatures,
  withOnePair,
  withRequirements,
} from './features.ts';
import { HeaderCodec } from './header.ts';
import { isStation, parseMac, randomMac } from './mac.ts';
import {
  DEFAULT_MTU,
  ETHERNET_HEADER_SIZE,
  MAX_OFFLOAD_FRAME,
  MAX_QUEUE_SIZE,
  NetConfigLayout,
  NetStatus,
  QUEUE_PAIRS,
  VLAN_TAG_SIZE,
} from './protocol.ts';

/** Options of both drivers. */
export interface NetDriverOptions extends DriverOptions<NetFeatureName> {
  /** The size of each receive and transmit queue, in descriptors (default 256, or what the device allows). */
  readonly queueSize?: number;
  /** The number of queue pairs to set up (default 1). One is in use until `NetControl.setQueuePairs` or `setRss` is sent. */
  readonly queuePairs?: number;
  /**
   * Further queue pairs to set up for other threads: `forThreads(2)` of `@virtio/core` (default none); see {@link NetDriver.pairFor}. Hashes are then not
   * reported, as a thread without the control queue cannot use them.
   */
  readonly threadPairs?: ThreadQueues;
  /**
   * The work that the device may leave to the receiver: packets with partial checksums, and packets larger than those on the wire.
   * `true` takes all that the device offers (default: none, so that every packet is complete).
   */
  readonly receiveOffloads?: boolean | readonly ReceiveOffload[];
  /** The address to use if the device has none (default: a random one). The device is told of it if it takes addresses. */
  readonly macAddress?: string | Uint8Array;
}

/** The events of a network device. */
export interface NetEvents extends DriverEvents {
  /** The link came up or went down, or its speed or duplex mode changed. */
  link: LinkState;
  /**
   * The device asks the driver to announce itself to the network, with a gratuitous ARP for example; the machine may have been migrated.
   * The driver acknowledges the request to the device.
   */
  announce: undefined;
}

/** The types of tagged packets: with the tag of a customer, and of a provider. */
const VLAN_TYPES: readonly number[] = [0x8100, 0x88a8];

/** The type of a packet that starts at an offset of a buffer; it may end before. */
export function etherType(buffer: Uint8Array, offset: number): number {
  return ((buffer[offset + 12] ?? 0) << 8) | (buffer[offset + 13] ?? 0);
}

/** The base class of {@link VirtioNet} and {@link VirtioNetRaw}. */
export abstract class NetDriver extends BufferDriver<NetFeatureName, NetEvents> {
  /** The device type: network. */
  static readonly deviceType = DeviceType.Network;

  /** Reads and writes the headers of packets. */
  protected readonly codec: HeaderCodec;
  /** Whether each header must have its own descriptor, as some legacy devices require [5.1.9.8]. */
  protected readonly framed: boolean;
  /** Whether the device may deliver packets that are larger than those on the wire. */
  protected readonly takesLarge: boolean;
  /** The length of the longest packet that the device may deliver, without a VLAN tag [5.1.4.2, 5.1.9.3.1]. */
  protected readonly longestReceived: number;
  /** The number of queue pairs that are set up. */
  readonly queuePairs: number;
  /** The number of queue pairs that the device has. More than one can be used only if `queuePairs` or `threadPairs` asked for it. */
  readonly maxQueuePairs: number;
  /** The MTU: that of the device, or 1500. */
  readonly mtu: number;
  /** The limits for hashes, for `NetControl.setRss` and `setHash`. */
  readonly hashLimits: HashLimits;

  readonly #limitsLength: boolean;
  readonly #config: NetConfig;
  readonly #target: ControlTarget & { macAddress: Uint8Array };
  readonly #threadPairs: number;
  readonly #lent: LentQueues[] = [];
  #commands: ControlRequests | undefined;
  #link: LinkState;
  #live = false;
  /** Whether the device asked for an announcement that it does not know to have been seen. */
  #unacknowledged = false;
  /** The acknowledgement that is with the device, if there is one. */
  #acknowledgement: object | undefined;
  /** Whether the device asked for an announcement meanwhile: it may be another one. */
  #askedAgain = false;
  /** Whether the address in use is that of the device's configuration. */
  #hasMac: boolean;

  protected constructor(
    transport: Transport,
    hal: Hal,
    options: NetDriverOptions,
    extra: readonly NetFeatureName[],
  ) {
    const local = options.macAddress === undefined ? undefined : parseMac(options.macAddress);
    if (local !== undefined && !isStation(local)) {
      throw new VirtioError(
        'INVALID_PARAM',
        `${transport.who()}: macAddress is all zeros or a multicast address`,
      );
    }
    const supported = wantedFeatures(transport, options, extra);
    const wantsSeveral = (options.queuePairs ?? 1) > 1 || (options.threadPairs?.count ?? 0) > 0;
    let several = false;
    const choose = (accepted: NetFeatureSet): NetFeatureSet => {
      const features = withRequirements(accepted);
      several = hasSeveralPairs(features);
      // Devices expect all of their pairs with them, see `setUpSpareQueues`.
      return wantsSeveral ? features : withOnePair(features);
    };
    super(transport, hal, { deviceType: DeviceType.Network, table: NetFeatures, supported, choose }, options);
    this.codec = new HeaderCodec(this.features);
    // Kept, as looking at features is not for each packet.
    this.framed = !this.features.has('VERSION_1') && !this.features.has('ANY_LAYOUT');
    this.takesLarge = takesLarge(this.features);
    this.#limitsLength = this.features.has('MTU');
    this.#config = new NetConfig(transport, this.features, (message) => {
      this.quirk(0, message);
    });
    try {
      this.maxQueuePairs = this.#config.readMaxQueuePairs(several);
      const most = hasSeveralPairs(this.features) ? this.maxQueuePairs : 1;
      if (options.queueSize !== undefined) {
        requireInteger(transport, 'queueSize', options.queueSize, 1, MAX_QUEUE_SIZE);
      }
      this.#threadPairs = requireThreads(transport, 'threadPairs', options.threadPairs, most - 1);
      this.queuePairs = Math.min(
        requireInteger(transport, 'queuePairs', options.queuePairs ?? 1, QUEUE_PAIRS.MIN, QUEUE_PAIRS.MAX),
        most - this.#threadPairs,
      );
      this.mtu = this.#config.readMtu();
      this.longestReceived = this.takesLarge
        ? MAX_OFFLOAD_FRAME
        : Math.max(this.mtu, DEFAULT_MTU) + ETHERNET_HEADER_SIZE;
      this.hashLimits = this.#config.readHashLimits();
      this.#link = this.#config.readLink(this.#config.readStatus());
      const mac = this.#config.readMac();
      this.#hasMac = mac !== undefined;
      this.#target = {
        features: this.features,
        maxQueuePairs: most,
        queuePairs: this.queuePairs + this.#threadPairs,
        activePairs: 1,
        receivingPairs: 1,
        steering: undefined,
        hashLimits: this.hashLimits,
        macAddress: mac ?? local ?? randomMac(),
        statsTypes: undefined,
      };
    } catch (error) {
      // So that the device and the transport are given back as after any other failure of the set-up.
      this.setUp(() => {
        throw error;
      });
      throw error;
    }
  }

  /** Sets up the pairs for other threads; called inside `setUp`. */
  protected setUpThreads({ threadPairs, queueSize, receiveOffloads = false }: NetDriverOptions): void {
    if (threadPairs === undefined) return;
    const { features } = this;
    // Only who has the control queue can use what it is for.
    const without = NetFeatures.names(
      features.bits &
        ~withRequirements(NetFeatures.fromBits(features.bits & ~NetFeatures.mask('CTRL_VQ'))).bits,
    );
    for (let n = 0; n < this.#threadPairs; n += 1) {
      const first = 2 * (this.queuePairs + n);
      const size = queueSize === undefined ? {} : { size: queueSize };
      const queues = [
        { index: first, ...size },
        { index: first + 1, ...size },
      ];
      this.#lent.push(
        this.lendQueues(threadPairs, queues, without, NetConfigLayout, {
          receiveOffloads,
          macAddress: this.#target.macAddress,
        }),
      );
    }
  }

  /**
   * Hands one of the `threadPairs` to another thread of this process. The result is plain data: post it, and open it there with
   * `openQueue` of `@virtio/linux`, which returns a driver of this class with one pair of queues and no control queue.
   *
   * The device uses the pair once it is active (`NetControl.setQueuePairs`, `setRss`); after a reset, it must be made active again. Only
   * this thread can reset: calls that wait in the other thread then end with `DEVICE_RESET`, and its driver works again.
   *
   * @param pair {@link NetDriver.queuePairs} for the first one
   * @throws {@link VirtioError} `INVALID_PARAM` if it is not one of them; `ALREADY_USED` if a thread has it, or had it and the device was
   * not reset since; `UNSUPPORTED` if the platform or the transport cannot hand queues over; `DMA_ERROR`
   */
  pairFor(pair: number, options?: QueuePlanOptions): QueuePlan {
    this.checkUsable();
    return this.#lentPair(pair).plan(options);
  }

  /**
   * Takes back the pair of a thread that ended without disposing its driver (it was terminated, for example): after the next reset the
   * pair can be handed over again.
   */
  reclaimPair(pair: number): void {
    this.#lentPair(pair).abandon();
  }

  #lentPair(pair: number): LentQueues {
    const found = this.#lent[pair - this.queuePairs];
    if (found !== undefined) return found;
    throw new VirtioError(
      'INVALID_PARAM',
      `${this.transport.who()}: pair ${String(pair)} is not for other threads; the option threadPairs ` +
        `reserved ${this.#lent.length}, from pair ${this.queuePairs} on`,
    );
  }

  /** Sets up the control queue; called inside `setUp`. */
  protected setUpControl(): void {
    if (!this.features.has('CTRL_VQ')) return;
    const { maxQueuePairs, queuePairs } = this.#target;
    // 5.1.2: behind all pairs that there could be.
    const index = 2 * maxQueuePairs;
    setUpSpareQueues(this.transport, 2 * queuePairs, index, (options) => this.createRequestQueue(options));
    this.#commands = new ControlRequests({
      transport: this.transport,
      queue: this.createRequestQueue({ index, size: CONTROL_QUEUE_SIZE, tableLength: 0 }),
      allocate: (bytes) => this.allocate(bytes, 'device-to-driver'),
      target: this.#target,
      publish: () => {
        for (const queue of this.transmitQueues()) queue.publish();
      },
    });
  }

  /** The last part of a constructor, when all fields are set: the device becomes live. */
  protected override start(): void {
    super.start();
    this.#live = true;
    this.#tellAddress();
    // Not at once, so that the program can add its listeners.
    void Promise.resolve().then(this.#lookAgain);
  }

  /** A copy of the address in use: the device's own, that of the last `NetControl.setMacAddress`, or a local one if the device has none. */
  get macAddress(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(this.#target.macAddress);
  }

  /** The state of the link: always up if the device does not report it. */
  get link(): LinkState {
    return this.#link;
  }

  /** The number of queue pairs that this thread may send packets on. Packets are received on all pairs that are set up. */
  get activePairs(): number {
    return Math.min(this.#target.activePairs, this.queuePairs);
  }

  /** The size of the header before each packet, in bytes. */
  get headerSize(): number {
    return this.codec.size;
  }

  /**
   * 5.1.4.2: nothing is sent beyond the MTU, unless the device cuts it.
   *
   * @throws {@link VirtioError} `INVALID_PARAM`
   */
  protected checkLength(length: number, isCut: boolean, type: number): void {
    if (isCut || !this.#limitsLength) return;
    // The MTU does not count what is ahead of the payload, which a VLAN tag makes longer.
    const most = this.mtu + ETHERNET_HEADER_SIZE + (VLAN_TYPES.includes(type) ? VLAN_TAG_SIZE : 0);
    if (length <= most) return;
    throw new VirtioError(
      'INVALID_PARAM',
      `${this.transport.who()}: cannot send a packet of ${length} bytes: the MTU of ${this.mtu} allows ${most}`,
    );
  }

  /**
   * Sends a control command when it is its turn, and waits for its answer: one command is with the device at a time.
   *
   * @returns the command's result, if it has one
   * @throws {@link VirtioError} `UNSUPPORTED` if a feature is lacking, `INVALID_PARAM`; `IO_ERROR` if the device refuses,
   * `DEVICE_MISBEHAVED` if its answer is neither OK nor ERR; `ABORTED`, or why the answer was lost
   *
   * @example
   * ```ts
   * import { NetControl, type VirtioNet } from '@virtio/net';
   *
   * export async function listenTo(net: VirtioNet, group: string): Promise<void> {
   *   await net.control(NetControl.setPromiscuous(false));
   *   await net.control(NetControl.setMacTable({ multicast: [group] }));
   * }
   * ```
   */
  async control<T>(command: NetCommand<T>, options?: WaitOptions): Promise<T> {
    const commands = this.#requireCommands(command);
    return commands.queue.request(commands.of(command), options);
  }

  /**
   * The same, spinning.
   *
   * @throws {@link VirtioError} as {@link NetDriver.control}; `QUEUE_FULL` while another command is with the device, which may be the
   * driver's own; `NOT_READY` after `options.timeoutMs` (60,000): the device may still carry it out
   */
  controlSync<T>(command: NetCommand<T>, options?: SpinOptions): T {
    const commands = this.#requireCommands(command);
    return commands.queue.requestSync(commands.of(command), options);
  }

  /**
   * Sends a control command without waiting for its answer.
   *
   * @returns a token for {@link NetDriver.completeControl}
   * @throws {@link VirtioError} `UNSUPPORTED`, `INVALID_PARAM`; `QUEUE_FULL` while another command is with the device, which may be the driver's own
   */
  submitControl(command: NetCommand<unknown>, options?: SubmitOptions): number {
    const commands = this.#requireCommands(command);
    return commands.queue.submitRequest(commands.of(command), options);
  }

  /** Shows the device a command that was submitted with `kick: false`. */
  kickControl(): void {
    this.#commands?.queue.kick();
  }

  /** The token of the next command that was answered, each once, or -1. Throws why the device no longer works. */
  pollControl(): number {
    this.checkUsable();
    return this.#commands?.queue.poll() ?? -1;
  }

  /**
   * Completes a command that was answered.
   *
   * @returns the command's result, if it has one
   * @throws {@link VirtioError} `IO_ERROR` if the device refused; `NOT_READY`, `WRONG_TOKEN`, or why the answer was lost
   */
  completeControl(token: number): unknown {
    if (this.#commands !== undefined) return this.#commands.queue.complete(token);
    throw new VirtioError(
      'WRONG_TOKEN',
      `${this.transport.who()} has no control queue, so no command has the token ${token}`,
    );
  }

  /** Cancels a command. The device may still carry it out. Throws `WRONG_TOKEN` if there is no such command. */
  cancelControl(token: number): void {
    if (this.#commands === undefined) this.completeControl(token);
    else this.#commands.queue.cancel(token);
  }

  override pollEvents(): void {
    super.pollEvents();
    if (this.#mustAcknowledge()) this.#acknowledge();
  }

  protected override onConfigChange(): void {
    if (!this.#live) return;
    const status = this.#config.readStatus();
    const link = this.#config.readLink(status);
    const asked = this.features.has('GUEST_ANNOUNCE') && (status & NetStatus.ANNOUNCE) !== 0;
    const announce = asked && !this.#unacknowledged && this.#acknowledgement === undefined;
    if (announce) this.#unacknowledged = true;
    if (asked && this.#acknowledgement !== undefined) this.#askedAgain = true;
    const { up, speed, duplex } = this.#link;
    if (link.up !== up || link.speed !== speed || link.duplex !== duplex) {
      this.#link = link;
      // QEMU stops asking for notifications when it drops what is sent while the link is down (packed rings), and does not begin again.
      if (link.up && !up) {
        for (const queue of this.transmitQueues()) if (queue.inFlight > 0) queue.notify();
      }
      // Inside the notification it may have changed again, and that was told.
      if (this.#link === link) this.emit('link', link);
    }
    // A listener may have reset the driver, after which this was looked at anew.
    if (!announce || !this.#mustAcknowledge()) return;
    this.emit('announce', undefined);
    if (this.#mustAcknowledge()) this.#acknowledge();
  }

  protected override onReset(): void {
    // A device forgets what commands have set.
    this.#target.activePairs = 1;
    this.#target.receivingPairs = 1;
    const mac = this.#config.readMac();
    this.#hasMac = mac !== undefined;
    this.#target.macAddress = mac ?? this.#target.macAddress;
    this.#target.statsTypes = undefined;
    this.#unacknowledged = false;
    this.#acknowledgement = undefined;
    this.#askedAgain = false;
  }

  protected override onLive(): void {
    this.#tellAddress();
    this.onConfigChange();
  }

  /** The rings that packets are sent on. */
  protected abstract transmitQueues(): readonly VirtQueue[];

  #mustAcknowledge(): boolean {
    return this.#unacknowledged && this.failure === undefined;
  }

  /** Reads the configuration again, outside of an interrupt. */
  readonly #lookAgain = (): void => {
    try {
      if (this.failure === undefined) this.onConfigChange();
    } catch (error) {
      this.fail(error as VirtioError);
    }
  };

  /** 5.1.9.5.2.2: tells the device of the address in use, if it has none of its own. A refusal changes nothing. */
  #tellAddress(): void {
    const commands = this.#commands;
    const command = NetControl.setMacAddress(this.#target.macAddress);
    if (this.#hasMac || commands === undefined) return;
    if (!command.features.every((feature) => this.features.has(feature))) return;
    const { queue } = commands;
    const request = commands.of(command);
    if (this.transport.interrupts === undefined) {
      queue.cancel(queue.submitRequest(request, { kick: false }));
      queue.kick();
    } else {
      queue.request(request, { holds: false }).catch(() => undefined);
    }
  }

  /** 5.1.9.5.4.1: acknowledges the device's request, as soon as no other command is with it. */
  #acknowledge(): void {
    const commands = this.#commands;
    if (commands === undefined) return;
    const request = commands.of(NetControl.acknowledgeAnnounce());
    const { queue } = commands;
    try {
      if (this.transport.interrupts === undefined) {
        // Given up before the device is told: it may answer inside the notification, and a listener there take the result.
        queue.cancel(queue.submitRequest(request, { kick: false }));
        this.#unacknowledged = false;
        queue.kick();
        return;
      }
      this.#unacknowledged = false;
      this.#acknowledgement = request;
      const done = (): boolean => {
        // After a reset, another one may be with the device by now.
        if (this.#acknowledgement !== request) return false;
        this.#acknowledgement = undefined;
        const again = this.#askedAgain;
        this.#askedAgain = false;
        return again;
      };
      const taken = (): void => {
        if (done()) this.#lookAgain();
      };
      // A refusal changes nothing: the device asks again, or does not. Nobody waits for the answer.
      queue.request(request, { holds: false }).then(taken, done);
    } catch (error) {
      // Another command is with the device: pollEvents() tries again.
      if (!VirtioError.is(error, 'QUEUE_FULL')) throw error;
    }
  }

  #requireCommands(command: NetCommand<unknown>): ControlRequests {
    this.checkUsable();
    const lacking = command.features.filter((feature) => !this.features.has(feature));
    if (this.#commands !== undefined && lacking.length === 0) return this.#commands;
    throw new VirtioError(
      'UNSUPPORTED',
      `${this.transport.who()} cannot take the command ${command.name}: it needs ` +
        `${(lacking.length === 0 ? ['CTRL_VQ'] : lacking).join(', ')}, but the negotiated features are ${String(this.features)}`,
    );
  }
}
