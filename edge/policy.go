package edge

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"github.com/wgexpose/wgexpose/proxy"
	"github.com/wgexpose/wgexpose/tunnel"
)

// enforce holds a request to the policy of its tunnel. When it is not admitted,
// it has been answered; else w and r are what the upstream's side gets.
func (f *front) enforce(e *tunnel.Entry, w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request, bool) {
	p := e.Policy
	if p.Empty() {
		return w, r, true
	}
	if !p.Admits(visitorOf(r)) {
		proxy.WriteProblem(w, r, networkDenied)
		return w, r, false
	}
	if len(p.BasicAuth) > 0 && !f.passwords.check(r, p.BasicAuth) {
		w.Header().Set("WWW-Authenticate", "Basic realm="+strconv.Quote(e.Host)+`, charset="UTF-8"`)
		proxy.WriteProblem(w, r, passwordAsked)
		return w, r, false
	}
	if len(p.BasicAuth) > 0 || hasRules(p.RequestHeader) {
		changed := *r // a handler must not change its request's header
		changed.Header = r.Header.Clone()
		r = &changed
	}
	if len(p.BasicAuth) > 0 {
		r.Header.Del("Authorization") // it was for the edge
	}
	changeRequest(r.Header, p.RequestHeader)
	if hasRules(p.ResponseHeader) {
		w = &ruledWriter{ResponseWriter: w, rules: p.ResponseHeader}
	}
	return w, r, true
}

// visitorOf is the address that a request came from; zero when it has none.
func visitorOf(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}

func hasRules(h tunnel.HeaderRules) bool { return len(h.Add)+len(h.Remove) > 0 }

// changeRequest changes a visitor's header, which may be made so that a rule misses:
// CGI and WSGI servers read X_Secret as X-Secret (RFC 3875, section 4.1.18), and a
// field that Connection lists ends here (RFC 9110, section 7.6.1), an added one too.
func changeRequest(h http.Header, rules tunnel.HeaderRules) {
	for _, remove := range rules.Remove {
		for name := range h {
			if strings.EqualFold(hyphened(name), hyphened(remove)) {
				delete(h, name)
			}
		}
	}
	for _, add := range rules.Add {
		for i, list := range h["Connection"] {
			names := strings.Split(list, ",")
			h["Connection"][i] = strings.Join(slices.DeleteFunc(names, func(name string) bool {
				return strings.EqualFold(strings.TrimSpace(name), add.Name)
			}), ",")
		}
	}
	change(h, rules)
}

func hyphened(name string) string { return strings.ReplaceAll(name, "_", "-") }

func change(h http.Header, rules tunnel.HeaderRules) {
	for _, name := range rules.Remove {
		h.Del(name)
	}
	for _, field := range rules.Add {
		h.Add(field.Name, field.Value)
	}
}

// ruledWriter changes the header of the final answer. Before it, there may be
// informational ones, which stay as they are.
type ruledWriter struct {
	http.ResponseWriter
	rules tunnel.HeaderRules
	done  bool
}

func (w *ruledWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *ruledWriter) WriteHeader(status int) {
	if status >= http.StatusOK && !w.done {
		w.done = true
		change(w.Header(), w.rules)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *ruledWriter) Write(b []byte) (int, error) {
	if !w.done {
		w.WriteHeader(http.StatusOK)
	}
	return w.ResponseWriter.Write(b)
}

const (
	maxProven  = 4096 // passwords that are remembered as right
	maxHashing = 2    // passwords that are hashed at the same time
)

// passwords checks what visitors send against hashes, which are slow on purpose:
// what was right once is remembered, and only a few are checked at a time, so
// that guessing takes no more of the machine than that.
type passwords struct {
	key     []byte // random: what is remembered is of no use elsewhere
	hashing chan struct{}

	mu     sync.Mutex // guards proven
	proven map[[sha256.Size]byte]bool
}

func newPasswords() *passwords {
	p := &passwords{key: make([]byte, sha256.Size), hashing: make(chan struct{}, maxHashing), proven: make(map[[sha256.Size]byte]bool)}
	rand.Read(p.key) // never fails, see its documentation
	return p
}

// check reports whether r has the name and password of one of the credentials.
func (p *passwords) check(r *http.Request, credentials []tunnel.Credential) bool {
	user, password, ok := r.BasicAuth()
	if !ok || len(password) > maxPassword {
		return false
	}
	known := false
	for _, c := range credentials {
		if c.User != user {
			continue
		}
		known = true
		if p.matches(r, c, password) {
			return true
		}
	}
	if !known {
		p.matches(r, credentials[0], password) // names must not be told apart by the time it takes
	}
	return false
}

// maxPassword is all that bcrypt looks at, in bytes.
const maxPassword = 72

func (p *passwords) matches(r *http.Request, c tunnel.Credential, password string) bool {
	// The hash stands for the user and the tunnel, too: it has a salt.
	mac := hmac.New(sha256.New, p.key)
	mac.Write([]byte(c.Hash + "\x00" + password))
	seen := [sha256.Size]byte(mac.Sum(nil))
	p.mu.Lock()
	proven := p.proven[seen]
	p.mu.Unlock()
	if proven {
		return true
	}
	select {
	case p.hashing <- struct{}{}:
		defer func() { <-p.hashing }()
	case <-r.Context().Done():
		return false
	}
	if bcrypt.CompareHashAndPassword([]byte(c.Hash), []byte(password)) != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.proven) >= maxProven {
		clear(p.proven) // they are proven again
	}
	p.proven[seen] = true
	return true
}
