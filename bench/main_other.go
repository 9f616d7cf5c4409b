//go:build !linux

// Command bench measures wgexpose. It reads /proc, and needs Linux.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "bench: this needs Linux, for it reads what /proc tells of processes")
	os.Exit(1)
}
