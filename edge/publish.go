package edge

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
)

const (
	// maxPublished tunnels of one agent, so that a whole set, and the
	// withdrawal of another one, fit into a commit.
	maxPublished = 400
	// maxReserved names and ports of one agent, served or not.
	maxReserved = 1000
	// certWait bounds the wait for certificates in the answer; they are got
	// all the same.
	certWait = 5 * time.Second
	certLook = 20 * time.Millisecond
)

// publisher plans what a publish request changes. It has no effects but those
// of its two functions.
type publisher struct {
	side  publicSide
	ports tunnel.PortRange
	probe func(port uint16) error // nil: the port is open already or can be opened
	rand  io.Reader               // for random names and ports
	now   time.Time

	domains []string                  // outside of the edge's domain, that the node may have
	outside map[string]*control.Error // why host names of these cannot be served now
}

// publishPlan is the outcome of a plan: a commit, and what to answer then.
type publishPlan struct {
	ops     []store.Op
	answers []control.Published // one per spec, in order
	hosts   map[string]int      // host names that are served with TLS, with the index of their answer
	ports   map[uint16]int      // TCP ports to be open, with the index of their answer
}

// plan finds a record for each spec of node, which snap has. Those that name
// what they want go first; the others get back what they had, by tunnel id,
// then by name and upstream, and only then something new.
func (p publisher) plan(snap *snapshot, node tunnel.NodeID, specs []tunnel.Spec) (publishPlan, error) {
	if len(specs) > maxPublished {
		return publishPlan{}, &control.Error{Code: control.CodeBadRequest,
			Message: fmt.Sprintf("%d tunnels are more than the %d that one agent can publish", len(specs), maxPublished)}
	}
	wants := make([]want, len(specs))
	taken := make(map[string]bool, len(specs)) // records that a spec of this set has
	for i, spec := range specs {
		wants[i] = p.read(spec)
	}
	p.askedFor(snap, node, wants, taken)
	p.hadBefore(snap, node, wants, taken)
	if err := p.fresh(snap, node, wants, taken); err != nil {
		return publishPlan{}, err
	}
	return p.finish(snap, node, wants, taken)
}

// finish turns wants into operations and answers. Records that stay as they are
// give no operation, so the same set again changes nothing.
func (p publisher) finish(snap *snapshot, node tunnel.NodeID, wants []want, taken map[string]bool) (publishPlan, error) {
	plan := publishPlan{answers: make([]control.Published, len(wants)), hosts: make(map[string]int), ports: make(map[uint16]int)}
	held := len(snap.owned[node])
	for i := range wants {
		w := &wants[i]
		plan.answers[i] = control.Published{ID: w.spec.ID, Name: cmp.Or(w.name, w.spec.Name), Error: w.err}
		if w.err != nil {
			continue
		}
		old, exists := snap.publics[w.key]
		if !exists {
			if held++; held > maxReserved {
				plan.answers[i].Error = &control.Error{Code: control.CodeBadRequest, Message: fmt.Sprintf(
					"this agent holds %d names and ports already: release some with wgexpose edge release", maxReserved)}
				delete(taken, w.key)
				continue
			}
		}
		rec := store.Public{
			Node: node, Name: w.name, Kind: w.spec.Kind, Host: w.host, Port: w.port,
			Generated: w.generated, Active: true, Spec: w.spec, Created: p.now, Seen: p.now,
		}
		plan.answers[i].PublicURL = p.side.url(rec)
		if w.spec.EndsTLSAtEdge() {
			plan.hosts[w.host] = i
		}
		if !w.spec.Kind.Hosted() {
			plan.ports[w.port] = i
		}
		if exists {
			rec.Created = old.Value.Created
			same := rec
			same.Seen = old.Value.Seen
			if reflect.DeepEqual(same, old.Value) {
				continue
			}
		}
		op, err := store.Put(w.key, rec, old.Revision)
		if err != nil {
			return publishPlan{}, err
		}
		plan.ops = append(plan.ops, op)
	}
	for _, key := range snap.owned[node] {
		old := snap.publics[key]
		if taken[key] || !old.Value.Active {
			continue
		}
		rec := old.Value
		rec.Active, rec.Seen = false, p.now
		op, err := store.Put(key, rec, old.Revision)
		if err != nil {
			return publishPlan{}, err
		}
		plan.ops = append(plan.ops, op)
	}
	if len(plan.ops) > 0 {
		// A node that is revoked at the same moment must not get names.
		plan.ops = append(plan.ops, store.Check(store.NodeKey(node), snap.nodes[node].Revision))
	}
	return plan, nil
}

