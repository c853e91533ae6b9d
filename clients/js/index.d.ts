/** Types of `@aibos/realtime`. Durations are milliseconds unless a member says otherwise. */

/** Event names and their data: `new RealtimeClient<{ "invoice.created": Invoice }>({ … })`. */
export type EventMap = Record<string, any>;

export interface Position {
    epoch: string;
    offset: number;
}

/** An event of a room. `offset` and `epoch` are null for volatile events and presence notices; `room` is "" for one to this socket alone. */
export interface RoomEvent<Data = any, Name extends string = string> {
    event: Name;
    room: string;
    data: Data;
    id: string;
    offset: number | null;
    epoch: string | null;
    userId: string | null;
    /** RFC 3339 in UTC. */
    timestamp: string | null;
}

export interface Member {
    userId: string;
    role?: string;
    /** RFC 3339. */
    since?: string;
}

export interface User {
    id: string;
    role: string;
    tenantId: string | null;
}

/** The answer to a join. `recovered`: null where nothing was to be recovered; true: what was missed follows; false: it cannot be had. */
export interface RoomState {
    room: string;
    position: Position;
    members: Member[];
    recovered: boolean | null;
}

/** The acknowledgement of a publish. `duplicate`: this id had been published before, at this position. */
export interface Receipt {
    id: string;
    room: string | null;
    position: Position;
    duplicate: boolean;
}

export interface HistoryPage {
    room: string;
    epoch: string;
    events: RoomEvent[];
    /** There are further ones in the direction that was asked. */
    more: boolean;
}

/** "disconnected": not yet, or given up. */
export type State = "disconnected" | "connecting" | "connected" | "reconnecting" | "closed";

/** Events of the client itself, and those that the server sends by itself. */
export interface LifeEvents {
    connect: [];
    /** Why. */
    disconnect: [reason: string];
    /** How many attempts it took. */
    reconnect: [attempts: number];
    error: [error: RealtimeError | Error];
    "state-change": [state: State];
    /** What is held of this room is stale. `position`: where it goes on; `last`: what was reached before. */
    resync: [notice: { room: string; position: Position | null; last: Position | null }];
    "room-closed": [notice: { roomId: string; reason: string }];
    /** `expiresAt`: Unix time in seconds. */
    "token-expiring": [notice: { expiresAt: number }];
    "user.joined": [member: Member, event: RoomEvent<Member>];
    "user.left": [member: Member, event: RoomEvent<Member>];
}

/** What a callback gets. Where the server awaits an answer (`socket.call`), the first callback's value is it. */
export type Callback<Events extends EventMap, Name extends string> = Name extends keyof LifeEvents
    ? (...values: LifeEvents[Name]) => unknown
    : Name extends keyof Events
      ? (data: Events[Name], event: RoomEvent<Events[Name], Name>) => unknown
      : (data: any, event: RoomEvent) => unknown;

/** Any `WebSocket` class: the browser's, Node's (from 22), or that of the package ws. */
export type WebSocketClass = new (url: string, protocols: string[]) => any;

export interface ClientOptions {
    /** One URL, or several that are tried in turn. `http` and `https` mean `ws` and `wss`; in a page it may be relative: "/ws". */
    url: string | URL | (string | URL)[];
    token?: string;
    /** Asked before every attempt and when the token is about to end. Null: connect without one. */
    getToken?: () => string | null | undefined | Promise<string | null | undefined>;
    /** Default true. */
    reconnect?: boolean;
    /** Attempts after a failure, until one holds for 5 seconds. Default Infinity. */
    reconnectAttempts?: number;
    /** Upper end of the first delay (full jitter); it doubles to 20 seconds. Default 5000. */
    reconnectInterval?: number;
    /** A ping after `interval` of silence (30000); a server that leaves it unanswered for `timeout` (60000) is left. */
    heartbeat?: { interval?: number; timeout?: number };
    /** From the first packet to the server's `connected`; `getToken` has as long again. Default 10000. */
    connectTimeout?: number;
    /** From sending to the answer. Default 10000. */
    requestTimeout?: number;
    /** Messages that may wait to be sent or answered; one more is refused with `overloaded`. Default 1000. */
    bufferSize?: number;
    /** Characters of messages that may wait for callbacks before rooms fall behind; they recover later. Default 16777216. */
    inboxSize?: number;
    /** Default: that of the runtime. */
    WebSocket?: WebSocketClass;
}

export interface CallOptions {
    signal?: AbortSignal;
}

