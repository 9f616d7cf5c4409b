package agent

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/tunnel"
)

// confirmTimeout is how long a withdrawal waits for the edges' answers.
const confirmTimeout = 3 * time.Second

// claim is the share that one process has in a set.
type claim struct {
	pid     int
	tunnels []*served // guarded by set.mu
	inbox   *inbox
	log     *slog.Logger // of what happens to its tunnels
	visits  *visits      // to them
	leaving bool         // guarded by set.mu: is being withdrawn

	certificates Certificates // of those whose TLS ends here, as the process wants them

	dropping sync.WaitGroup // of tunnels that the process has taken back; Go under set.mu and before leaving
}

// set is what the processes of one state directory want published, and what
// became of it. The forwarder reads it without a lock.
type set struct {
	table atomic.Pointer[map[tunnel.ID]*served] // what may be reached; outlives the withdrawal until the drain is over
	log   *slog.Logger

	inspection   *inspection  // of the owner
	certificates Certificates // as the owner gets them for all

	// inherited: an owner before this one may have published other tunnels,
	// and these. Set before any link runs.
	inherited bool

	mu        sync.Mutex                // guards all below, and the marked fields of served
	version   uint64                    // of wanted; moves with each change
	wanted    []*served                 // in the order of their arrival
	claims    []*claim                  // those that are told what happens
	links     []*linkView               // in the order of the edges
	changed   chan struct{}             // closed and replaced at each change of anything above
	certs     map[string]*control.Error // by host whose TLS ends here: why it has no certificate; nil: it has one
	end       *control.Error            // why nothing is served any more; nil while it is
	settled   bool                      // nothing is withdrawn any more
	inspector Event                     // the last of it
}

// linkView is what a set knows of a link.
type linkView struct {
	link      *link
	event     Event  // the last; its State is the link's
	confirmed uint64 // version of wanted that the edge has answered for
}

func newSet(log *slog.Logger) *set {
	s := &set{log: log, changed: make(chan struct{}), certs: map[string]*control.Error{}, inspection: &inspection{log: log}}
	s.table.Store(&map[tunnel.ID]*served{})
	return s
}

// find returns the tunnel that may be reached under id, or nil.
func (s *set) find(id tunnel.ID) *served { return (*s.table.Load())[id] }

// add takes a process's tunnels in: first into the table, then among the
// wanted, so that nobody is sent to a tunnel that is not there yet. Those that
// another process serves already are refused one by one, through the inbox. guest
// is a guest's request; nil: it is this process.
func (s *set) add(pid int, offers []offer, guest *request) (*claim, error) {
	c := &claim{pid: pid, inbox: newInbox(), log: s.log, visits: newVisits(), certificates: s.certificates}
	if guest != nil {
		c.log = slog.New(&guestHandler{inbox: c.inbox, level: guest.LogLevel})
		c.certificates = guest.Certificates.with()
	}
	fresh, err := s.fresh(c, offers)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return nil, s.end
	}
	s.claims = append(s.claims, c)
	for _, v := range s.links {
		if e := v.event; e.State != "" {
			c.inbox.put(message{Type: msgEvent, Event: &e})
		}
	}
	if e := s.inspector; e.State != "" {
		c.inbox.put(message{Type: msgEvent, Event: &e})
	}
	c.tunnels = fresh
	s.enterLocked(c)
	return c, nil
}

// fresh makes tunnels of offers.
func (s *set) fresh(c *claim, offers []offer) ([]*served, error) {
	made := make([]*served, len(offers))
	for i, o := range offers {
		u, err := o.dialled()
		if err = errors.Join(err, o.Validate()); err != nil {
			return nil, fmt.Errorf("tunnel %s: %w", o.Name, err)
		}
		made[i] = newServed(s, o.Tunnel, u, c, o.Number)
	}
	return made, nil
}

