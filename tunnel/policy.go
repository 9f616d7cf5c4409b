package tunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Limits of a Policy, so that a store's record stays small.
const (
	maxCredentials = 16
	maxNetworks    = 256
	maxRules       = 64
	maxUser        = 128
	maxHeaderName  = 128
	maxHeaderValue = 2048
)

// A Policy says which visitors a tunnel has, and what is changed in what they
// and the upstream say. The edge holds to it before anything reaches the agent.
type Policy struct {
	BasicAuth      []Credential   `json:"basic_auth,omitempty"` // http: any of these lets a visitor in; none: no password is asked for
	Allow          []netip.Prefix `json:"allow,omitempty"`      // visitors' networks; none: all
	Deny           []netip.Prefix `json:"deny,omitempty"`       // wins over Allow
	Warning        bool           `json:"warning,omitempty"`    // http: browsers are warned before the first page
	RequestHeader  HeaderRules    `json:"request_header,omitzero"`
	ResponseHeader HeaderRules    `json:"response_header,omitzero"`
}

// Credential is one user's name and hashed password.
type Credential struct {
	User string `json:"user"`
	Hash string `json:"hash"` // bcrypt, in its own text form: $2a$10$…
}

// HeaderRules change a header: what is removed goes first.
type HeaderRules struct {
	Remove []string `json:"remove,omitempty"`
	Add    []Header `json:"add,omitempty"`
}

// Header is one field of a header.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Admits reports whether a visitor from addr may come in. Where networks are
// named, an address that is not known may not.
func (p *Policy) Admits(addr netip.Addr) bool {
	if p == nil || len(p.Allow) == 0 && len(p.Deny) == 0 {
		return true
	}
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() || within(addr, p.Deny) {
		return false
	}
	return len(p.Allow) == 0 || within(addr, p.Allow)
}

func within(addr netip.Addr, networks []netip.Prefix) bool {
	for _, n := range networks {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}

// Empty reports whether the policy changes nothing.
func (p *Policy) Empty() bool {
	return p == nil || !p.Warning && len(p.BasicAuth) == 0 && len(p.Allow) == 0 && len(p.Deny) == 0 &&
		p.RequestHeader.empty() && p.ResponseHeader.empty()
}

// needsRequests reports whether the policy holds for requests, and not for
// connections alone.
func (p *Policy) needsRequests() bool {
	return p != nil && (p.Warning || len(p.BasicAuth) > 0 || !p.RequestHeader.empty() || !p.ResponseHeader.empty())
}

func (h HeaderRules) empty() bool { return len(h.Remove) == 0 && len(h.Add) == 0 }

// validate says what is wrong with the policy of a tunnel of that kind.
func (p *Policy) validate(kind Kind) error {
	if p == nil {
		return nil
	}
	if kind != HTTP && p.needsRequests() {
		return fmt.Errorf("passwords, header rules and warnings belong to an http tunnel, and this one is %s", kind)
	}
	if len(p.BasicAuth) > maxCredentials || len(p.Allow) > maxNetworks || len(p.Deny) > maxNetworks {
		return fmt.Errorf("a tunnel has at most %d passwords, and %d networks that are allowed and denied", maxCredentials, maxNetworks)
	}
	for _, c := range p.BasicAuth {
		if err := c.validate(); err != nil {
			return err
		}
	}
	for _, n := range append(p.Allow[:len(p.Allow):len(p.Allow)], p.Deny...) {
		if !n.IsValid() || n != n.Masked() || n.Addr().Is4In6() {
			return fmt.Errorf("%s is no network: write its first address and the length of its prefix, such as 192.0.2.0/24", n)
		}
	}
	if err := p.RequestHeader.validate(); err != nil {
		return err
	}
	return p.ResponseHeader.validate()
}

func (c Credential) validate() error {
	if err := ValidateUser(c.User); err != nil {
		return err
	}
	if !IsPasswordHash(c.Hash) {
		return errors.New("a password must come hashed with bcrypt")
	}
	return nil
}

// ValidateUser says whether a user's name can be asked for with HTTP's basic
// authentication (RFC 7617, section 2).
func ValidateUser(user string) error {
	if user == "" || len(user) > maxUser || !printable(user) || strings.Contains(user, ":") {
		return fmt.Errorf("a user's name must be 1 to %d printable characters without a colon", maxUser)
	}
	return nil
}

// IsPasswordHash tells a bcrypt hash of a cost that an edge will check from
// anything else. Each step of the cost doubles the work of checking.
func IsPasswordHash(s string) bool {
	if len(s) != 60 || s[0] != '$' || s[1] != '2' || !strings.ContainsRune("aby", rune(s[2])) || s[3] != '$' || s[6] != '$' {
		return false
	}
	if cost := s[4:6]; cost < "04" || cost > "14" {
		return false
	}
	return strings.Trim(s[7:], "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == ""
}

func (h HeaderRules) validate() error {
	if len(h.Add)+len(h.Remove) > maxRules {
		return fmt.Errorf("a tunnel has at most %d rules for a header", maxRules)
	}
	for _, name := range h.Remove {
		if err := ValidateHeaderName(name); err != nil {
			return err
		}
	}
	for _, f := range h.Add {
		if err := ValidateHeaderName(f.Name); err != nil {
			return err
		}
		if len(f.Value) > maxHeaderValue || !httpguts.ValidHeaderFieldValue(f.Value) {
			return fmt.Errorf("the value of the header %s must be at most %d bytes without control characters", f.Name, maxHeaderValue)
		}
	}
	return nil
}

// ValidateHeaderName refuses fields that a rule must not touch: those that
// belong to a connection or frame a message (RFC 9110, section 7.6.1), and those
// with which the edge says where a request came from.
func ValidateHeaderName(name string) error {
	if len(name) > maxHeaderName || !httpguts.ValidHeaderFieldName(name) {
		return fmt.Errorf("%q is no name of a header", clip(name))
	}
	// CGI and WSGI servers read X_Forwarded_For as X-Forwarded-For.
	lower := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	switch lower {
	case "host":
		return errors.New("the Host header is set with host_header (--host-header)")
	case "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "content-encoding", "expect",
		"forwarded", "x-real-ip":
		return fmt.Errorf("the header %s is the edge's own matter, and no rule can change it", name)
	}
	if strings.HasPrefix(lower, "x-forwarded") || strings.HasPrefix(lower, "wgexpose-") || strings.HasPrefix(lower, "sec-websocket-") {
		return fmt.Errorf("the header %s is the edge's own matter, and no rule can change it", name)
	}
	return nil
}
