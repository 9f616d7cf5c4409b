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

// startWgexpose joins an agent to an edge as a user would, with three tunnels. name
// is that of the path, and binary the program.
func (r *rig) startWgexpose(ctx context.Context, name, binary string) (*path, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	dir := filepath.Join(r.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	edgeState, agentState := filepath.Join(dir, "edge"), filepath.Join(dir, "agent")
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
	edge, err := r.spawn(name+" edge", binary, r.site.near, args...)
	if err != nil {
		return nil, err
	}
	var ready struct{ Event, HTTPS string }
	if _, err := edge.Await(ctx, func(line []byte) bool {
		return json.Unmarshal(line, &ready) == nil && ready.Event == "ready"
	}); err != nil {
		return nil, err
	}
	token, err := r.command(ctx, binary, r.site.near, "", "edge", "invite", "--state", edgeState)
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "wgexpose.yml")
	web := at("127.0.0.1", r.origin.HTTP)
	text := fmt.Sprintf("web_addr: 127.0.0.1:0\ntunnels:\n  %s: {kind: tcp, upstream: %q}\n  %s: {kind: http, upstream: %q}\n  %s: {kind: http, upstream: %q, inspect: false}\n",
		tunnelTCP, at("127.0.0.1", r.origin.TCP), tunnelHTTP, web, tunnelQuiet, web)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if _, err := r.command(ctx, binary, r.site.far, token, "join", "-", "--state", agentState, "--config", config); err != nil {
		return nil, err
	}
	args = append([]string{"up", "--json", "--state", agentState, "--config", config}, r.cfg.upArgs...)
	agent, err := r.spawn(name+" up", binary, r.site.far, args...)
	if err != nil {
		return nil, err
	}
	public, err := awaitTunnels(ctx, agent)
	if err != nil {
		return nil, err
	}
	return &path{
		tcp: at("127.0.0.1", public[tunnelTCP].Host), https: ready.HTTPS, host: public[tunnelHTTP].Hostname(), quiet: public[tunnelQuiet].Hostname(),
		pids: map[string]int{"edge": edge.PID(), "agent": agent.PID()},
	}, nil
}

// command runs a command of wgexpose to its end.
func (r *rig) command(ctx context.Context, binary string, where *link.Namespace, stdin string, args ...string) (string, error) {
	return process.Run(ctx, process.Config{
		Name: filepath.Base(binary) + " " + args[0], Path: binary, Args: args, Dir: r.dir, Env: environment(), Start: starter(where),
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
