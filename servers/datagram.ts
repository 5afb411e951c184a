/**
 * `ucred/datagram`: receives datagrams together with the credentials of the process that sent each.
 *
 * @module
 */

export {
  type Datagram,
  receive,
  type ReceiveOptions,
  type Receiver,
} from "../identity/datagram.ts";
