/** Types of `@aibos/realtime/react`. */

import type { EventMap, Member, RealtimeClient, RoomEvent, State } from "./index.js";

export interface RoomOptions<Events extends EventMap = EventMap> {
    /** Callbacks for events of this room; they may be new functions at every rendering. */
    events?: { [Name in keyof Events & string]?: (data: Events[Name], event: RoomEvent<Events[Name], Name>) => unknown };
    /** Keep `members` up to date. Default false. */
    presence?: boolean;
}

export interface UsedRoom {
    state: State;
    isJoined: boolean;
    members: Member[];
    error: Error | null;
}

/** A room for as long as a component shows it; null or undefined joins none. */
export function useRoom<Events extends EventMap = EventMap>(
    client: RealtimeClient<Events>,
    room: string | null | undefined,
    options?: RoomOptions<Events>,
): UsedRoom;
