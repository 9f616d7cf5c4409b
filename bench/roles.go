//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/wgexpose/wgexpose/bench/load"
	"github.com/wgexpose/wgexpose/bench/origin"
	"github.com/wgexpose/wgexpose/bench/reference"
)

// Names of the roles.
const (
	roleOrigin   = "origin"
	roleLoad     = "load"
	roleRefEdge  = "ref-edge"
	roleRefAgent = "ref-agent"
	roleRefProxy = "ref-proxy"
)

// roles are what this program does for a benchmark that it runs.
var roles = map[string]func(ctx context.Context, stdin io.Reader, stdout io.Writer) error{
	roleOrigin:   role(origin.Run),
	roleLoad:     load.Run,
	roleRefEdge:  role(reference.RunEdge),
	roleRefAgent: role(reference.RunAgent),
	roleRefProxy: role(reference.RunProxy),
}

// role makes a role of a function that serves until its context ends. It reads
// its configuration from standard input, tells on standard output when it is
// ready, and ends with its standard input.
func role[Config, Ready any](serve func(context.Context, Config, func(Ready) error) error) func(context.Context, io.Reader, io.Writer) error {
	return func(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
		in := bufio.NewReader(stdin)
		line, err := in.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("read the configuration: %w", err)
		}
		var cfg Config
		if err := json.Unmarshal(line, &cfg); err != nil {
			return fmt.Errorf("read the configuration: %w", err)
		}
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		go func() {
			_, err := io.Copy(io.Discard, in)
			cancel(errors.Join(errors.New("standard input has ended"), err))
		}()
		return serve(ctx, cfg, func(r Ready) error { return json.NewEncoder(stdout).Encode(r) })
	}
}
