// Command wgexpose shares private services through a WireGuard overlay that
// runs in user space.
//
//	vm$     wgexpose edge --domain example.com
//	vm$     wgexpose edge invite
//	laptop$ wgexpose join wgx1_…
//	laptop$ wgexpose http 8089 --name app
//	https://app.example.com -> http://127.0.0.1:8089
//
// Each file of this package is one command. They read settings (configs), wire
// the edge or the agent together and print; what happens is in those packages.
package main

import (
	"context"
	"os"

	"github.com/wgexpose/wgexpose/service"
)

func main() {
	// quic-go tells this on standard error, of every edge that does not run as root.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true") // cannot fail with such a name
	os.Exit(service.Run(context.Background(), func(ctx context.Context) int {
		return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	}))
}
