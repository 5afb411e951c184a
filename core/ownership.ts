/** Who else can change a file: what is as safe as the process itself belongs to it, or to root. */

/** A file's owner and mode, as stat(2) tells them. */
export interface Ownership {
  readonly uid: number;
  readonly mode: number;
}

/** Whether an owner is root, or the process's own user for certain. */
export type IsTrusted = (uid: number) => boolean;

/** The group, and all others, may write. */
const GROUP_WRITABLE = 0o020;
const WORLD_WRITABLE = 0o002;

/** In such a folder each may remove only what is his own. */
const STICKY = 0o1000;

/** Whether the group that may write to a file certainly has no member who is not trusted. */
export type IsGroupTrusted = () => boolean;

/** Why others than those who are trusted can write to a file; `undefined` if they cannot. */
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
 * {@link unsafeFileReason}, for who can replace a file of ours in a folder: in a sticky one (/tmp) others
 * add files, and cannot replace those that are there.
 */
export function unsafeFolderReason(
  folder: Ownership,
  isTrusted: IsTrusted,
  isGroupTrusted?: IsGroupTrusted,
): string | undefined {
  const mode = isSticky(folder) ? 0 : folder.mode;
  return unsafeFileReason({ uid: folder.uid, mode }, isTrusted, isGroupTrusted);
}

/** Whether each may remove only what is his own. */
export function isSticky({ mode }: Ownership): boolean {
  return (mode & STICKY) !== 0;
}
