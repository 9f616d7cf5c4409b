package edge

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
)

// nameTries bounds the search for a random name that nobody has.
const nameTries = 20

// want is one spec on its way to a record.
type want struct {
	spec      tunnel.Spec
	name      string
	host      string // http, tls: what was asked for; "" leaves it open
	key       string // of the record that it gets; "" as long as it has none
	port      uint16
	generated bool
	err       *control.Error
}

// read checks one spec by itself.
func (p publisher) read(spec tunnel.Spec) want {
	w := want{spec: spec, name: spec.Name}
	if err := spec.Validate(); err != nil {
		w.err = &control.Error{Code: control.CodeBadRequest, Message: err.Error()}
		return w
	}
	if !spec.Kind.Hosted() {
		w.port = spec.Port
		return w
	}
	if spec.PassesTLS() && p.side.scheme != "https" {
		instead := "share the service with wgexpose tcp"
		if spec.Kind == tunnel.HTTP {
			instead = "leave --terminate-at agent out"
		}
		w.err = &control.Error{Code: control.CodeBadRequest,
			Message: "this edge runs with --tls off and has no port for TLS: " + instead + ", or have the edge's owner turn TLS on"}
		return w
	}
	switch {
	case spec.Host != "":
		host, err := tunnel.CanonicalHost(spec.Host)
		if err != nil {
			w.err = &control.Error{Code: control.CodeNameInvalid, Message: err.Error()}
			return w
		}
		if !under(host, p.side.domain) && !domainsAllow(p.domains, host) {
			w.err = p.denied(host, spec.Name)
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

// denied is the refusal of a host name outside of the edge's domain.
func (p publisher) denied(host, name string) *control.Error {
	allowed := "allows no other domain"
	if len(p.domains) > 0 {
		allowed = "allows of others only " + list(p.domains)
	}
	return &control.Error{Code: control.CodeNameDenied, Message: fmt.Sprintf(
		"%s does not lie under %s, this edge's domain, and this agent's invite %s: ask for a name such as %s.%[2]s, or have the edge's owner invite an agent for it: wgexpose edge invite --domains %[1]s",
		host, p.side.domain, allowed, cmp.Or(name, "app"))}
}

// askedFor settles the specs that say which host name or port they want.
func (p publisher) askedFor(snap *snapshot, node tunnel.NodeID, wants []want, taken map[string]bool) {
	for i := range wants {
		w := &wants[i]
		switch {
		case w.err != nil:
		case w.spec.Kind.Hosted() && w.host != "":
			key := store.HTTPSKey(w.host)
			if w.err = p.hostError(snap, node, w.host, key, taken); w.err == nil {
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

// hostError is why a host name that was asked for cannot be had, or nil.
func (p publisher) hostError(snap *snapshot, node tunnel.NodeID, host, key string, taken map[string]bool) *control.Error {
	if taken[key] {
		return &control.Error{Code: control.CodeNameTaken, Message: fmt.Sprintf(
			"%s is asked for by two tunnels of this agent: give one of them another name", host)}
	}
	rec, ok := snap.publics[key]
	if !ok || rec.Value.Node == node {
		return p.outside[host]
	}
	return &control.Error{Code: control.CodeNameTaken, Message: fmt.Sprintf(
		"%s is held by agent %s: choose another name; or, when that agent does not serve it any more, have the edge's owner run: wgexpose edge release %s",
		host, snap.nodeName(rec.Value.Node), host)}
}

// portError is the same for a port.
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
				if w.spec.Kind.Hosted() && !(rec.Generated && strings.HasSuffix(rec.Host, "."+p.side.domain)) {
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
		if w.spec.Kind.Hosted() {
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
