package agent

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/inspect"
)

// Visit is a connection or a request that came to a tunnel, as far as it has
// come. Its texts are the visitor's own: whoever prints them takes care of what
// a terminal would obey.
type Visit struct {
	ID         string        `json:"id"` // the same while the visit goes on
	Tunnel     string        `json:"tunnel"`
	Start      time.Time     `json:"start"`
	Took       time.Duration `json:"took_ns"` // so far, while it is open
	Open       bool          `json:"open,omitempty"`
	Visitor    string        `json:"visitor,omitempty"` // address; of connections with the port
	ToUpstream int64         `json:"to_upstream"`       // bytes: of a connection when it is over, of a request's bodies so far
	ToVisitor  int64         `json:"to_visitor"`
	Error      string        `json:"error,omitempty"` // why it ended early

	// Of requests.
	Method string `json:"method,omitempty"`
	Path   string `json:"path,omitempty"`   // the request's target, at most maxPath bytes of it
	Status int    `json:"status,omitempty"` // 0: no answer yet
}

const (
	// maxVisits is how many connections of a command are remembered.
	maxVisits = 200
	// maxTold is how many visits a Watch is told of at a time, the newest.
	maxTold = 100
	maxPath = 512
)

// visits are the newest connections to the tunnels of one command.
type visits struct {
	prefix string // of ids, so that those of another owner differ

	mu   sync.Mutex // guards all below
	made uint64     // visits so far
	seq  uint64     // of the last change
	kept []*visit   // in the order of their last change, the newest last
}

type visit struct {
	Visit
	changed uint64
}

func newVisits() *visits { return &visits{prefix: rand.Text()[:8]} }

// begin takes down that a connection has come.
func (v *visits) begin(tunnel, visitor string, now time.Time) *visit {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.made++
	x := &visit{Visit: Visit{ID: fmt.Sprintf("%s-%d", v.prefix, v.made), Tunnel: tunnel, Visitor: visitor, Start: now, Open: true}}
	v.newestLocked(x)
	return x
}

// end takes down how it went.
func (v *visits) end(x *visit, took time.Duration, toUpstream, toVisitor int64, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	x.Open, x.Took, x.ToUpstream, x.ToVisitor = false, took, toUpstream, toVisitor
	if err != nil {
		x.Error = err.Error()
	}
	for i, o := range v.kept {
		if o == x {
			v.kept = append(v.kept[:i], v.kept[i+1:]...)
			break
		}
	}
	v.newestLocked(x)
}

func (v *visits) newestLocked(x *visit) {
	v.seq++
	x.changed = v.seq
	if len(v.kept) >= maxVisits {
		v.kept = v.kept[1:]
	}
	v.kept = append(v.kept, x)
}

// since are the visits that changed after a point in time that an earlier call
// returned, and that of this call. Those that go on have taken until now.
func (v *visits) since(seq uint64, now time.Time) ([]Visit, uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []Visit
	for _, x := range v.kept {
		if x.changed <= seq {
			continue
		}
		if x.Open {
			x.Took = now.Sub(x.Start)
		}
		out = append(out, x.Visit)
	}
	return out, v.seq
}

// visitFeed is what one reader has been told of visits.
type visitFeed struct {
	set   *set
	of    int // process; 0: all
	told  map[*visits]uint64
	watch *inspect.Watcher // nil: there is no inspector yet
}

func (s *set) visitFeed(of int) *visitFeed {
	return &visitFeed{set: s, of: of, told: make(map[*visits]uint64)}
}

func (f *visitFeed) close() {
	if f.watch != nil {
		f.watch.Close()
	}
}

// take are the visits that are new or have changed since the last time.
func (f *visitFeed) take() []Visit {
	f.set.mu.Lock()
	names := make(map[string]bool)
	var claims []*visits
	for _, c := range f.set.claims {
		if f.of == 0 || c.pid == f.of {
			claims = append(claims, c.visits)
		}
	}
	for _, t := range f.set.wanted {
		if f.of == 0 || t.claim.pid == f.of {
			names[t.named] = true
		}
	}
	f.set.mu.Unlock()

	var out []Visit
	told := make(map[*visits]uint64, len(claims))
	now := time.Now()
	for _, c := range claims {
		var more []Visit
		more, told[c] = c.since(f.told[c], now)
		out = append(out, more...)
	}
	f.told = told
	for _, x := range f.requests() {
		if names[x.Tunnel] {
			out = append(out, requestVisit(x))
		}
	}
	return out[max(0, len(out)-maxTold):]
}

// requests are those that the inspector has seen change, the oldest first.
func (f *visitFeed) requests() []inspect.Summary {
	in := f.set.inspection.running.Load()
	if in == nil {
		return nil
	}
	first := f.watch == nil
	if first {
		f.watch = in.Watch()
	}
	news := f.watch.Take()
	if !first && !news.Missed {
		return news.Exchanges
	}
	list := in.List(inspect.Filter{Limit: maxTold})
	slices.Reverse(list)
	return list
}

// requestVisit is a request in the words of a visit.
func requestVisit(x inspect.Summary) Visit {
	return Visit{
		ID: x.ID, Tunnel: x.Tunnel, Start: x.Start, Took: time.Duration(x.Duration * float64(time.Millisecond)),
		Open: x.State == inspect.StateWaiting || x.State == inspect.StateOpen, Visitor: x.Visitor,
		ToUpstream: x.RequestBytes, ToVisitor: x.ResponseBytes, Error: x.Error,
		Method: cmp.Or(x.Method[:min(len(x.Method), maxPath)], "?"), Path: x.Path[:min(len(x.Path), maxPath)], Status: x.Status,
	}
}
