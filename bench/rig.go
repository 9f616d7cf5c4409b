//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wgexpose/wgexpose/bench/link"
	"github.com/wgexpose/wgexpose/bench/load"
	"github.com/wgexpose/wgexpose/bench/origin"
	"github.com/wgexpose/wgexpose/bench/process"
	"github.com/wgexpose/wgexpose/bench/procfs"
	"github.com/wgexpose/wgexpose/bench/reference"
)

// Ways from a visitor to the origin.
const (
	pathWgexpose = "wgexpose"
	pathNetstack = "netstack" // wireguard-go's own, as other tools use it
	pathPlain    = "plain"    // no tunnel: the kernel's TCP; for HTTPS a reverse proxy
)

// path is how a visitor gets to the origin.
type path struct {
	name  string
	tcp   string // address for raw TCP
	https string // address for HTTPS, "" if there is none
	host  string // name to ask for there
	pids  map[string]int
}

// site is where processes run: this machine as it is, or the two ends of a link.
type site struct {
	near, far *link.Namespace // visitors and edge; agent and origin. nil: the machine
	edgeHost  string          // address of WireGuard at the edge
	farHost   string          // address of the origin as plain TCP reaches it
}

var loopback = site{edgeHost: "127.0.0.1", farHost: "127.0.0.1"}

func starter(n *link.Namespace) func(*exec.Cmd) error {
	if n == nil {
		return nil
	}
	return n.Start
}

// rig is a set of processes to measure.
type rig struct {
	cfg   config
	site  site
	dir   string // holds states, sockets and files; removed by close
	procs []*process.Process
	paths map[string]*path

	origin      origin.Ready
	control     string // the origin's Unix socket
	edge, agent *process.Process
}

// startTimeout is what one process may take to be ready.
const startTimeout = 60 * time.Second

// newRig starts an origin and what the named paths need. All paths work when it
// returns. When it fails, nothing is left.
func newRig(ctx context.Context, cfg config, at site, paths ...string) (*rig, error) {
	dir, err := os.MkdirTemp("", "wgexpose-bench-")
	if err != nil {
		return nil, err
	}
	r := &rig{cfg: cfg, site: at, dir: dir, control: filepath.Join(dir, "origin.sock"), paths: make(map[string]*path)}
	if err := r.start(ctx, paths); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *rig) start(ctx context.Context, paths []string) error {
	p, err := startRole(ctx, r, roleOrigin, r.site.far, origin.Config{Host: r.farBind(), Control: r.control}, &r.origin)
	if err != nil {
		return err
	}
	originPID := p.PID()
	for _, name := range paths {
		var p *path
		switch name {
		case pathWgexpose:
			p, err = r.startWgexpose(ctx)
		case pathNetstack:
			p, err = r.startNetstack(ctx)
		case pathPlain:
			p, err = r.startPlain(ctx)
		}
		if err != nil {
			return fmt.Errorf("set up %s: %w", name, err)
		}
		p.name = name
		p.pids["origin"] = originPID
		r.paths[name] = p
	}
	// One visitor each, so that no measurement pays for a first handshake.
	for _, p := range r.paths {
		if _, err := r.job(ctx, p, load.Job{Echo: &load.Echo{Targets: map[string]string{p.name: p.tcp}, Size: 64}}); err != nil {
			return fmt.Errorf("a first visitor: %w", err)
		}
	}
	return nil
}

// farBind is where the origin listens. Over a link it is reached both from its
// own machine, by the agent, and through the link.
func (r *rig) farBind() string {
	if r.site.far != nil {
		return "0.0.0.0"
	}
	return "127.0.0.1"
}

// at is an address of host with the port of another address.
func at(host, addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr // an address that a listener gave has a port
	}
	return net.JoinHostPort(host, port)
}

// environment is this process's without what changes how Go programs behave,
// and without settings of wgexpose.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains([]string{"GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG", "GOTRACEBACK"}, name) ||
			strings.HasPrefix(name, "WGEXPOSE_")
	})
}

