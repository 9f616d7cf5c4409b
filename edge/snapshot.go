package edge

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
)

// nodeRevoked is the kind of a record that is kept for an agent that was
// revoked: its key and its node id are never used again.
const nodeRevoked store.NodeKind = "revoked"

// edgeNode is the id of this edge. A fleet's edges take others up to 255.
const edgeNode tunnel.NodeID = 1

// servingKey is the record of how the edge was last reached. With it, invites
// can be made and public addresses shown while the edge is stopped.
const servingKey = "serving/0000000001"

// ownCertificatesKey is the record of where own certificates are, as of the last
// start: they can be listed while the edge is stopped.
const ownCertificatesKey = "own-certificates/0000000001"

// ownCertificates are the files of own certificates, by absolute paths.
type ownCertificates struct {
	Files  []certs.Pair `json:"files,omitempty"`
	Folder string       `json:"folder,omitempty"`
}

// serving is how the edge is reached from outside, as of its last start.
type serving struct {
	Endpoint string `json:"endpoint"`       // HOST:PORT of WireGuard
	More     string `json:"more,omitempty"` // others, with commas between; a text, so that == compares
	Scheme   string `json:"scheme"`         // of the host names: https or http
	Port     uint16 `json:"port"`           // of the host names, as in public addresses
}

// snapshot is all records at one revision. Nobody changes it.
type snapshot struct {
	rev      store.Revision
	settings store.Item[store.Settings] // Revision 0: the edge was never started
	serving  store.Item[serving]
	nodes    map[tunnel.NodeID]store.Item[store.Node]
	byKey    map[keys.Public]tunnel.NodeID        // edges, agents, invites, revoked ones
	byName   map[string]store.Item[tunnel.NodeID] // agents
	invites  map[string]store.Item[store.Invite]  // by invite id
	publics  map[string]store.Item[store.Public]  // by store key
	owned    map[tunnel.NodeID][]string           // keys of publics by owner, sorted
}

// readSnapshot reads and decodes the whole store.
func readSnapshot(ctx context.Context, s store.Store) (*snapshot, error) {
	entries, rev, err := s.List(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("read the database: %w", err)
	}
	snap := &snapshot{
		rev:     rev,
		nodes:   make(map[tunnel.NodeID]store.Item[store.Node]),
		byKey:   make(map[keys.Public]tunnel.NodeID),
		byName:  make(map[string]store.Item[tunnel.NodeID]),
		invites: make(map[string]store.Item[store.Invite]),
		publics: make(map[string]store.Item[store.Public]),
		owned:   make(map[tunnel.NodeID][]string),
	}
	for _, e := range entries {
		if err := snap.add(e); err != nil {
			return nil, fmt.Errorf("read the database: %w", err)
		}
	}
	return snap, nil
}

func (s *snapshot) add(e store.Entry) (err error) {
	switch key := e.Key; {
	case key == store.SettingsKey:
		s.settings, err = item[store.Settings](e)
	case key == servingKey:
		s.serving, err = item[serving](e)
	case strings.HasPrefix(key, store.NodePrefix):
		var n store.Item[store.Node]
		if n, err = item[store.Node](e); err == nil {
			s.nodes[n.Value.ID] = n
			s.byKey[n.Value.Key] = n.Value.ID
		}
	case strings.HasPrefix(key, store.NamePrefix):
		s.byName[strings.TrimPrefix(key, store.NamePrefix)], err = item[tunnel.NodeID](e)
	case strings.HasPrefix(key, store.InvitePrefix):
		var i store.Item[store.Invite]
		if i, err = item[store.Invite](e); err == nil {
			s.invites[i.Value.ID] = i
		}
	case strings.HasPrefix(key, store.PublicPrefix):
		var p store.Item[store.Public]
		if p, err = item[store.Public](e); err == nil {
			s.publics[key] = p
			s.own(p.Value.Node, key)
		}
	}
	return err // other keys are a newer program's, or conditions only
}

func item[T any](e store.Entry) (store.Item[T], error) {
	v, err := store.Decode[T](e)
	return store.Item[T]{Value: v, Revision: e.Revision}, err
}

