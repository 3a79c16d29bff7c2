/**
 * The back ends of a device, one after another: connecting to the first, noticing that one is lost, and connecting to the next.
 * With what each is set up is the transport's business.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { requireSignal, VirtioError, type WaitOptions } from '@virtio/core';
import type { EventPoller } from '@virtio/linux';
import { type Dialer, throwIfAborted } from './dial.ts';
import { Session, type SessionOptions } from './session.ts';

/** The first pause between attempts to reconnect to a back end that is back but does not answer properly. */
const RETRY_MS = 20;
const LONGEST_RETRY_MS = 1000;

/** Options of {@link Backends}. */
export interface BackendsOptions extends Omit<SessionOptions, 'signal' | 'onLost'> {
  readonly poller: EventPoller;
  readonly dialer: Dialer;
  /** The back end in use is lost; {@link Backends.gone} tells whether another will follow. */
  readonly onLost: () => void;
  /**
   * Sets up the next back end, then takes it into use with {@link Backends.use}.
   *
   * @returns false if what it was sent is out of date
   */
  readonly resume: (session: Session) => Promise<boolean>;
}

/** The back ends of a device, one after another. */
export class Backends implements Disposable {
  readonly #options: BackendsOptions;
  readonly #sessionOptions: SessionOptions;
  readonly #closing = new AbortController();
  #current: Session | undefined;
  #coming: Session | undefined;
  /** Whether another back end follows one that is lost. */
  #follows: boolean;
  #lost: VirtioError | undefined;
  #gone = false;
  #connected: PromiseWithResolvers<void> | undefined;
  /** Why the last attempt to reconnect has failed. */
  #failed: VirtioError | undefined;
  #reconnecting = false;
  #disposed = false;

