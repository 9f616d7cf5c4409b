package edge

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"github.com/wgexpose/wgexpose/relay"
	"github.com/wgexpose/wgexpose/tunnel"
)

const (
	maxProven  = 4096 // passwords that are remembered as right
	maxHashing = 2    // passwords that are hashed at the same time
	maxAsking  = 256  // requests of one address whose passwords wait to be hashed
)

// passwords checks what visitors send against hashes, which are slow on purpose:
// what was right once is remembered, and only a few are checked at a time, so
// that guessing takes no more of the machine than that. Of one address one is checked
// at a time, so that whoever guesses does not keep the others of all tunnels waiting.
type passwords struct {
	key     []byte // random: what is remembered is of no use elsewhere
	hashing chan struct{}
	compare func(hash, password []byte) error

	mu     sync.Mutex // guards all below
	proven map[[sha256.Size]byte]bool
	asking map[netip.Prefix]*asker
}

// asker is an address that has passwords checked.
type asker struct {
	turn     chan struct{} // holds one element while a password is checked
	requests int           // with the one whose turn it is; guarded by passwords.mu
}

// verdict is what is found out about a visitor's name and password.
type verdict int

const (
	wrong verdict = iota // or there are none
	right
	unchecked // too many of the same address wait for that
)

func newPasswords() *passwords {
	p := &passwords{
		key: make([]byte, sha256.Size), hashing: make(chan struct{}, maxHashing), compare: bcrypt.CompareHashAndPassword,
		proven: make(map[[sha256.Size]byte]bool), asking: make(map[netip.Prefix]*asker),
	}
	rand.Read(p.key) // never fails, see its documentation
	return p
}

// check tells whether r has the name and password of one of the credentials.
func (p *passwords) check(r *http.Request, credentials []tunnel.Credential) verdict {
	user, password, ok := r.BasicAuth()
	if !ok || len(password) > maxPassword {
		return wrong
	}
	known := false
	for _, c := range credentials {
		if c.User != user {
			continue
		}
		known = true
		if v := p.matches(r, c, password); v != wrong {
			return v
		}
	}
	// Names must not be told apart by the time it takes.
	if !known && p.matches(r, credentials[0], password) == unchecked {
		return unchecked
	}
	return wrong
}

// maxPassword is all that bcrypt looks at, in bytes.
const maxPassword = 72

func (p *passwords) matches(r *http.Request, c tunnel.Credential, password string) verdict {
	// The hash stands for the user and the tunnel, too: it has a salt.
	mac := hmac.New(sha256.New, p.key)
	mac.Write([]byte(c.Hash + "\x00" + password))
	seen := [sha256.Size]byte(mac.Sum(nil))
	if p.isProven(seen) {
		return right
	}
	origin := relay.Origin(net.TCPAddrFromAddrPort(visitorOf(r)))
	a, ok := p.ask(origin)
	if !ok {
		return unchecked
	}
	defer p.asked(origin, a)
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-r.Context().Done():
		return wrong // nobody reads it
	}
	if p.isProven(seen) { // by the one before, of the same page
		return right
	}
	select {
	case p.hashing <- struct{}{}:
		defer func() { <-p.hashing }()
	case <-r.Context().Done():
		return wrong
	}
	if p.compare([]byte(c.Hash), []byte(password)) != nil {
		return wrong
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.proven) >= maxProven {
		clear(p.proven) // they are proven again
	}
	p.proven[seen] = true
	return right
}

func (p *passwords) isProven(seen [sha256.Size]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proven[seen]
}

// ask counts one more request of origin, and reports false where there are too many.
func (p *passwords) ask(origin netip.Prefix) (*asker, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.asking[origin]
	if a == nil {
		a = &asker{turn: make(chan struct{}, 1)}
		p.asking[origin] = a
	}
	if a.requests >= maxAsking {
		return nil, false
	}
	a.requests++
	return a, true
}

// asked takes back what ask counted.
func (p *passwords) asked(origin netip.Prefix, a *asker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.requests--; a.requests == 0 {
		delete(p.asking, origin)
	}
}