export interface JoinOptions extends CallOptions {
    /** Deliver what came after this position, which the application has kept. Counts only when the room is not joined yet, like `rewind`. */
    recover?: Position;
    /** Deliver the last n events first. */
    rewind?: number;
    /** Also get `user.joined` and `user.left`. */
    presence?: boolean;
}

export interface HistoryOptions extends CallOptions {
    /** At most 300. Default 50. */
    limit?: number;
    before?: Position;
    after?: Position;
    timeout?: number;
}

export interface SendOptions extends CallOptions {
    /** Makes a repetition within five minutes harmless. One is made up where none is given. */
    id?: string;
    /** For all of it, waiting included. Default: `requestTimeout` from each sending on. */
    timeout?: number;
}

/** One consumer for each. An event counts as done when the next one is asked for. */
export interface RoomEvents<Events extends EventMap = EventMap> extends AsyncIterableIterator<RoomEvent<Events[keyof Events]>> {
    readonly position: Position | null;
    return(): Promise<IteratorResult<RoomEvent<Events[keyof Events]>>>;
}

type DataOf<Events extends EventMap, Name extends string> = Name extends keyof Events ? Events[Name] : any;

/** A connection to a realtime server that outlives its sockets. */
export class RealtimeClient<Events extends EventMap = EventMap> {
    /** Throws `ConfigurationError`. */
    constructor(options: ClientOptions);

    readonly state: State;
    /** Null before the first connection, and without a token. */
    readonly user: User | null;
    /** Of the present connection, or of the last one. */
    readonly socketId: string | null;

    connect(options?: CallOptions): Promise<void>;
    close(): Promise<void>;

    /** Returned is a function that ends it. */
    on<Name extends (keyof Events & string) | keyof LifeEvents | (string & {})>(
        event: Name,
        callback: Callback<Events, Name>,
        options?: CallOptions,
    ): () => void;
    once<Name extends (keyof Events & string) | keyof LifeEvents | (string & {})>(
        event: Name,
        callback: Callback<Events, Name>,
        options?: CallOptions,
    ): () => void;
    off(event: string, callback: (...values: any[]) => unknown): void;

    joinRoom(room: string, options?: JoinOptions): Promise<RoomState>;
    leaveRoom(room: string, options?: CallOptions): Promise<void>;
    history(room: string, options?: HistoryOptions): Promise<HistoryPage>;
    presence(room: string, options?: CallOptions & { timeout?: number }): Promise<Member[]>;
    /** Up to where the application is done with a room. */
    position(room: string): Position | null;
    /** The events of a room from now on. It does not join the room. At most `size` (1000) wait. */
    events(room: string, options?: CallOptions & { size?: number }): RoomEvents<Events>;

    /** Publish to a room. */
    sendMessage<Name extends (keyof Events & string) | (string & {})>(
        event: Name,
        data: DataOf<Events, Name>,
        options: SendOptions & { room: string },
    ): Promise<Receipt>;
    /** Without a room: the value of the server's handler, or the receipt of the publish to the only room. */
    sendMessage<Answer = any, Name extends string = string>(
        event: Name,
        data?: DataOf<Events, Name>,
        options?: SendOptions & { room?: undefined },
    ): Promise<Answer>;
    /** Without an acknowledgement, at most once. */
    emit<Name extends (keyof Events & string) | (string & {})>(event: Name, data?: DataOf<Events, Name>, options?: { room?: string }): void;
    authenticate(token: string, options?: CallOptions & { timeout?: number }): Promise<void>;
}

export interface ErrorOptions {
    code?: string;
    retryable?: boolean;
    details?: Record<string, any>;
    cause?: unknown;
}

/** Root of every error that this package raises. */
export class RealtimeError extends Error {
    constructor(message?: string, options?: ErrorOptions);
    /** One word, the same on the wire: "permission_denied", "rate_limited", "timeout", … */
    readonly code: string;
    /** The same may succeed later. */
    readonly retryable: boolean;
    /** What else came with it: `retryAfter` (seconds), `resource`, `action`, `errors`, … */
    readonly details: Record<string, any>;
}

/** An option or an argument is wrong. */
export class ConfigurationError extends RealtimeError {}
/** The token is missing or no good. */
export class AuthenticationError extends RealtimeError {}
/** The user may not do this here. */
export class PermissionDenied extends RealtimeError {}
/** There is no connection, or it ended before the answer came. */
export class ConnectionError extends RealtimeError {
    constructor(message?: string, options?: ErrorOptions & { closeCode?: number; reason?: string });
    readonly closeCode: number | undefined;
    readonly reason: string | undefined;
}
