/** Who else can change a file: what is as safe as the process itself belongs to it, or to root. */

/** A file's owner and mode, as stat(2) tells them. */
export interface Ownership {
  readonly uid: number;
  readonly mode: number;
}

/** Group and others may write. */
const WRITABLE = 0o022;

/** In such a folder each may remove only what is his own. */
const STICKY = 0o1000;

/**
 * Why others than root and the process's own user can write to a file; `undefined` if they cannot.
 *
 * @param ownUid Our own effective uid.
 */
export function whoElseWrites({ uid, mode }: Ownership, ownUid: number): string | undefined {
  if (uid !== 0 && uid !== ownUid) return `belongs to uid ${uid}`;
  return (mode & WRITABLE) === 0 ? undefined : "may be written by others";
}

/**
 * {@link whoElseWrites}, for who can replace a file of ours in a folder: in a sticky one (/tmp) others
 * add files, and cannot replace those that are there.
 */
export function whoElseReplaces(folder: Ownership, ownUid: number): string | undefined {
  const mode = isSticky(folder) ? 0 : folder.mode;
  return whoElseWrites({ uid: folder.uid, mode }, ownUid);
}

/** Whether each may remove only what is his own. */
export function isSticky({ mode }: Ownership): boolean {
  return (mode & STICKY) !== 0;
}
