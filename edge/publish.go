package edge

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

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
	// nameTries bounds the search for a random name that nobody has.
	nameTries = 20
	// certWait bounds the wait for certificates in the answer; they are got
	// all the same.
	certWait = 5 * time.Second
)

// publisher plans what a publish request changes. It has no effects but those
// of its two functions.
type publisher struct {
	side  publicSide
	ports tunnel.PortRange
	probe func(port uint16) error // nil: the port is open already or can be opened
	rand  io.Reader               // for random names and ports
	now   time.Time
}

// publishPlan is the outcome of a plan: a commit, and what to answer then.
type publishPlan struct {
	ops     []store.Op
	answers []control.Published // one per spec, in order
	hosts   []string            // host names that are served with TLS
	ports   map[uint16]int      // TCP ports to be open, with the index of their answer
}

// want is one spec on its way to a record.
type want struct {
	spec      tunnel.Spec
	name      string
	host      string // http: what was asked for; "" leaves it open
	key       string // of the record that it gets; "" as long as it has none
	port      uint16
	generated bool
	err       *control.Error
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

// read checks one spec by itself.
func (p publisher) read(spec tunnel.Spec) want {
	w := want{spec: spec, name: spec.Name}
	if err := spec.Validate(); err != nil {
		w.err = &control.Error{Code: control.CodeBadRequest, Message: err.Error()}
		return w
	}
	if spec.Kind != tunnel.HTTP {
		w.port = spec.Port
		return w
	}
	switch {
	case spec.Host != "":
		host, err := tunnel.CanonicalHost(spec.Host)
		if err != nil {
			w.err = &control.Error{Code: control.CodeNameInvalid, Message: err.Error()}
			return w
		}
		if host != p.side.domain && !strings.HasSuffix(host, "."+p.side.domain) {
			w.err = &control.Error{Code: control.CodeNameInvalid, Message: fmt.Sprintf(
				"%s does not lie under %s, this edge's domain; it serves no other domains yet: ask for a name such as %s.%s",
				host, p.side.domain, cmp.Or(spec.Name, "app"), p.side.domain)}
			return w
		}
		w.host = host
		if w.name == "" {
			w.name, _, _ = strings.Cut(host, ".")
		}
	case spec.Name != "":
		w.host = spec.Name + "." + p.side.domain
	}
	return w
}

// askedFor settles the specs that say which host name or port they want.
func (p publisher) askedFor(snap *snapshot, node tunnel.NodeID, wants []want, taken map[string]bool) {
	for i := range wants {
		w := &wants[i]
		switch {
		case w.err != nil:
		case w.spec.Kind == tunnel.HTTP && w.host != "":
			key := store.HTTPSKey(w.host)
			if w.err = p.conflict(snap, node, key, p.side.hostURL(w.host), control.CodeNameTaken, taken); w.err == nil {
				w.key = key
				taken[key] = true
			}
		case w.spec.Kind == tunnel.TCP && w.port != 0:
			key := store.TCPKey(w.port)
			if w.err = p.portError(snap, node, w.port, key, taken); w.err == nil {
				w.key = key
				w.name = cmp.Or(w.name, fmt.Sprintf("tcp-%d", w.port))
				taken[key] = true
			}
		}
	}
}

// conflict is the refusal of a record that is somebody else's, or nil.
func (p publisher) conflict(snap *snapshot, node tunnel.NodeID, key, what, code string, taken map[string]bool) *control.Error {
	if taken[key] {
		return &control.Error{Code: code, Message: fmt.Sprintf("%s is asked for by two tunnels of this agent: give one of them another name", what)}
	}
	rec, ok := snap.publics[key]
	if !ok || rec.Value.Node == node {
		return nil
	}
	return &control.Error{Code: code, Message: fmt.Sprintf(
		"%s is held by agent %s: choose another name, or have the edge's owner run: wgexpose edge release %s",
		what, snap.nodeName(rec.Value.Node), strings.TrimPrefix(strings.TrimPrefix(what, "https://"), "http://"))}
}

func (p publisher) portError(snap *snapshot, node tunnel.NodeID, port uint16, key string, taken map[string]bool) *control.Error {
	if p.ports.Len() == 0 {
		return p.noPorts()
	}
	if !p.ports.Contains(port) {
		return &control.Error{Code: control.CodePortRange, Message: fmt.Sprintf(
			"TCP port %d is outside of %s, the range of this edge: ask for one of the range, or for none to be given one", port, p.ports)}
	}
	switch rec, ok := snap.publics[key]; {
	case taken[key]:
		return &control.Error{Code: control.CodePortTaken, Message: fmt.Sprintf(
			"TCP port %d is asked for by two tunnels of this agent: the range of this edge is %s", port, p.ports)}
	case ok && rec.Value.Node != node:
		return &control.Error{Code: control.CodePortTaken, Message: fmt.Sprintf(
			"TCP port %d is held by agent %s: ask for another of the range %s, or for none to be given one",
			port, snap.nodeName(rec.Value.Node), p.ports)}
	}
	if err := p.probe(port); err != nil {
		return p.cannotOpen(port, err)
	}
	return nil
}

func (p publisher) noPorts() *control.Error {
	return &control.Error{Code: control.CodePortRange,
		Message: "this edge has no public TCP ports: its owner can set a range with --tcp-ports FIRST-LAST"}
}

func (p publisher) cannotOpen(port uint16, err error) *control.Error {
	return &control.Error{Code: control.CodePortTaken, Message: fmt.Sprintf(
		"the edge cannot open TCP port %d (%v): ask for another of the range %s, or for none to be given one", port, err, p.ports)}
}

// hadBefore gives the specs that leave their public side open the records that
// this node has for them. The passes go from the surest sign to the weakest, so
// that a tunnel never loses its record to one that merely looks like it.
func (p publisher) hadBefore(snap *snapshot, node tunnel.NodeID, wants []want, taken map[string]bool) {
	mine := snap.owned[node]
	passes := []func(w *want, rec store.Public) bool{
		func(w *want, rec store.Public) bool { return rec.Spec.ID == w.spec.ID && rec.Spec.Name == w.spec.Name },
		func(w *want, rec store.Public) bool {
			return rec.Spec.Name == w.spec.Name && rec.Spec.Upstream == w.spec.Upstream
		},
		func(w *want, rec store.Public) bool {
			return w.spec.Kind == tunnel.TCP && w.spec.Name != "" && rec.Spec.Name == w.spec.Name
		},
	}
	for _, same := range passes {
		for i := range wants {
			w := &wants[i]
			if w.err != nil || w.key != "" {
				continue
			}
			for _, key := range mine {
				rec := snap.publics[key].Value
				if taken[key] || rec.Kind != w.spec.Kind || !same(w, rec) {
					continue
				}
				if w.spec.Kind == tunnel.HTTP && !(rec.Generated && strings.HasSuffix(rec.Host, "."+p.side.domain)) {
					continue
				}
				if w.spec.Kind == tunnel.TCP && (!p.ports.Contains(rec.Port) || p.probe(rec.Port) != nil) {
					continue
				}
				w.key, w.host, w.port = key, rec.Host, rec.Port
				w.generated = rec.Generated
				w.name = rec.Name
				taken[key] = true
				break
			}
		}
	}
}

// fresh gives the rest something that nobody has.
func (p publisher) fresh(snap *snapshot, node tunnel.NodeID, wants []want, taken map[string]bool) error {
	for i := range wants {
		w := &wants[i]
		if w.err != nil || w.key != "" {
			continue
		}
		w.generated = w.spec.Name == "" // a port that has a name is the node's for good
		if w.spec.Kind == tunnel.HTTP {
			if err := p.freshHost(snap, w, taken); err != nil {
				return err
			}
			continue
		}
		if err := p.freshPort(snap, w, taken); err != nil {
			return err
		}
	}
	return nil
}

func (p publisher) freshHost(snap *snapshot, w *want, taken map[string]bool) error {
	for range nameTries {
		name := tunnel.RandomName(p.rand)
		key := store.HTTPSKey(name + "." + p.side.domain)
		if _, ok := snap.publics[key]; ok || taken[key] {
			continue
		}
		w.name, w.host, w.key = name, name+"."+p.side.domain, key
		taken[key] = true
		return nil
	}
	return fmt.Errorf("no free random name in %d tries", nameTries)
}

// freshPort looks from a random port on, so that a port which was just given up
// is not somebody else's the next moment.
func (p publisher) freshPort(snap *snapshot, w *want, taken map[string]bool) error {
	n := p.ports.Len()
	if n == 0 {
		w.err = p.noPorts()
		return nil
	}
	start, err := randomBelow(p.rand, n)
	if err != nil {
		return err
	}
	for i := range n {
		port := p.ports.First + uint16((start+i)%n)
		key := store.TCPKey(port)
		if _, ok := snap.publics[key]; ok || taken[key] || p.probe(port) != nil {
			continue
		}
		w.port, w.key = port, key
		w.name = cmp.Or(w.name, fmt.Sprintf("tcp-%d", port))
		taken[key] = true
		return nil
	}
	w.err = &control.Error{Code: control.CodePortTaken, Message: fmt.Sprintf(
		"no port is free in %s, the range of this edge: its owner can widen it with --tcp-ports, or release ports that are reserved", p.ports)}
	return nil
}

func randomBelow(r io.Reader, n int) (int, error) {
	var b [4]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, fmt.Errorf("read random bytes: %w", err)
	}
	return int((uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])) % uint64(n)), nil
}

