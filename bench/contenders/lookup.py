"""Python's lookup, as in its manual. The protocol is that of baseline.c."""

import json
import struct
import sys
from socket import SO_PEERCRED, SOL_SOCKET, socket
from time import perf_counter_ns

peer = socket(fileno=3)


def measure(times, expected):
    wrong = 0
    start = perf_counter_ns()
    for _ in range(times):
        if struct.unpack("iII", peer.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)) != expected:
            wrong += 1
    end = perf_counter_ns()
    if wrong > 0:
        sys.exit(f"{wrong} of {times} answers were wrong")
    return (end - start) / times


first = struct.unpack("iII", peer.getsockopt(SOL_SOCKET, SO_PEERCRED, 12))
print(json.dumps(dict(zip(("pid", "uid", "gid"), first))), flush=True)
for line in sys.stdin:
    print(measure(int(line), first), flush=True)
