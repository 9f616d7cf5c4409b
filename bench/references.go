//go:build linux

package main

import (
	"context"
	"fmt"

	"github.com/wgexpose/wgexpose/bench/reference"
)

// startPlain is the kernel's TCP straight to the origin, and a reverse proxy
// with TLS in front of it.
func (r *rig) startPlain(ctx context.Context) (*path, error) {
	p := &path{tcp: at(r.site.farHost, r.origin.TCP), host: "localhost", pids: map[string]int{}}
	if r.site.far != nil {
		return p, nil
	}
	var ready reference.Ready
	proc, err := startRole(ctx, r, roleRefProxy, nil, reference.ProxyConfig{Host: "127.0.0.1", Origin: r.origin.HTTP}, &ready)
	if err != nil {
		return nil, err
	}
	p.https = ready.Public
	p.pids["proxy"] = proc.PID()
	return p, nil
}

func (r *rig) startNetstack(ctx context.Context) (*path, error) {
	edgeKeys, err := reference.NewKeys()
	if err != nil {
		return nil, err
	}
	agentKeys, err := reference.NewKeys()
	if err != nil {
		return nil, err
	}
	var edge, agent reference.Ready
	edgeProc, err := startRole(ctx, r, roleRefEdge, r.site.near, reference.EdgeConfig{
		Private: edgeKeys.Private, Peer: agentKeys.Public, Host: "127.0.0.1",
	}, &edge)
	if err != nil {
		return nil, err
	}
	agentProc, err := startRole(ctx, r, roleRefAgent, r.site.far, reference.AgentConfig{
		Private: agentKeys.Private, Peer: edgeKeys.Public, Origin: at("127.0.0.1", r.origin.TCP),
		Endpoint: fmt.Sprintf("%s:%d", r.site.edgeHost, edge.WG),
	}, &agent)
	if err != nil {
		return nil, err
	}
	return &path{tcp: edge.Public, pids: map[string]int{"edge": edgeProc.PID(), "agent": agentProc.PID()}}, nil
}
