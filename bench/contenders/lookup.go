// Go's lookup, with its standard library. The protocol is that of baseline.c.
package main

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

const fd = 3

func lookup() syscall.Ucred {
	found, err := syscall.GetsockoptUcred(fd, syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return *found
}

func measure(times int, expected syscall.Ucred) float64 {
	wrong := 0
	start := time.Now()
	for i := 0; i < times; i++ {
		if lookup() != expected {
			wrong++
		}
	}
	elapsed := time.Since(start)
	if wrong > 0 {
		fmt.Fprintf(os.Stderr, "%d of %d answers were wrong\n", wrong, times)
		os.Exit(1)
	}
	return float64(elapsed.Nanoseconds()) / float64(times)
}

func main() {
	first := lookup()
	fmt.Printf("{\"pid\":%d,\"uid\":%d,\"gid\":%d}\n", first.Pid, first.Uid, first.Gid)
	for times := 0; ; {
		if _, err := fmt.Scanln(&times); err != nil {
			return
		}
		fmt.Println(measure(times, first))
	}
}
