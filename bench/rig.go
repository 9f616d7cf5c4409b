//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
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
)

// Ways from a visitor to the origin.
const (
	pathWgexpose = "wgexpose"
	pathNetstack = "netstack" // wireguard-go's own, as other tools use it
	pathQuiet    = "quiet"    // wgexpose, for HTTPS: a tunnel whose requests are not read along
	pathPlain    = "plain"    // no tunnel: the kernel's TCP; for HTTPS a reverse proxy
)

// path is how a visitor gets to the origin.
type path struct {
	name  string
	tcp   string // address for raw TCP
	https string // address for HTTPS, "" if there is none
	host  string // name to ask for there
	quiet string // a host whose requests the inspector does not show; "" if there is none
	pids  map[string]int
	rtt   time.Duration // of the emulated link, when its ends last met
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

	origin  origin.Ready
	control string // the origin's Unix socket
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
			p, err = r.startWgexpose(ctx, name, r.cfg.binary)
		case pathQuiet: // beside wgexpose
			same := *r.paths[pathWgexpose]
			same.host, p = same.quiet, &same
		case pathNetstack:
			p, err = r.startNetstack(ctx)
		case pathPlain:
			p, err = r.startPlain(ctx)
		default:
			p, err = r.startWgexpose(ctx, name, r.cfg.against[name])
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
