// Bun serves the default export of its main module at TCP port 3000. This module has none.
import "./.output/server/index.mjs";
