/** Who else can change a file: what is as safe as the process itself belongs to it, or to root. */

/** A file's owner and mode, as stat(2) tells them. */
export interface Ownership {
  readonly uid: number;
  readonly mode: number;
}

/** Whether an owner is root, or the process's own user for certain. */
export type IsTrusted = (uid: number) => boolean;

/** Group and others may write. */
const WRITABLE = 0o022;

/** In such a folder each may remove only what is his own. */
const STICKY = 0o1000;

/** Why others than those who are trusted can write to a file; `undefined` if they cannot. */
export function whoElseWrites(
  { uid, mode }: Ownership,
  isTrusted: IsTrusted,
): string | undefined {
  if (!isTrusted(uid)) return `belongs to uid ${uid}`;
  return (mode & WRITABLE) === 0 ? undefined : "may be written by others";
}

/**
 * {@link whoElseWrites}, for who can replace a file of ours in a folder: in a sticky one (/tmp) others
 * add files, and cannot replace those that are there.
 */
export function whoElseReplaces(folder: Ownership, isTrusted: IsTrusted): string | undefined {
  const mode = isSticky(folder) ? 0 : folder.mode;
  return whoElseWrites({ uid: folder.uid, mode }, isTrusted);
}

/** Whether each may remove only what is his own. */
export function isSticky({ mode }: Ownership): boolean {
  return (mode & STICKY) !== 0;
}
