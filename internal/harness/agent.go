package harness

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/edge"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
)

// Agent is a state directory that has joined an edge.
type Agent struct {
	t    testing.TB
	edge *Edge
	Dir  *statedir.Dir
	// Reach is for its runs. AddAgent makes it UDP alone, so that an agent whose
	// packets are lost stays lost.
	Reach        agent.Reach
	Certificates agent.Certificates // for its runs
	agent.Joined
}

// AddAgent invites an agent, and joins it.
func (e *Edge) AddAgent(name string) *Agent {
	e.t.Helper()
	return e.AddAgentBy(name, agent.Reach{Transport: agent.TransportUDP})
}

// AddAgentBy is AddAgent for one that reaches the edge in a certain way.
func (e *Edge) AddAgentBy(name string, how agent.Reach) *Agent {
	e.t.Helper()
	return e.join(name, how, edge.InviteOptions{})
}

// AddAgentFor is AddAgent for one that may have names of other domains.
func (e *Edge) AddAgentFor(name string, domains ...string) *Agent {
	e.t.Helper()
	return e.join(name, agent.Reach{Transport: agent.TransportUDP}, edge.InviteOptions{Domains: domains})
}

func (e *Edge) join(name string, how agent.Reach, invite edge.InviteOptions) *Agent {
	e.t.Helper()
	dir := openDir(e.t)
	joined, err := agent.Join(e.t.Context(), dir, e.Invite(invite), agent.JoinOptions{
		Name: name, Version: "before", Reach: how, Logger: e.Log.With("join", name),
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return &Agent{t: e.t, edge: e, Dir: dir, Reach: how, Joined: joined}
}

// Key is the agent's private key.
func (a *Agent) Key() keys.Private {
	a.t.Helper()
	k, err := keys.Load(a.Dir.Path("agent.key"))
	if err != nil {
		a.t.Fatal(err)
	}
	return k
}

// HTTP is a tunnel to a web server; no name lets the edge choose one.
func HTTP(name, upstream string) agent.Tunnel {
	return agent.Tunnel{Spec: tunnel.Spec{Name: name, Kind: tunnel.HTTP, Upstream: upstream}}
}

// TLS is a tunnel to a service that speaks TLS itself.
func TLS(name, upstream string) agent.Tunnel {
	return agent.Tunnel{Spec: tunnel.Spec{Name: name, Kind: tunnel.TLS, Upstream: upstream}}
}

// TCP is a tunnel to host:port; port 0 lets the edge choose a public port.
func TCP(name, upstream string, port uint16) agent.Tunnel {
	return agent.Tunnel{Spec: tunnel.Spec{Name: name, Kind: tunnel.TCP, Upstream: upstream, Port: port}}
}

// Run is one command of an agent: agent.Run in a goroutine, and what it says.
type Run struct {
	t       testing.TB
	agent   *Agent
	process *process

	mu      sync.Mutex // guards what follows
	events  []agent.Event
	changed chan struct{} // closed and replaced at each event
}

// Publish runs the agent with these tunnels until the test ends.
func (a *Agent) Publish(tunnels ...agent.Tunnel) *Run {
	a.t.Helper()
	r := &Run{t: a.t, agent: a, changed: make(chan struct{})}
	r.process = start(func(ctx context.Context) error {
		return agent.Run(ctx, agent.Config{
			Dir: a.Dir, Tunnels: tunnels, Reach: a.Reach, Certificates: a.Certificates, Version: "test", Logger: a.edge.Log.With("agent", a.Name), Events: r.heard,
		})
	})
	a.t.Cleanup(func() { r.process.end(a.t) })
	return r
}

func (r *Run) heard(e agent.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	close(r.changed)
	r.changed = make(chan struct{})
}

// Wait returns the first event from index after on that is as cond wants, and
// the index behind it.
func (r *Run) Wait(after int, what string, cond func(agent.Event) bool) (agent.Event, int) {
	r.t.Helper()
	limit := time.After(patience)
	for {
		r.mu.Lock()
		events, changed := slices.Clone(r.events), r.changed
		r.mu.Unlock()
		for ; after < len(events); after++ {
			if cond(events[after]) {
				return events[after], after + 1
			}
		}
		select {
		case <-changed:
		case <-r.process.done:
			r.t.Fatalf("the agent ended (%v) before %s; its events: %+v", r.process.err, what, events)
		case <-limit:
			r.t.Fatalf("no %s; the events: %+v", what, events)
		}
	}
}

// Seen is how many events there are so far.
func (r *Run) Seen() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events)
}

// WaitUp waits until the tunnel serves, and returns its public URL.
func (r *Run) WaitUp(name string) string {
	r.t.Helper()
	url, _ := r.WaitUpAfter(0, name)
	return url
}

// WaitUpAfter is WaitUp for events from index after on.
func (r *Run) WaitUpAfter(after int, name string) (string, int) {
	r.t.Helper()
	e, next := r.Wait(after, "tunnel "+name+" up", func(e agent.Event) bool {
		return e.Event == agent.EventTunnel && e.Name == name && e.State == agent.TunnelUp
	})
	return e.PublicURL, next
}

// Stop ends the command as Ctrl-C does.
func (r *Run) Stop() {
	r.t.Helper()
	if err := r.process.end(r.t); err != nil {
		r.t.Errorf("agent %s ended: %v", r.agent.Name, err)
	}
}

// End waits for the command to end by itself.
func (r *Run) End() error {
	r.t.Helper()
	select {
	case <-r.process.done:
		return r.process.err
	case <-time.After(patience):
		r.t.Fatal("the agent does not end")
		return nil
	}
}

// Sleep black-holes the agent's packets, both ways, as when a laptop's lid is
// closed. It needs Options.Relay.
func (r *Run) Sleep() {
	r.t.Helper()
	r.agent.edge.relay.pause(r.agent.flow())
}

// Wake undoes Sleep.
func (r *Run) Wake() {
	r.t.Helper()
	r.agent.edge.relay.resume(r.agent.flow())
}

// Remap has the NAT between the agent and the edge forget its mapping: the agent
// comes from another port from now on. It needs Options.Relay.
func (r *Run) Remap() {
	r.t.Helper()
	r.agent.edge.relay.remap(r.agent.flow())
}

// Strand takes the agent's UDP socket off the network for good, as when its
// address is gone. It needs Options.Relay.
func (r *Run) Strand() {
	r.t.Helper()
	r.agent.edge.relay.strand(r.agent.flow())
}

// Kill ends the command as kill -9 does, as far as the edge can tell: from one
// packet to the next it hears nothing more. It needs Options.Relay.
func (r *Run) Kill() {
	r.t.Helper()
	r.Strand()
	r.Stop()
}

// flow is the agent's address as the edge sees it.
func (a *Agent) flow() string {
	a.t.Helper()
	return a.Row().Endpoint
}

// Row is the agent as the edge lists it.
func (a *Agent) Row() edge.AgentRow {
	a.t.Helper()
	admin := a.edge.Admin()
	defer admin.Close()
	rows, err := admin.Agents(a.t.Context())
	if err != nil {
		a.t.Fatal(err)
	}
	i := slices.IndexFunc(rows, func(r edge.AgentRow) bool { return r.Name == a.Name })
	if i < 0 {
		a.t.Fatalf("the edge does not list agent %s", a.Name)
	}
	return rows[i]
}
