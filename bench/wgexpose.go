//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"

	"github.com/wgexpose/wgexpose/bench/link"
	"github.com/wgexpose/wgexpose/bench/process"
)

// Names of the tunnels.
const (
	tunnelTCP   = "raw"
	tunnelHTTP  = "web"
	tunnelQuiet = "quiet" // the same with inspect: false
)

// startWgexpose joins an agent to an edge as a user would, with three tunnels.
func (r *rig) startWgexpose(ctx context.Context) (*path, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	edgeState, agentState := filepath.Join(r.dir, "edge"), filepath.Join(r.dir, "agent")
	port, err := r.freePort()
	if err != nil {
		return nil, err
	}
	args := append([]string{
		"edge", "--json", "--state", edgeState, "--domain", "localhost", "--tls", "internal",
		"--listen-wg", r.site.edgeHost + ":0", "--endpoint", r.site.edgeHost,
		"--listen-https", "127.0.0.1:0", "--listen-http", "off",
		"--handshake-rate", "100000", // all visitors have one address
		"--listen-tcp", "127.0.0.1", "--tcp-ports", fmt.Sprintf("%d-%d", port, port),
	}, r.cfg.edgeArgs...)
	if r.edge, err = r.spawn("wgexpose edge", r.cfg.binary, r.site.near, args...); err != nil {
		return nil, err
	}
	var ready struct{ Event, HTTPS string }
	if _, err := r.edge.Await(ctx, func(line []byte) bool {
		return json.Unmarshal(line, &ready) == nil && ready.Event == "ready"
	}); err != nil {
		return nil, err
	}
	token, err := r.command(ctx, r.site.near, "", "edge", "invite", "--state", edgeState)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(r.dir, "wgexpose.yml")
	web := at("127.0.0.1", r.origin.HTTP)
	text := fmt.Sprintf("web_addr: 127.0.0.1:0\ntunnels:\n  %s: {kind: tcp, upstream: %q}\n  %s: {kind: http, upstream: %q}\n  %s: {kind: http, upstream: %q, inspect: false}\n",
		tunnelTCP, at("127.0.0.1", r.origin.TCP), tunnelHTTP, web, tunnelQuiet, web)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if _, err := r.command(ctx, r.site.far, token, "join", "-", "--state", agentState, "--config", config); err != nil {
		return nil, err
	}
	args = append([]string{"up", "--json", "--state", agentState, "--config", config}, r.cfg.upArgs...)
	if r.agent, err = r.spawn("wgexpose up", r.cfg.binary, r.site.far, args...); err != nil {
		return nil, err
	}
	public, err := awaitTunnels(ctx, r.agent)
	if err != nil {
		return nil, err
	}
	return &path{
		tcp: at("127.0.0.1", public[tunnelTCP].Host), https: ready.HTTPS, host: public[tunnelHTTP].Hostname(), quiet: public[tunnelQuiet].Hostname(),
		pids: map[string]int{"edge": r.edge.PID(), "agent": r.agent.PID()},
	}, nil
}

// command runs a command of wgexpose to its end.
func (r *rig) command(ctx context.Context, where *link.Namespace, stdin string, args ...string) (string, error) {
	return process.Run(ctx, process.Config{
		Name: "wgexpose " + args[0], Path: r.cfg.binary, Args: args, Dir: r.dir, Env: environment(), Start: starter(where),
	}, stdin)
}

// freePort is a TCP port for visitors that is free now: an edge takes a range of
// ports, not port 0.
func (r *rig) freePort() (port uint16, err error) {
	choose := func() error {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		port = ln.Addr().(*net.TCPAddr).AddrPort().Port()
		return ln.Close()
	}
	if r.site.near == nil {
		return port, choose()
	}
	err = r.site.near.Do(choose)
	return port, err
}

// awaitTunnels waits until all tunnels are up and returns their public
// addresses.
func awaitTunnels(ctx context.Context, agent *process.Process) (map[string]*url.URL, error) {
	public := make(map[string]*url.URL)
	for len(public) < 3 {
		line, err := agent.Next(ctx)
		if err != nil {
			return nil, err
		}
		var e struct {
			Event, State, Name string
			PublicURL          string `json:"public_url"`
			Error              *struct{ Message string }
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("the agent printed %q: %w", line, err)
		}
		switch {
		case e.Event == "tunnel" && e.State == "up":
			u, err := url.Parse(e.PublicURL)
			if err != nil {
				return nil, err
			}
			public[e.Name] = u
		case e.Event == "tunnel" && e.State == "error" && e.Error != nil:
			return nil, fmt.Errorf("tunnel %s: %s", e.Name, e.Error.Message)
		}
	}
	return public, nil
}