// Publish implements control.Handler.
func (r *running) Publish(ctx context.Context, from tunnel.NodeID, req control.PublishRequest) (control.PublishReply, error) {
	agent, err := r.agent(ctx, from)
	if err != nil {
		return control.PublishReply{}, err
	}
	if current := r.sessions.current(from); current == "" || req.Session != current {
		return control.PublishReply{}, &control.Error{Code: control.CodeSuperseded,
			Message: "this request is of a session that has ended: open an event stream and publish again"}
	}
	plan, err := r.publish(ctx, agent, req.Tunnels)
	if err != nil {
		return control.PublishReply{}, err
	}
	r.sessions.published(from, req.Session, time.Now())
	for port, i := range plan.ports {
		if err := r.reconcile.portError(port); err != nil {
			a := &plan.answers[i]
			a.PublicURL = ""
			a.Error = publisher{ports: r.cfg.TCPPorts}.cannotOpen(port, err)
		}
	}
	if r.certs != nil && len(plan.hosts) > 0 {
		wait, cancel := context.WithTimeout(ctx, certWait)
		defer cancel()
		if err := r.certs.Manage(wait, slices.Sorted(maps.Keys(plan.hosts))...); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			r.log.Warn("certificates for an agent's tunnels", "agent", agent.Name, "err", err)
		}
		r.awaitCertificates(wait, plan)
	}
	return control.PublishReply{Tunnels: plan.answers}, nil
}

// awaitCertificates waits until every host of the plan has a certificate, or
// ctx ends. Those without get an error in place of their public address, which
// nobody could use yet: the agent asks again.
func (r *running) awaitCertificates(ctx context.Context, plan publishPlan) {
	missing := maps.Clone(plan.hosts)
	look := time.NewTicker(certLook)
	defer look.Stop()
	for {
		maps.DeleteFunc(missing, func(host string, _ int) bool { return r.certs.Covers(host) })
		if len(missing) == 0 {
			return
		}
		select {
		case <-look.C:
			continue
		case <-ctx.Done():
		}
		break
	}
	for host, i := range missing {
		a := &plan.answers[i]
		if a.Error != nil {
			continue
		}
		a.PublicURL = ""
		waits := "the edge's log says what it waits for"
		if err := r.certs.LastError(host); err != nil {
			waits = "the last attempt failed: " + err.Error()
		}
		a.Error = &control.Error{Code: control.CodeCertificatePending, Message: fmt.Sprintf(
			"there is no certificate for %s yet: visitors are served as soon as the certificate authority has issued one; %s", host, waits)}
	}
}

// outsideProblems finds out which of the host names outside of the edge's domain,
// that the agent may have, cannot be served now, and why. A name that the agent
// has already is not looked up again: trouble with DNS must not take it away.
func (r *running) outsideProblems(ctx context.Context, agent store.Node, specs []tunnel.Spec) map[string]*control.Error {
	snap := r.reconcile.snap.Load()
	var look []string
	problems := make(map[string]*control.Error)
	for _, spec := range specs {
		host, err := tunnel.CanonicalHost(spec.Host)
		if err != nil || !spec.Kind.Hosted() || under(host, r.side.domain) || !domainsAllow(agent.Domains, host) {
			continue // the plan says so, or there is nothing to say
		}
		var no *certs.OutsideError
		switch {
		case r.certs != nil && spec.EndsTLSAtEdge() && errors.As(r.certs.Outside(ctx, host), &no):
			problems[host] = &control.Error{Code: control.CodeNameInvalid, Message: no.Error()}
		case snap.publics[store.HTTPSKey(host)].Value.Node != agent.ID && !slices.Contains(look, host):
			look = append(look, host)
		}
	}
	maps.Copy(problems, r.pointing.check(ctx, look))
	return problems
}

// publish plans, commits and applies, for one agent at a time: the probe of a
// port for one would make it look taken to the other.
func (r *running) publish(ctx context.Context, agent store.Node, specs []tunnel.Spec) (plan publishPlan, err error) {
	from, outside := agent.ID, r.outsideProblems(ctx, agent, specs)
	select {
	case r.publishing <- struct{}{}:
		defer func() { <-r.publishing }()
	case <-ctx.Done():
		return plan, ctx.Err()
	}
	rev, err := commit(ctx, r.store, r.reconcile.snap.Load(), func(snap *snapshot) ([]store.Op, error) {
		node, err := snap.agentNode(from)
		if err != nil {
			return nil, err
		}
		plan, err = publisher{
			side: r.side, ports: r.cfg.TCPPorts, probe: r.probePort, rand: rand.Reader, now: time.Now().UTC(),
			domains: node.Value.Domains, outside: outside,
		}.plan(snap, from, specs)
		return plan.ops, err
	})
	if err != nil {
		return plan, err
	}
	return plan, r.applied.wait(ctx, rev)
}

// probePort tells whether a public TCP port is open for a tunnel, or could be.
func (r *running) probePort(port uint16) error {
	if r.reconcile.open(port) {
		return nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort(r.listenTCP(), strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	return l.Close()
}