// enterLocked puts those of a process's tunnels into table and wanted that are not
// there, and says that something has changed.
func (s *set) enterLocked(c *claim) {
	table := maps.Clone(*s.table.Load())
	for _, t := range c.tunnels {
		if t.ID != 0 && table[t.ID] == t {
			continue
		}
		if err := s.conflictLocked(t); err != nil {
			e := s.eventOf(t, TunnelError)
			e.Error = err
			s.tellLocked(t, e, true)
			continue
		}
		if _, taken := table[t.ID]; t.ID == 0 || taken {
			t.ID = freeID(table)
		}
		t.wanted.ID = t.ID
		table[t.ID] = t
		s.wanted = append(s.wanted, t)
	}
	s.table.Store(&table)
	s.version++
	s.broadcastLocked()
}

// replace has a process's offers take the place of its tunnels, in one step for
// edges and visitors. Those with a number that it had stay, with their
// connections. The connections of those that are not there any more have
// drainTimeout, or until ctx ends.
func (s *set) replace(ctx context.Context, c *claim, offers []offer) error {
	s.mu.Lock()
	known := make(map[int]*served)
	for _, t := range c.tunnels {
		known[t.number] = t
	}
	s.mu.Unlock() // nobody else changes a claim's tunnels
	var added []offer
	for _, o := range offers {
		switch t := known[o.Number]; {
		case t == nil:
			added = append(added, o)
		case !SameWay(t.Tunnel, o.Tunnel):
			return fmt.Errorf("tunnel %s: number %d is another one's", o.Name, o.Number)
		default:
			if err := o.Validate(); err != nil {
				return fmt.Errorf("tunnel %s: %w", o.Name, err)
			}
		}
	}
	fresh, err := s.fresh(c, added)
	if err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil || s.settled || c.leaving {
		return nil // all of them end
	}
	c.tunnels = nil
	for _, o := range offers {
		t := known[o.Number]
		if t == nil {
			t, fresh = fresh[0], fresh[1:]
		} else {
			t.wanted = o.Tunnel
			t.wanted.ID = t.ID
			delete(known, o.Number)
		}
		c.tunnels = append(c.tunnels, t)
	}
	s.wanted = slices.DeleteFunc(s.wanted, func(t *served) bool { return t.claim == c && known[t.number] == t })
	s.enterLocked(c)
	if len(known) == 0 {
		return nil
	}
	version := s.version
	c.dropping.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, drainTimeout)
		defer cancel()
		s.drop(ctx, slices.Collect(maps.Values(known)), version)
	})
	return nil
}

// conflictLocked is why t cannot be served beside what other processes have, or with
// the certificates of this one.
func (s *set) conflictLocked(t *served) *control.Error {
	if t.EndsTLSAtAgent() && t.claim.certificates != s.certificates {
		return &control.Error{Code: codeLocal, Message: fmt.Sprintf(
			"the wgexpose command that holds this agent's links (process %d) gets certificates in another way than this one is told to (%s; --certificates, --acme-ca, --acme-root, --acme-email): start both with the same settings, or this one with a state directory of its own (join --state)",
			os.Getpid(), s.certificates.Mode)}
	}
	for _, o := range s.wanted {
		if what := conflict(t.wanted.Spec, o.wanted.Spec); what != "" && o.claim != t.claim {
			return &control.Error{Code: CodeNameInUse, Message: fmt.Sprintf(
				"another wgexpose command on this machine (process %d) already serves %s: stop that one, or choose another name", o.claim.pid, what)}
		}
	}
	return nil
}

// conflict says in what way two tunnels cannot both be served, or "".
func conflict(a, b tunnel.Spec) string {
	switch {
	case a.Name != "" && a.Name == b.Name:
		return fmt.Sprintf("a tunnel named %q", a.Name)
	case a.Host != "" && a.Host == b.Host:
		return "the host name " + a.Host
	case a.Port != 0 && a.Port == b.Port:
		return fmt.Sprintf("port %d", a.Port)
	}
	return ""
}

// freeID draws a tunnel id that is not taken. Ids are random so that a
// connection which an edge kept from an earlier process leads nowhere.
func freeID(taken map[tunnel.ID]*served) tunnel.ID {
	for {
		var b [4]byte
		rand.Read(b[:]) // never fails, see its documentation
		id := tunnel.ID(binary.BigEndian.Uint32(b[:]))
		if _, ok := taken[id]; !ok && id != 0 {
			return id
		}
	}
}