// spawn starts a process of the rig.
func (r *rig) spawn(name, binary string, where *link.Namespace, args ...string) (*process.Process, error) {
	p, err := process.Start(process.Config{
		Name: name, Path: binary, Args: args, Dir: r.dir, Env: environment(), Start: starter(where),
	})
	if err == nil {
		r.procs = append(r.procs, p)
	}
	return p, err
}

// startRole starts this program in another role and reads what it tells when it
// is ready.
func startRole[Config, Ready any](ctx context.Context, r *rig, role string, where *link.Namespace, cfg Config, ready *Ready) (*process.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	p, err := r.spawn(role, r.cfg.self, where, role)
	if err != nil {
		return nil, err
	}
	if err := p.Send(cfg); err != nil {
		return nil, err
	}
	line, err := p.Next(ctx)
	if err != nil {
		return nil, err
	}
	return p, json.Unmarshal(line, ready)
}

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

// Names of the tunnels.
const (
	tunnelTCP  = "raw"
	tunnelHTTP = "web"
)

// startWgexpose joins an agent to an edge as a user would, with two tunnels.
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
	text := fmt.Sprintf("tunnels:\n  %s:\n    kind: tcp\n    upstream: %s\n  %s:\n    kind: http\n    upstream: %s\n",
		tunnelTCP, at("127.0.0.1", r.origin.TCP), tunnelHTTP, at("127.0.0.1", r.origin.HTTP))
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
		tcp: at("127.0.0.1", public[tunnelTCP].Host), https: ready.HTTPS, host: public[tunnelHTTP].Hostname(),
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

// awaitTunnels waits until both tunnels are up and returns their public
// addresses.
func awaitTunnels(ctx context.Context, agent *process.Process) (map[string]*url.URL, error) {
	public := make(map[string]*url.URL)
	for len(public) < 2 {
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

// job has a load process do a job through a path, and returns the result.
func (r *rig) job(ctx context.Context, p *path, job load.Job) (load.Answer, error) {
	j, err := r.startJob(ctx, p, job)
	if err != nil {
		return load.Answer{}, err
	}
	defer j.proc.Stop()
	return j.await(ctx, load.EventResult)
}

// running is a load process at work.
type running struct{ proc *process.Process }

// startJob starts a load process, which the caller stops.
func (r *rig) startJob(_ context.Context, p *path, job load.Job) (*running, error) {
	if job.PIDs == nil {
		job.PIDs = maps.Clone(p.pids)
	}
	proc, err := process.Start(process.Config{
		Name: "load", Path: r.cfg.self, Args: []string{roleLoad}, Dir: r.dir, Env: environment(), Start: starter(r.site.near),
	})
	if err != nil {
		return nil, err
	}
	if err := proc.Send(job); err != nil {
		proc.Stop()
		return nil, err
	}
	return &running{proc}, nil
}

// await returns the next answer of that event.
func (j *running) await(ctx context.Context, event string) (load.Answer, error) {
	for {
		line, err := j.proc.Next(ctx)
		if err != nil {
			return load.Answer{}, err
		}
		var a load.Answer
		if err := json.Unmarshal(line, &a); err != nil {
			return load.Answer{}, fmt.Errorf("load printed %q: %w", line, err)
		}
		if a.Event == event {
			return a, nil
		}
	}
}

// settle waits until the rig's processes rest, or have had long enough to: what
// one measurement leaves to be done must not fall into the next.
func (r *rig) settle(ctx context.Context) error {
	const look, enough, rest = 100 * time.Millisecond, 3 * time.Second, 10 * time.Millisecond
	for end := time.Now().Add(enough); time.Now().Before(end); {
		before, err := r.cpu()
		if err != nil {
			return err
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		after, err := r.cpu()
		if err != nil {
			return err
		}
		if after-before <= rest {
			return nil
		}
	}
	return nil
}

// cpu is what all processes of the rig have used.
func (r *rig) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, p := range r.procs {
		cpu, err := procfs.CPU(p.PID())
		if err != nil {
			return 0, p.Failure(err)
		}
		sum += cpu
	}
	return sum, nil
}

// close ends all processes, the last started first, and removes what they left.
func (r *rig) close() error {
	for _, p := range slices.Backward(r.procs) {
		p.Stop()
	}
	return os.RemoveAll(r.dir)
}
