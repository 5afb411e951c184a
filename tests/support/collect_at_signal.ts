/** A module to load before a program: at SIGUSR2 it collects garbage and prints the bytes in use on stderr. */

import process from "node:process";
import { bytesInUse } from "./collector.ts";

process.on("SIGUSR2", () => console.error(`${bytesInUse()} bytes in use`));
