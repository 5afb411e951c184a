/** The vocabulary `sudo`: commands and files that a peer wants to run or edit as another user. */

import { defineVocabulary, type Vocabulary } from "../../core/policy/document/vocabulary.ts";

/** The attributes that are digests of the command's file, named as in sudoers(5). */
export const DIGESTS = ["sha224", "sha256", "sha384", "sha512"] as const;

const digest = (bits: number) =>
  ({
    type: "text",
    description: `The SHA-${bits} digest of the command's file, in hexadecimal, lower case.`,
    actions: ["run"],
  }) as const;

/** The actions and attributes of sudo(8), for policies with `about: sudo`. */
export const sudoVocabulary: Vocabulary = defineVocabulary({
  name: "sudo",
  actions: {
    run: "The peer runs a command as the target user.",
    edit: "The peer edits files as the target user, as sudoedit(8) does.",
  },
  attributes: {
    command: {
      type: "text",
      description:
        "The absolute path of the command; the symbolic links in its folder are resolved, the file itself is as given.",
      actions: ["run"],
    },
    arguments: {
      type: "text",
      description:
        "The arguments of the command, or the files to edit, joined by spaces; null without any.",
    },
    sha224: digest(224),
    sha256: digest(256),
    sha384: digest(384),
    sha512: digest(512),
    runasUser: {
      type: "text",
      description: "The name of the target user's account.",
    },
    runasUid: {
      type: "id",
      description: "The uid of the target user.",
    },
    runasGroups: {
      type: "texts",
      description: "The names of all groups of the target user's account, the primary one, too.",
    },
    runasGroup: {
      type: "text",
      description: "The name of the group that the peer requests; null without a request.",
    },
    runasGroupIsOwn: {
      type: "boolean",
      description: "Whether the requested group is one of the target user's; false without one.",
    },
    host: {
      type: "text",
      description: "The host's name up to the first dot, in lower case.",
    },
  },
});