// nodeName is how people know a node.
func (s *snapshot) nodeName(id tunnel.NodeID) string {
	if n, ok := s.nodes[id]; ok {
		return n.Value.Name
	}
	return fmt.Sprintf("node %d", id)
}

// agentNode is the record of an agent, or the refusal for whoever is none.
func (s *snapshot) agentNode(id tunnel.NodeID) (store.Item[store.Node], error) {
	n := s.nodes[id]
	return n, agentError(n.Value.Kind)
}

// agentError is nil for an agent, and the refusal for a node that is none.
func agentError(kind store.NodeKind) error {
	switch kind {
	case store.AgentNode:
		return nil
	case nodeRevoked:
		return revokedError()
	}
	return &control.Error{Code: control.CodeNotEnrolled,
		Message: "this edge does not know the caller as an agent: join it with an invite"}
}

// commit plans and commits, again and again as long as others are faster, until
// ctx ends. It returns the revision to wait for. The first plan is made on snap,
// or on a fresh one when that is nil. An old one does no harm: what it lacks is
// found out by the commit, or belongs to calls that were not answered yet.
func commit(ctx context.Context, s store.Store, snap *snapshot, plan func(*snapshot) ([]store.Op, error)) (store.Revision, error) {
	for attempt := 1; ; attempt++ {
		var err error
		if snap == nil {
			if snap, err = readSnapshot(ctx, s); err != nil {
				return 0, err
			}
		}
		ops, err := plan(snap)
		if err != nil {
			return 0, err
		}
		if len(ops) == 0 {
			return snap.rev, nil
		}
		rev, err := s.Commit(ctx, ops...)
		if !errors.Is(err, store.ErrConflict) {
			return rev, err
		}
		snap = nil
		// Each round has a winner; the jitter keeps two losers from meeting again.
		timer := time.NewTimer(rand.N(time.Duration(min(attempt, 20)) * time.Millisecond))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, fmt.Errorf("commit after %d conflicts: %w", attempt, ctx.Err())
		}
	}
}

// op is a put that may have failed; see puts.
type op struct {
	store.Op
	err error
}

func put[T any](key string, v T, ifRev store.Revision) op {
	o, err := store.Put(key, v, ifRev)
	return op{o, err}
}

// puts are the operations, or the first error among them.
func puts(all ...op) ([]store.Op, error) {
	ops := make([]store.Op, len(all))
	for i, o := range all {
		if o.err != nil {
			return nil, o.err
		}
		ops[i] = o.Op
	}
	return ops, nil
}

// publicSide makes public addresses.
type publicSide struct {
	domain string
	scheme string // of host names: https or http
	port   uint16 // of host names
}

func (p publicSide) hostURL(host string) string {
	if p.scheme == "https" && p.port == 443 || p.scheme == "http" && p.port == 80 {
		return p.scheme + "://" + host
	}
	return p.scheme + "://" + net.JoinHostPort(host, strconv.Itoa(int(p.port)))
}

func (p publicSide) portURL(port uint16) string {
	return "tcp://" + net.JoinHostPort(p.domain, strconv.Itoa(int(port)))
}

// url is the public address of a record.
func (p publicSide) url(rec store.Public) string {
	switch rec.Kind {
	case tunnel.HTTP:
		return p.hostURL(rec.Host)
	case tunnel.TLS: // the port is always there: no other program knows tls://
		return "tls://" + net.JoinHostPort(rec.Host, strconv.Itoa(int(p.port)))
	}
	return p.portURL(rec.Port)
}

// side is how the edge is reached, as of its last start.
func (s *snapshot) side() publicSide {
	return publicSide{domain: s.settings.Value.Domain, scheme: s.serving.Value.Scheme, port: s.serving.Value.Port}
}

// tableEntry is the table's view of a record that is asked for.
func tableEntry(rec store.Public, node store.Node, overlay tunnel.Overlay, side publicSide) tunnel.Entry {
	spec := rec.Spec
	spec.Name, spec.Host, spec.Port = rec.Name, rec.Host, rec.Port
	return tunnel.Entry{
		Spec: spec, Generated: rec.Generated, Node: node.ID, Agent: node.Name, PublicURL: side.url(rec),
		Addr: netip.AddrPortFrom(overlay.TunnelAddr(node.ID, spec.ID), tunnel.DialPort),
	}
}