// withdraw takes a process's tunnels back: the edges hear of it, new visitors
// are refused, running connections may finish until ctx ends. Once the set has
// settled it does nothing and returns false.
func (s *set) withdraw(ctx context.Context, c *claim) bool {
	s.mu.Lock()
	if s.settled {
		s.mu.Unlock()
		return false
	}
	c.leaving = true
	mine := func(t *served) bool { return t.claim == c }
	s.wanted = slices.DeleteFunc(s.wanted, mine)
	s.version++
	version, tunnels := s.version, c.tunnels
	s.broadcastLocked()
	s.mu.Unlock()

	s.drop(ctx, tunnels, version)
	c.dropping.Wait()

	s.mu.Lock()
	s.claims = slices.DeleteFunc(s.claims, func(o *claim) bool { return o == c })
	s.broadcastLocked()
	s.mu.Unlock()
	c.inbox.close()
	return true
}

// drop ends tunnels that are not wanted any more since a version: the edges hear
// of it, new visitors are refused, running connections may finish until ctx ends.
func (s *set) drop(ctx context.Context, tunnels []*served, version uint64) {
	confirm, cancel := context.WithTimeout(ctx, confirmTimeout)
	defer cancel()
	if err := s.wait(confirm, func() bool {
		return !slices.ContainsFunc(s.links, func(v *linkView) bool {
			switch v.event.State {
			case LinkUp:
				return v.confirmed < version
			case "", LinkConnecting:
				return s.inherited // else that edge has nothing to take back
			}
			return false
		})
	}); err != nil {
		s.log.Warn("withdrew tunnels without the edge's confirmation", "err", err)
	}

	s.mu.Lock()
	table := maps.Clone(*s.table.Load())
	for _, t := range tunnels {
		if table[t.ID] != t {
			continue // it was refused
		}
		delete(table, t.ID)
		s.tellLocked(t, s.eventOf(t, TunnelGone), false)
	}
	s.table.Store(&table)
	s.mu.Unlock()

	var wg sync.WaitGroup
	for _, t := range tunnels {
		wg.Go(func() { t.drain(ctx) })
	}
	wg.Wait()
}

// cut ends a process's connections at once, and leaves its tunnels to the next
// owner.
func (s *set) cut(c *claim) {
	s.mu.Lock()
	tunnels := c.tunnels
	s.mu.Unlock()
	for _, t := range tunnels {
		t.cancel()
	}
	c.dropping.Wait() // its context has ended
}

// settle waits for withdrawals that have begun, and lets no other begin: the
// links are about to end, and no edge would hear of it.
func (s *set) settle(ctx context.Context) error {
	err := s.wait(ctx, func() bool {
		s.settled = !slices.ContainsFunc(s.claims, func(c *claim) bool { return c.leaving })
		return s.settled
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = true
	return err
}

// wait blocks until cond, which is called with the lock held, is true.
func (s *set) wait(ctx context.Context, cond func() bool) error {
	for {
		s.mu.Lock()
		ok, changed := cond(), s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *set) broadcastLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// snapshot is what to publish now. The channel is closed at the next change of
// the set, which need not be one of these.
func (s *set) snapshot() (version uint64, specs []tunnel.Spec, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	specs = make([]tunnel.Spec, 0, len(s.wanted))
	for _, t := range s.wanted {
		specs = append(specs, t.wanted.Spec)
	}
	return s.version, specs, s.changed
}

// nameOf is what the tunnel is called at the edge.
func (s *set) nameOf(t *served) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return t.named
}

// publicPort is the port under which l's edge serves t, 0 when it does not.
func (s *set) publicPort(t *served, l *link) uint16 {
	s.mu.Lock()
	address := t.answers[l].PublicURL
	s.mu.Unlock()
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "":
		return 0
	case u.Port() == "": // tls://, by name
		return 443
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil {
		return 0
	}
	return uint16(port)
}
