package agent

import (
	"slices"
	"time"

	"github.com/wgexpose/wgexpose/control"
)

// This file is the half of set that hears what became of its tunnels, from links,
// edges and dials, and tells the processes that want them.

// join makes a link's fate known to the set, in the order of the edges.
func (s *set) join(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links = append(s.links, &linkView{link: l})
}

func (s *set) viewLocked(l *link) *linkView {
	for _, v := range s.links {
		if v.link == l {
			return v
		}
	}
	panic("agent: a link that never joined its set")
}

// linkState takes note of a link's new state, and of what that means for the
// tunnels: an edge's answers hold only while its link is up.
func (s *set) linkState(l *link, state, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.viewLocked(l)
	e := Event{Time: time.Now().UTC(), Event: EventLink, Edge: l.name, State: state, Reason: reason, Transport: l.transport()}
	if e.same(v.event) {
		return
	}
	v.event = e
	for _, c := range s.claims {
		c.inbox.put(message{Type: msgEvent, Event: &e})
	}
	if state != LinkUp {
		v.confirmed = 0
		for _, t := range s.wanted {
			delete(t.answers, l)
			s.refreshLocked(t)
		}
	}
	s.broadcastLocked()
}

// inspect opens the inspector for a process that wants it.
func (s *set) inspect(want Inspect) {
	s.inspection.begin(want, func(e Event) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.inspector = e
		for _, c := range s.claims {
			c.inbox.put(message{Type: msgEvent, Event: &e})
		}
	})
}

// answered takes note of what an edge said to a snapshot.
func (s *set) answered(l *link, version uint64, reply control.PublishReply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.viewLocked(l)
	v.confirmed = version
	for _, p := range reply.Tunnels {
		t := s.find(p.ID)
		if t == nil || !slices.Contains(s.wanted, t) {
			continue // withdrawn meanwhile
		}
		t.answers[l] = p
		if p.Error == nil && p.Name != "" {
			t.named = p.Name
		}
		s.refreshLocked(t)
	}
	s.broadcastLocked()
}

// dialled takes note of how a dial of t's upstream went, and reports whether
// that is news.
func (s *set) dialled(t *served, failure *control.Error) bool {
	s.mu.Lock()
	news := !sameError(t.failure, failure)
	s.mu.Unlock()
	if !news {
		return false
	}
	hint := t.hint(failure) // takes its time
	s.mu.Lock()
	defer s.mu.Unlock()
	if sameError(t.failure, failure) {
		return false // another dial has told it meanwhile
	}
	t.failure, t.instead = failure, hint
	if t.last.State != TunnelGone {
		s.refreshLocked(t)
	}
	return true
}

// refreshLocked works out the state of t and tells its process when that has
// changed.
func (s *set) refreshLocked(t *served) {
	var url string
	var refused *control.Error
	for _, v := range s.links {
		p, ok := t.answers[v.link]
		switch {
		case !ok:
		case p.Error == nil && url == "":
			url = p.PublicURL
		case p.Error != nil && refused == nil:
			refused = p.Error
		}
	}
	switch {
	case url != "" && t.EndsTLSAtAgent() && s.certErrorLocked(url) != nil:
		e := s.eventOf(t, TunnelError) // without an address: nobody could use it
		e.Error = s.certErrorLocked(url)
		s.tellLocked(t, e, false)
	case url != "" && t.failure == nil:
		e := s.eventOf(t, TunnelUp)
		e.PublicURL = url
		s.tellLocked(t, e, false)
	case url != "":
		e := s.eventOf(t, TunnelError)
		e.PublicURL, e.Error, e.Hint = url, t.failure, t.instead
		s.tellLocked(t, e, false)
	case refused != nil:
		e := s.eventOf(t, TunnelError)
		e.Error = refused
		s.tellLocked(t, e, !refused.Passing())
	case t.last.State != "": // it has been told to be something better
		s.tellLocked(t, s.eventOf(t, TunnelAway), false)
	}
}

func (s *set) eventOf(t *served, state string) Event {
	return Event{Time: time.Now().UTC(), Event: EventTunnel, Name: t.named, Kind: t.Kind, State: state, Upstream: t.Spec.Upstream}
}

func (s *set) tellLocked(t *served, e Event, refused bool) {
	if e.same(t.last) {
		return
	}
	t.last = e
	t.claim.inbox.put(message{Type: msgEvent, Event: &e, Number: t.number, Refused: refused})
}

// stop tells all processes that the edge wants none of them any more.
func (s *set) stop(err *control.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return
	}
	s.end = err
	for _, c := range s.claims {
		c.inbox.put(message{Type: msgEnd, Error: err})
	}
}

// retry is after how long publishing again to the edge of l may help the
// tunnels that it does not serve; 0 when it serves all.
func (s *set) retry(l *link) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var after time.Duration
	for _, t := range s.wanted {
		switch e := t.answers[l].Error; {
		case e == nil:
		case e.Passing():
			return retryPassing
		default:
			after = retryRefused
		}
	}
	return after
}
