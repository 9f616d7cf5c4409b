package agent

import (
	"sync"
	"time"
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
	ToUpstream int64         `json:"to_upstream"`       // bytes, when it is over
	ToVisitor  int64         `json:"to_visitor"`
	Error      string        `json:"error,omitempty"` // why it ended early

	// Of requests.
	Method string `json:"method,omitempty"`
	Path   string `json:"path,omitempty"`
	Status int    `json:"status,omitempty"` // 0: no answer yet
}

// maxVisits is how many connections of a command are remembered.
const maxVisits = 200

// visits are the newest connections to the tunnels of one command. Its zero
// value is ready.
type visits struct {
	mu   sync.Mutex // guards all below
	seq  uint64     // of the last change
	kept []*visit   // in the order of their last change, the newest last
}

type visit struct {
	Visit
	changed uint64
}

// note takes the beginning or the end of a connection down.
func (v *visits) note(x *visit, change func(*Visit)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(&x.Visit)
	v.seq++
	for i, o := range v.kept {
		if o == x {
			v.kept = append(v.kept[:i], v.kept[i+1:]...)
			break
		}
	}
	if len(v.kept) == maxVisits {
		v.kept = v.kept[1:]
	}
	x.changed = v.seq
	v.kept = append(v.kept, x)
}

// since are the visits that changed after a point in time that an earlier call
// returned, and that of this call.
func (v *visits) since(seq uint64) ([]Visit, uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var out []Visit
	for _, x := range v.kept {
		if x.changed > seq {
			out = append(out, x.Visit)
		}
	}
	return out, v.seq
}
