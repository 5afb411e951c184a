/** Determines from owner and mode whether users other than root and our own can change a file. */

/** A file's owner and mode, as stat(2) returns them. */
export interface Ownership {
  readonly uid: number;
  readonly mode: number;
}

/** Returns whether an owner is root, or certainly the process's own user. */
export type IsTrusted = (uid: number) => boolean;

/** `S_IWGRP`, `S_IWOTH`: group and others may write. inode(7) */
const GROUP_WRITABLE = 0o020;
const WORLD_WRITABLE = 0o002;

/** `S_ISVTX`: users may remove only their own files from the folder. inode(7) */
const STICKY = 0o1000;

/** Returns whether all members of a file's group are certainly trusted. */
export type IsGroupTrusted = () => boolean;

/** Returns why untrusted users can write to a file; `undefined` if they cannot. */
export function unsafeFileReason(
  { uid, mode }: Ownership,
  isTrusted: IsTrusted,
  isGroupTrusted: IsGroupTrusted = () => false,
): string | undefined {
  if (!isTrusted(uid)) return `belongs to uid ${uid}`;
  const isSafe = (mode & WORLD_WRITABLE) === 0 &&
    ((mode & GROUP_WRITABLE) === 0 || isGroupTrusted());
  return isSafe ? undefined : "may be written by others";
}

/**
 * Returns why untrusted users can replace our files in a folder; `undefined` if they cannot. In a sticky
 * folder (/tmp) they can add files, but not replace those of others.
 */
export function unsafeFolderReason(
  folder: Ownership,
  isTrusted: IsTrusted,
  isGroupTrusted?: IsGroupTrusted,
): string | undefined {
  const mode = isSticky(folder) ? 0 : folder.mode;
  return unsafeFileReason({ uid: folder.uid, mode }, isTrusted, isGroupTrusted);
}

/** Returns whether users may remove only their own files from a folder. */
export function isSticky({ mode }: Ownership): boolean {
  return (mode & STICKY) !== 0;
}
