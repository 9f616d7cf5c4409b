package edge

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/tunnel"
)

// Status is an edge at a glance. Of a stopped edge there are Domain, Endpoint, the
// totals and the certificates.
type Status struct {
	Running  bool      `json:"running"`
	Version  string    `json:"version,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Domain   string    `json:"domain"`
	Endpoint string    `json:"endpoint,omitempty"` // as new invites carry it

	Listeners []ListenerStatus `json:"listeners,omitempty"`
	Agents    AgentCounts      `json:"agents"`
	Tunnels   TunnelCounts     `json:"tunnels"`
	Invites   int              `json:"open_invites"`
	Visitors  []VisitorCounts  `json:"visitors,omitempty"` // by way in
	Streams   int              `json:"streams"`            // agents' connections over TLS, which carry WireGuard packets

	Certificates int            `json:"certificates"`
	Trouble      []certs.Status `json:"certificate_trouble,omitempty"` // certificates that need somebody's attention
	Warnings     []string       `json:"warnings,omitempty"`            // whatever else does
}

// ListenerStatus is one address that a running edge listens on.
type ListenerStatus struct {
	Name    string `json:"name"`    // https, http3, http, wireguard, metrics
	Address string `json:"address"` // ADDRESS:PORT
	UDP     bool   `json:"udp,omitempty"`
}

// AgentCounts counts agents. Without a running edge none is up.
type AgentCounts struct {
	Total int `json:"total"`
	Up    int `json:"up"`
}

// TunnelCounts counts tunnels by their state. With the edge stopped, those that
// are not reserved have none.
type TunnelCounts struct {
	Total    int `json:"total"`
	Up       int `json:"up"`
	Away     int `json:"away"`
	Error    int `json:"error"`
	Reserved int `json:"reserved"`
}

// VisitorCounts counts what came one way: https, http, http3, tcp or tls.
type VisitorCounts struct {
	Way         string `json:"way"`
	Connections uint64 `json:"connections"` // since the edge started
	Open        int64  `json:"open"`        // of them, now
	Requests    int64  `json:"requests"`    // under way
}

func (a *storeAdmin) Status(ctx context.Context) (Status, error) {
	snap, err := readSnapshot(ctx, a.store)
	if err != nil {
		return Status{}, err
	}
	st := Status{Domain: snap.settings.Value.Domain, Endpoint: snap.serving.Value.Endpoint}
	agents, err := a.agentRows(snap)
	if err != nil {
		return Status{}, err
	}
	st.Agents.Total = len(agents)
	for _, row := range agents {
		if row.State == StateUp {
			st.Agents.Up++
		}
	}
	for _, row := range a.tunnelRows(snap) {
		st.Tunnels.count(row.State)
	}
	now := time.Now()
	for _, item := range snap.invites {
		if inviteState(item.Value, now) == StateOpen {
			st.Invites++
		}
	}
	certificates, err := a.certs()
	if refusal := asRefusal(err); err != nil && refusal == nil { // an edge without TLS has none
		return Status{}, err
	}
	st.Certificates = len(certificates)
	for _, c := range certificates {
		if c.Trouble() {
			st.Trouble = append(st.Trouble, c)
		}
	}
	if a.live != nil {
		a.live.report(&st)
	}
	return st, nil
}

func (t *TunnelCounts) count(state string) {
	t.Total++
	switch state {
	case StateUp:
		t.Up++
	case StateAway:
		t.Away++
	case StateError:
		t.Error++
	case StateReserved:
		t.Reserved++
	}
}

// report fills in what only a running edge knows.
func (r *running) report(st *Status) {
	st.Running, st.Version, st.Started, st.Endpoint = true, r.cfg.Version, r.started, r.ready.Endpoint
	st.Listeners = r.ready.listeners()
	for _, way := range slices.Sorted(maps.Keys(r.front.tally.ways)) {
		w := r.front.tally.ways[way]
		if n := w.total.Load(); n > 0 {
			st.Visitors = append(st.Visitors, VisitorCounts{Way: way, Connections: n, Open: w.open.Load(), Requests: w.requests.Load()})
		}
	}
	st.Streams, _, _ = r.streams.tally()
	st.Warnings = slices.Clone(r.ready.Warnings)
	for e := range r.reconcile.table.Load().All() {
		if e.Kind != tunnel.TCP {
			continue
		}
		if err := r.reconcile.portError(e.Port); err != nil {
			st.Warnings = append(st.Warnings, fmt.Sprintf("tunnel %s of agent %s is not served: %v", e.Name, e.Agent, err))
		}
	}
}

// shownAddr is a bound address as people write it, "" without one.
func shownAddr(addr netip.AddrPort) string {
	if !addr.IsValid() {
		return ""
	}
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()).String()
}

// listeners are those that there are.
func (r Ready) listeners() []ListenerStatus {
	all := []ListenerStatus{
		{Name: "https", Address: shownAddr(r.HTTPS)},
		{Name: "http3", Address: shownAddr(r.HTTP3), UDP: true},
		{Name: "http", Address: shownAddr(r.HTTP)},
		{Name: "wireguard", Address: shownAddr(r.WG), UDP: true},
	}
	for _, more := range r.MoreWG {
		all = append(all, ListenerStatus{Name: "wireguard", Address: shownAddr(more), UDP: true})
	}
	all = append(all, ListenerStatus{Name: "metrics", Address: shownAddr(r.Metrics)})
	return slices.DeleteFunc(all, func(l ListenerStatus) bool { return l.Address == "" })
}
