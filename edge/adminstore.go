package edge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
	"github.com/wgexpose/wgexpose/wg"
)

const (
	defaultTTL = 24 * time.Hour
	maxTTL     = 366 * 24 * time.Hour
	maxUses    = 1000
)

// liveFacts is what only a running edge has.
type liveFacts interface {
	// applied waits until the revision has taken effect.
	appliedRevision(context.Context, store.Revision) error
	agentState(tunnel.NodeID) (up bool, since time.Time)
	peerStates() (map[keys.Public]wg.PeerStatus, error)
	mtu(id tunnel.NodeID) int
	upstream(tunnel.NodeID, tunnel.ID) (wrong string) // in the agent's words; "": nothing that is known
	report(*Status)
}

// storeAdmin is Admin over a store: that of a stopped edge, or with live that of
// a running one.
type storeAdmin struct {
	store store.Store
	live  liveFacts // nil: the edge is stopped
	close func() error
	certs func() ([]certs.Status, error)
}

func (a *storeAdmin) Close() error { return a.close() }

// change commits what plan wants, and returns when it has taken effect.
func (a *storeAdmin) change(ctx context.Context, plan func(*snapshot) ([]store.Op, error)) error {
	rev, err := commit(ctx, a.store, nil, plan)
	if err != nil || a.live == nil {
		return err
	}
	return a.live.appliedRevision(ctx, rev)
}

func (a *storeAdmin) Invite(ctx context.Context, opts InviteOptions) (InviteResult, error) {
	if err := opts.check(); err != nil {
		return InviteResult{}, err
	}
	key, err := keys.New()
	if err != nil {
		return InviteResult{}, err
	}
	var result InviteResult
	err = a.change(ctx, func(snap *snapshot) (ops []store.Op, err error) {
		result, ops, err = planInvite(snap, key, opts, time.Now().UTC())
		return ops, err
	})
	if err != nil {
		return InviteResult{}, fmt.Errorf("invite: %w", err)
	}
	return result, nil
}

// check fills nothing in; zero fields are defaults.
func (o InviteOptions) check() error {
	if o.Name != "" {
		if err := tunnel.ValidateName(o.Name); err != nil {
			return refuse(RefusedBadRequest, "%v", err)
		}
	}
	if o.Uses < 0 || o.Uses > maxUses {
		return refuse(RefusedBadRequest, "an invite can have 1 to %d uses, not %d", maxUses, o.Uses)
	}
	if o.TTL != 0 && (o.TTL < time.Minute || o.TTL > maxTTL) {
		return refuse(RefusedBadRequest, "an invite can be good for 1m to %v, not %v", maxTTL, o.TTL)
	}
	if _, err := canonicalDomains(o.Domains); err != nil {
		return refuse(RefusedBadRequest, "%v", err)
	}
	return nil
}

func planInvite(snap *snapshot, key keys.Private, opts InviteOptions, now time.Time) (InviteResult, []store.Op, error) {
	self, ok := snap.nodes[edgeNode]
	if !ok || snap.serving.Revision == 0 {
		return InviteResult{}, nil, refuse(RefusedNotRunning,
			"this edge has never served yet, so an invite could not say where it is: start it once, with wgexpose edge")
	}
	id, err := freeNodeID(snap, key.Public())
	if err != nil {
		return InviteResult{}, nil, err
	}
	expires := now.Add(cmp.Or(opts.TTL, defaultTTL)).Truncate(time.Second)
	endpoint := snap.serving.Value.Endpoint
	edge, err := selfEdge(self.Value.Key, snap.serving.Value)
	if err != nil {
		return InviteResult{}, nil, err
	}
	token, err := keys.Invite{
		Key: key, Node: uint32(id), Expires: expires, Overlay: snap.settings.Value.Overlay.Prefix(),
		Edges: []keys.Edge{edge},
	}.Encode()
	if err != nil {
		return InviteResult{}, nil, err
	}
	domains, err := canonicalDomains(opts.Domains)
	if err != nil {
		return InviteResult{}, nil, err
	}
	inviteID := store.InviteID(key.Public())
	ops, err := puts(
		put(store.InviteKey(inviteID), store.Invite{
			ID: inviteID, Node: id, Key: key.Public(), Name: opts.Name, Uses: cmp.Or(opts.Uses, 1), Created: now, Expires: expires, Domains: domains,
		}, 0),
		put(store.NodeKey(id), store.Node{
			ID: id, Kind: store.InviteNode, Name: inviteID, Key: key.Public(), Created: now, Invite: inviteID,
		}, 0),
		put(store.NodeKeyKey(key.Public()), id, 0),
	)
	return InviteResult{ID: inviteID, Token: token, Expires: expires, Warning: endpointWarning(endpoint)}, ops, err
}

