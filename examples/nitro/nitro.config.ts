// The preset opens no TCP port. One file without packages beside it runs on Node, Deno and Bun.
export default { preset: "standard", serverDir: "./", noExternals: true };
