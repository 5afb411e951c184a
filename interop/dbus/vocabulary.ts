/** The vocabulary `dbus`: what the clients of a message bus do. */

import { defineVocabulary, type Vocabulary } from "../../core/policy/document/vocabulary.ts";

const MESSAGES = ["call **", "send **", "receive **"];

/**
 * The actions and attributes of D-Bus, for policies with `about: dbus`. The actions are those of the peer
 * that the policy decides about: it sends a call, it receives a signal.
 */
export const dbusVocabulary: Vocabulary = defineVocabulary({
  name: "dbus",
  actions: {
    "connect": "The peer connects to the bus.",
    "own **": "The peer requests a well-known name: `own org.example.Service`.",
    "see **": "The peer learns that a name exists, and who owns it: `see org.example.Service`. " +
      "Only the guard decides this action.",
    "call **": "The peer calls a method: `call org.example.Interface.Method`. " +
      "A call without an interface is `call .Method`.",
    "send **": "The peer sends another message: `send signal org.example.Interface.Signal`, " +
      "`send return` or `send error org.example.Error`.",
    "receive **": "The peer receives a message: `receive call …`, `receive signal …`, " +
      "`receive return` or `receive error …`.",
  },
  attributes: {
    destination: {
      type: "text",
      description: "The name to which the message was sent; null for a broadcast.",
      actions: MESSAGES,
    },
    destinationNames: {
      type: "texts",
      description: "All names that the recipient owns, the unique one and the queued ones, too.",
      actions: ["call **", "send **"],
    },
    senderNames: {
      type: "texts",
      description: "All names that the sender owns, the unique one and the queued ones, too.",
      actions: ["receive **"],
    },
    path: {
      type: "text",
      description: "The object path; null if the message has none.",
      actions: MESSAGES,
    },
    interface: {
      type: "text",
      description: "The interface; null if the message has none.",
      actions: MESSAGES,
    },
    member: {
      type: "text",
      description: "The method or signal; null if the message has none.",
      actions: MESSAGES,
    },
    signature: {
      type: "text",
      description: 'The signature of the body; "" for an empty body.',
      actions: MESSAGES,
    },
    error: {
      type: "text",
      description: "The name of the error; null if the message is no error.",
      actions: MESSAGES,
    },
    descriptors: {
      type: "number",
      description: "The number of file descriptors that the message has.",
      actions: MESSAGES,
    },
    requestedReply: {
      type: "boolean",
      description: "Whether the message has the serial of a call that waits for its reply.",
      actions: MESSAGES,
    },
    unrequestedReply: {
      type: "boolean",
      description: "Whether the message has a reply serial, but no call waits for this reply.",
      actions: MESSAGES,
    },
    eavesdropping: {
      type: "boolean",
      description: "Whether the message was sent to a recipient other than this one.",
      actions: MESSAGES,
    },
    atConsole: {
      type: "boolean",
      description: "Whether the peer's user is logged in at a seat of this machine.",
    },
  },
});