func (a *storeAdmin) Agents(ctx context.Context) ([]AgentRow, error) {
	snap, err := readSnapshot(ctx, a.store)
	if err != nil {
		return nil, err
	}
	return a.agentRows(snap)
}

func (a *storeAdmin) agentRows(snap *snapshot) (_ []AgentRow, err error) {
	var peers map[keys.Public]wg.PeerStatus
	if a.live != nil {
		if peers, err = a.live.peerStates(); err != nil {
			return nil, err
		}
	}
	rows := []AgentRow{}
	for _, item := range snap.nodes {
		node := item.Value
		if node.Kind != store.AgentNode {
			continue
		}
		row := AgentRow{
			Name: node.Name, Node: node.ID, Key: node.Key, Version: node.Version, Platform: node.Platform,
			Created: node.Created, Joined: node.Joined, Domains: node.Domains,
		}
		if node.Endpoint.IsValid() {
			row.Endpoint = node.Endpoint.String()
		}
		for _, key := range snap.owned[node.ID] {
			if snap.publics[key].Value.Active {
				row.Tunnels++
			}
		}
		if a.live != nil {
			row.State, row.Since = a.state(node.ID)
			row.MTU = a.live.mtu(node.ID)
			peer := peers[node.Key]
			row.Rx, row.Tx = peer.RxBytes, peer.TxBytes
			if peer.Endpoint.IsValid() {
				row.Endpoint = peer.Endpoint.String()
			}
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(x, y AgentRow) int { return strings.Compare(x.Name, y.Name) })
	return rows, nil
}

func (a *storeAdmin) state(id tunnel.NodeID) (string, time.Time) {
	up, since := a.live.agentState(id)
	if up {
		return StateUp, since
	}
	return StateAway, since
}

func (a *storeAdmin) Tunnels(ctx context.Context) ([]TunnelRow, error) {
	snap, err := readSnapshot(ctx, a.store)
	if err != nil {
		return nil, err
	}
	return a.tunnelRows(snap), nil
}

func (a *storeAdmin) tunnelRows(snap *snapshot) []TunnelRow {
	rows := []TunnelRow{}
	for _, key := range slices.Sorted(maps.Keys(snap.publics)) {
		rec := snap.publics[key].Value
		row := TunnelRow{
			Name: rec.Name, Kind: rec.Kind, PublicURL: snap.side().url(rec), Agent: snap.nodeName(rec.Node),
			Upstream: rec.Spec.Upstream, Generated: rec.Generated,
		}
		switch {
		case !rec.Active:
			row.State = StateReserved
		case a.live != nil:
			if row.State, _ = a.state(rec.Node); row.State == StateUp {
				if row.Reason = a.live.upstream(rec.Node, rec.Spec.ID); row.Reason != "" {
					row.State = StateError
				}
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func (a *storeAdmin) Certs(context.Context) ([]certs.Status, error) { return a.certs() }

func (a *storeAdmin) Invites(ctx context.Context) ([]InviteRow, error) {
	snap, err := readSnapshot(ctx, a.store)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	rows := []InviteRow{}
	for _, item := range snap.invites {
		i := item.Value
		row := InviteRow{
			ID: i.ID, Name: i.Name, State: inviteState(i, now), Uses: i.Uses, Used: len(i.Used), Created: i.Created, Expires: i.Expires, Domains: i.Domains,
		}
		for _, use := range i.Used {
			row.Agents = append(row.Agents, snap.nodeName(use.Node))
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(x, y InviteRow) int {
		return cmp.Or(x.Created.Compare(y.Created), strings.Compare(x.ID, y.ID))
	})
	return rows, nil
}

func (a *storeAdmin) Revoke(ctx context.Context, agent string) error {
	return a.change(ctx, func(snap *snapshot) ([]store.Op, error) { return planRevoke(snap, agent) })
}

// planRevoke turns an agent into a record that holds its key and its id, and
// gives back its name and all that it had reserved.
func planRevoke(snap *snapshot, agent string) ([]store.Op, error) {
	name, ok := snap.byName[agent]
	if !ok {
		known := slices.Sorted(maps.Keys(snap.byName))
		if len(known) == 0 {
			return nil, refuse(RefusedNotFound, "there is no agent %q: this edge has no agents", agent)
		}
		return nil, refuse(RefusedNotFound, "there is no agent %q: the agents are %s", agent, list(known))
	}
	item, ok := snap.nodes[name.Value]
	if !ok {
		return nil, fmt.Errorf("agent %s is node %d, which is not there", agent, name.Value)
	}
	node := item.Value
	node.Kind = nodeRevoked
	ops, err := puts(put(store.NodeKey(node.ID), node, item.Revision))
	if err != nil {
		return nil, err
	}
	ops = append(ops, store.Delete(store.NameKey(agent), name.Revision))
	for _, key := range snap.owned[node.ID] {
		ops = append(ops, store.Delete(key, snap.publics[key].Revision))
	}
	return ops, nil
}

// list is names in a sentence, not too many.
func list(names []string) string {
	if len(names) > 20 {
		return strings.Join(names[:20], ", ") + fmt.Sprintf(" and %d more", len(names)-20)
	}
	return strings.Join(names, ", ")
}

func (a *storeAdmin) RevokeInvite(ctx context.Context, id string) error {
	return a.change(ctx, func(snap *snapshot) ([]store.Op, error) {
		item, ok := snap.invites[id]
		if !ok {
			return nil, refuse(RefusedNotFound, "there is no invite %q: wgexpose edge invites lists them", id)
		}
		if item.Value.Revoked {
			return nil, nil
		}
		invite := item.Value
		invite.Revoked = true
		return puts(put(store.InviteKey(id), invite, item.Revision))
	})
}

func (a *storeAdmin) Release(ctx context.Context, name string) error {
	return a.change(ctx, func(snap *snapshot) ([]store.Op, error) {
		up := func(tunnel.NodeID) bool { return false }
		if a.live != nil {
			up = func(id tunnel.NodeID) bool { up, _ := a.live.agentState(id); return up }
		}
		return planRelease(snap, name, up)
	})
}

// planRelease deletes the one record that name means, unless its agent is here
// and wants it.
func planRelease(snap *snapshot, name string, up func(tunnel.NodeID) bool) ([]store.Op, error) {
	found := findPublics(snap, name)
	switch len(found) {
	case 0:
		return nil, refuse(RefusedNotFound, "nothing is reserved by the name %q: wgexpose edge tunnels lists what is", name)
	case 1:
	default:
		var all []string
		for _, key := range found {
			all = append(all, snap.side().url(snap.publics[key].Value))
		}
		return nil, refuse(RefusedAmbiguous, "%q is the name of several tunnels: say which, by one of %s", name, list(all))
	}
	item := snap.publics[found[0]]
	if rec := item.Value; rec.Active && up(rec.Node) {
		return nil, refuse(RefusedInUse, "%s is being served by agent %s: stop it there first, or revoke the agent",
			snap.side().url(rec), snap.nodeName(rec.Node))
	}
	return []store.Op{store.Delete(found[0], item.Revision)}, nil
}

// findPublics gives the records that name means: by public URL or host name, by
// port, or by the name of the tunnel.
func findPublics(snap *snapshot, name string) []string {
	if u, err := url.Parse(name); err == nil && u.Host != "" {
		if u.Scheme == "tcp" {
			name = u.Port()
		} else {
			name = u.Hostname()
		}
	} else if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	if host, err := tunnel.CanonicalHost(name); err == nil {
		if key := store.HTTPSKey(host); snap.publics[key].Revision != 0 {
			return []string{key}
		}
	}
	if port, err := strconv.ParseUint(name, 10, 16); err == nil {
		if key := store.TCPKey(uint16(port)); snap.publics[key].Revision != 0 {
			return []string{key}
		}
	}
	var found []string
	for _, key := range slices.Sorted(maps.Keys(snap.publics)) {
		if snap.publics[key].Value.Name == name {
			found = append(found, key)
		}
	}
	return found
}

// asRefusal is the refusal in err, or nil.
func asRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return nil
}
