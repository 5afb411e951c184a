/**
 * Datagrams and the process that sent each: `ucred/datagram`.
 *
 * @module
 */

export {
  type Datagram,
  receive,
  type ReceiveOptions,
  type Receiver,
} from "../identity/datagram.ts";