  constructor(options: BackendsOptions) {
    this.#options = options;
    this.#follows = options.reconnect;
    this.#sessionOptions = {
      who: options.who,
      timeoutMs: options.timeoutMs,
      reconnect: options.reconnect,
      configSizes: options.configSizes,
      display: options.display,
      signal: this.#closing.signal,
      onConfigChange: (session) => {
        if (session === this.#current) options.onConfigChange(session);
      },
      onLost: (session, error) => {
        if (session === this.#current) this.#lose(error);
      },
    };
  }

  /** The back end in use. */
  get current(): Session | undefined {
    return this.#current;
  }

  /** The next one, which may have the vrings already, but has not answered all requests yet. */
  get coming(): Session | undefined {
    return this.#coming;
  }

  /** Whether there is none, and none will come. */
  get gone(): boolean {
    return this.#gone;
  }

  /** Why there is none: the loss of the last one. */
  get lost(): VirtioError | undefined {
    return this.#lost;
  }

  /** Why there is none yet: why the last attempt to reconnect has failed, or if there was none, {@link Backends.lost}. */
  get reason(): VirtioError | undefined {
    return this.#failed ?? this.#lost;
  }

  /** Connects to the first back end, and takes it into use. Keeps the event loop alive meanwhile. */
  async first(signal: AbortSignal): Promise<Session> {
    const { poller } = this.#options;
    const cancel = (): void => this.#closing.abort();
    signal.addEventListener('abort', cancel);
    poller.hold();
    try {
      const session = await this.#meet(signal);
      throwIfAborted(signal);
      // It may have answered everything and closed the connection at once.
      if (session.lost !== undefined) throw session.lost;
      this.use(session);
      return session;
    } catch (error) {
      throwIfAborted(signal);
      throw error;
    } finally {
      signal.removeEventListener('abort', cancel);
      poller.release();
    }
  }

  /** Takes a back end into use. */
  use(session: Session): void {
    this.#current = session;
    this.#coming = undefined;
    this.#lost = undefined;
    this.#failed = undefined;
    this.#connected?.resolve();
    this.#connected = undefined;
  }

  /** Waits until a back end is in use. Keeps the event loop alive. @throws {@link VirtioError} `DISPOSED`, `ABORTED` */
  async whenConnected({ signal }: WaitOptions = {}): Promise<void> {
    const { poller, who } = this.#options;
    requireSignal(who, signal);
    if (this.#disposed) throw this.#disposedError();
    if (this.#current !== undefined) return;
    const aborted = Promise.withResolvers<never>();
    const abort = (): void => {
      const reason =
        this.reason === undefined ? '' : `. The reason why there is none: ${this.reason.message}`;
      const text = `the wait for a back end of ${who} was cancelled${reason}`;
      aborted.reject(new VirtioError('ABORTED', text, { cause: signal?.reason }));
    };
    if (signal?.aborted === true) abort();
    this.#connected ??= Promise.withResolvers();
    signal?.addEventListener('abort', abort);
    poller.hold();
    try {
      await Promise.race([this.#connected.promise, aborted.promise]);
    } finally {
      poller.release();
      signal?.removeEventListener('abort', abort);
    }
  }

  /** Ends the connection to the next back end, as what it was sent is out of date; it is connected to again. */
  startAgain(): void {
    this.#coming?.[Symbol.dispose]();
  }

  /** No other back end follows the one in use. */
  end(): void {
    this.#follows = false;
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#closing.abort();
    this.#connected?.reject(this.#disposedError());
    this.#connected?.promise.catch(() => undefined);
    this.#gone = true;
    this.#lost ??= this.#disposedError();
    this.#current?.[Symbol.dispose]();
    this.#current = undefined;
    this.#options.dialer[Symbol.dispose]();
  }

  async #meet(signal: AbortSignal): Promise<Session> {
    const { dialer, poller } = this.#options;
    const options = this.#sessionOptions;
    for (;;) {
      const end = { silent: false };
      const onLost: SessionOptions['onLost'] = (session, error) => {
        end.silent = error.code === 'DEVICE_REMOVED' && !session.heard;
        options.onLost(session, error);
      };
      const socket = await dialer.dial(false, signal);
      try {
        return await Session.open(socket, poller, { ...options, onLost });
      } catch (error) {
        // A program that connects and leaves without a word is no back end: it may have looked whether somebody listens.
        if (!(dialer.listens && end.silent)) throw error;
      }
    }
  }

  #lose(error: VirtioError): void {
    this.#current = undefined;
    this.#lost = error;
    this.#gone = !this.#follows;
    this.#options.onLost();
    if (!this.#gone) void this.#reconnect();
  }

  async #reconnect(): Promise<void> {
    if (this.#reconnecting) return;
    this.#reconnecting = true;
    const { dialer, poller, resume } = this.#options;
    const { signal } = this.#closing;
    const fails = (error: unknown): void => {
      const text = `connecting to ${this.#options.who} again failed: ${String(error)}`;
      this.#failed = VirtioError.is(error) ? error : new VirtioError('SYSTEM_ERROR', text, { cause: error });
    };
    let pause = RETRY_MS;
    while (!this.#disposed && this.#current === undefined) {
      let session: Session | undefined;
      try {
        const socket = await dialer.dial(true, signal, fails);
        session = await Session.open(socket, poller, this.#sessionOptions);
        this.#coming = session;
        if (await resume(session)) continue;
        // The driver went on meanwhile; what it has set up since is sent over a new connection.
        pause = RETRY_MS;
      } catch (error) {
        // This side itself closes the connection if that is out of date.
        if (!VirtioError.is(error, 'DISPOSED')) fails(error);
      }
      this.#coming = undefined;
      session?.[Symbol.dispose]();
      await delay(pause, undefined, { ref: false, signal }).catch(() => undefined);
      pause = Math.min(2 * pause, LONGEST_RETRY_MS);
    }
    this.#reconnecting = false;
  }

  #disposedError(): VirtioError {
    return new VirtioError('DISPOSED', `${this.#options.who} is closed; open it again`);
  }
}
