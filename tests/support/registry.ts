/** A registry of container images at 127.0.0.1, which engines use without TLS. It serves one image. */

import { createHash } from "node:crypto";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";

const digestOf = (bytes: Uint8Array) =>
  `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

const DOCKER = "application/vnd.docker";

/** A running registry. */
export class Registry {
  /** The name of its image. */
  readonly image: string;
  readonly #server: Server;

  private constructor(image: string, server: Server) {
    this.image = image;
    this.#server = server;
  }

  /** @param root The root file system of the image, as a tar archive. */
  static async start(root: Uint8Array): Promise<Registry> {
    const layer = gzipSync(root);
    const config = Buffer.from(JSON.stringify({
      ...{ architecture: "amd64", os: "linux", config: { Cmd: ["/box", "id"] } },
      rootfs: { type: "layers", diff_ids: [digestOf(root)] },
    }));
    const part = (kind: string, bytes: Uint8Array) => ({
      ...{ mediaType: `${DOCKER}.${kind}`, size: bytes.length, digest: digestOf(bytes) },
    });
    const manifest = Buffer.from(JSON.stringify({
      ...{ schemaVersion: 2, mediaType: `${DOCKER}.distribution.manifest.v2+json` },
      config: part("container.image.v1+json", config),
      layers: [part("image.rootfs.diff.tar.gzip", layer)],
    }));
    const blobs = new Map([config, layer, manifest].map((bytes) => [digestOf(bytes), bytes]));
    const server = createServer(({ url = "", method }, response) => {
      const [, kind, ref = ""] = /^\/v2\/team\/box\/(manifests|blobs)\/(.+)$/.exec(url) ?? [];
      const bytes = url === "/v2/"
        ? Buffer.from("{}")
        : kind === "manifests" && ref === "1"
        ? manifest
        : blobs.get(ref);
      if (bytes === undefined) return void response.writeHead(404).end();
      const isManifest = kind === "manifests";
      response.writeHead(200, {
        "Content-Type": isManifest ? `${DOCKER}.distribution.manifest.v2+json` : "application/json",
        "Content-Length": bytes.length,
        "Docker-Content-Digest": digestOf(bytes),
      }).end(method === "HEAD" ? undefined : bytes);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new Registry(`127.0.0.1:${(server.address() as AddressInfo).port}/team/box:1`, server);
  }

  stop(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
