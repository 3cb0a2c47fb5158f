/** Where a stream has got to. */

/**
 * Keeps the cursor. Keep it where the state is kept that events are applied to: a cursor that
 * outlives its state skips everything the state held.
 */
export interface CursorStore {
  load(): string | null | Promise<string | null>;
  /** Called after everything up to the cursor has been applied. */
  save(cursor: string): void | Promise<void>;
}

/** For state in memory: after a restart, both begin anew. */
export function memoryCursor(): CursorStore {
  let kept: string | null = null;
  return {
    load: () => kept,
    save: (cursor) => {
      kept = cursor;
    },
  };
}

/** For state in `localStorage`, or in anything else of its kind. */
export function storageCursor(storage: Pick<Storage, "getItem" | "setItem">, key: string): CursorStore {
  return {
    load: () => storage.getItem(key),
    save: (cursor) => storage.setItem(key, cursor),
  };
}
