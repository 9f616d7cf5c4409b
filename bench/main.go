//go:build linux

// Command bench measures wgexpose against what others do, on one machine, with
// a process of its own for each part:
//
//	make bench                           all cases, about 13 minutes
//	bin/bench -quick                     all cases, about a minute
//	bin/bench -only bulk,echo -rounds 9  some of them, for longer
//	bin/bench -link                      over an emulated link (root)
//
// Visitors' traffic is made by a load process and ends in an origin process.
// Between the two are, in turn: the wgexpose program as edge and agent; an edge
// and an agent made of wireguard-go's own tun/netstack; nothing, which is plain
// loopback; and for HTTPS a plain reverse proxy with TLS. All of it is on
// loopback, on ports that the kernel chooses.
//
// What is compared is measured in turns, A B A B, and each comparison is the
// median over the rounds of the ratio within a round. The result is printed as
// a table and written with all raw samples to out/*.json.
//
// The roles origin, load, ref-edge, ref-agent and ref-proxy are for the
// program's own use; each reads its configuration as a line of JSON.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	interrupted := ctx.Err() != nil
	stop()
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case interrupted:
		fmt.Fprintln(os.Stderr, "bench: interrupted")
		os.Exit(130)
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		if role, ok := roles[args[0]]; ok {
			return role(ctx, stdin, stdout)
		}
	}
	cfg, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	s := &session{config: cfg, report: newReport(cfg, args), out: stdout}
	err = s.run(ctx)
	// What was measured before a failure is of use too.
	return errors.Join(err, s.finish())
}