// finish turns wants into operations and answers. Records that stay as they are
// give no operation, so the same set again changes nothing.
func (p publisher) finish(snap *snapshot, node tunnel.NodeID, wants []want, taken map[string]bool) (publishPlan, error) {
	plan := publishPlan{answers: make([]control.Published, len(wants)), ports: make(map[uint16]int)}
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
		if w.spec.Kind == tunnel.HTTP {
			plan.answers[i].PublicURL = p.side.hostURL(w.host)
			plan.hosts = append(plan.hosts, w.host)
		} else {
			plan.answers[i].PublicURL = p.side.portURL(w.port)
			plan.ports[w.port] = i
		}
		if exists {
			rec.Created = old.Value.Created
			same := rec
			same.Seen = old.Value.Seen
			if same == old.Value {
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
	var plan publishPlan
	rev, err := commit(ctx, r.store, func(snap *snapshot) ([]store.Op, error) {
		if _, err := snap.agentNode(from); err != nil {
			return nil, err
		}
		var err error
		plan, err = publisher{
			side: r.side, ports: r.cfg.TCPPorts, probe: r.probePort, rand: rand.Reader, now: time.Now().UTC(),
		}.plan(snap, from, req.Tunnels)
		return plan.ops, err
	})
	if err != nil {
		return control.PublishReply{}, err
	}
	if err := r.applied.wait(ctx, rev); err != nil {
		return control.PublishReply{}, err
	}
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
		if err := r.certs.Manage(wait, plan.hosts...); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			r.log.Warn("certificates for an agent's tunnels", "agent", agent.Name, "err", err)
		}
	}
	return control.PublishReply{Tunnels: plan.answers}, nil
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
