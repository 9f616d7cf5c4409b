package configs

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/wgexpose/wgexpose/tunnel"
)

// Credential is a name and a password that visitors are asked for.
type Credential struct {
	User     string
	password string // as it is, or hashed with bcrypt
}

// maxPassword is all that bcrypt takes in, in bytes.
const maxPassword = 72

// Hash is the form that leaves this process. Hashing takes some 50 ms, and gives
// another result each time.
func (c Credential) Hash() (tunnel.Credential, error) {
	if tunnel.IsPasswordHash(c.password) {
		return tunnel.Credential{User: c.User, Hash: c.password}, nil
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(c.password), bcrypt.DefaultCost)
	if err != nil {
		return tunnel.Credential{}, fmt.Errorf("hash the password of %s: %w", c.User, err)
	}
	return tunnel.Credential{User: c.User, Hash: string(hash)}, nil
}

// String does not tell the password.
func (c Credential) String() string { return c.User + ":(password)" }

// GoString is String.
func (c Credential) GoString() string { return c.String() }

// Format prints String, whatever the verb.
func (c Credential) Format(f fmt.State, _ rune) { fmt.Fprint(f, c.String()) }

// LogValue is String.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Policy is the tunnel's policy with passwords hashed by hash, such as
// Credential.Hash; nil when it has none.
func (t Tunnel) Policy(hash func(Credential) (tunnel.Credential, error)) (*tunnel.Policy, error) {
	p := &tunnel.Policy{Warning: t.WarningPage, Allow: t.CIDRAllow, Deny: t.CIDRDeny, RequestHeader: t.RequestHeader, ResponseHeader: t.ResponseHeader}
	for _, c := range t.BasicAuth {
		hashed, err := hash(c)
		if err != nil {
			return nil, err
		}
		p.BasicAuth = append(p.BasicAuth, hashed)
	}
	if p.Empty() {
		return nil, nil
	}
	return p, nil
}

// policyKeys are the keys of a tunnel that take several values.
func policyKeys() []string {
	return []string{
		"basic_auth", "cidr_allow", "cidr_deny",
		"request_header_add", "request_header_remove", "response_header_add", "response_header_remove",
	}
}

// setPolicy parses a key that says who may visit, or what happens to headers.
func (t *Tunnel) setPolicy(key, value string) (err error) {
	switch key {
	case "basic_auth":
		t.BasicAuth, err = parseEach(value, parseCredential)
	case "cidr_allow":
		t.CIDRAllow, err = parseEach(value, parseNetwork)
	case "cidr_deny":
		t.CIDRDeny, err = parseEach(value, parseNetwork)
	case "request_header_add":
		t.RequestHeader.Add, err = parseEach(value, parseHeader)
	case "request_header_remove":
		t.RequestHeader.Remove, err = parseEach(value, parseHeaderName)
	case "response_header_add":
		t.ResponseHeader.Add, err = parseEach(value, parseHeader)
	case "response_header_remove":
		t.ResponseHeader.Remove, err = parseEach(value, parseHeaderName)
	}
	return err
}

// parseEach parses each line of a list.
func parseEach[T any](list string, parse func(string) (T, error)) ([]T, error) {
	var out []T
	for item := range strings.SplitSeq(list, "\n") {
		v, err := parse(item)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// parseCredential takes USER:PASSWORD. Its errors do not repeat the password.
func parseCredential(s string) (Credential, error) {
	user, password, ok := strings.Cut(s, ":")
	if !ok {
		return Credential{}, errors.New("must be USER:PASSWORD")
	}
	if err := tunnel.ValidateUser(user); err != nil {
		return Credential{}, err
	}
	if password == "" || len(password) > maxPassword {
		return Credential{}, fmt.Errorf("the password of %s must have 1 to %d bytes", quote(user), maxPassword)
	}
	return Credential{User: user, password: password}, nil
}

// parseNetwork takes a network or one address. Bits of a host are an error:
// 192.0.2.7/24 may mean one machine or all of them.
func parseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s is no network; allowed: an address such as 192.0.2.7, or with the length of its prefix such as 192.0.2.0/24 or 2001:db8::/32", quote(s))
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s names one machine of a network: write %s for the network, or %s for the machine", quote(s), p.Masked(), p.Addr())
	}
	return p, nil
}

// parseHeader takes NAME: VALUE.
func parseHeader(s string) (tunnel.Header, error) {
	name, value, ok := strings.Cut(s, ":")
	if !ok {
		return tunnel.Header{}, fmt.Errorf("%s must be NAME: VALUE, such as X-Frame-Options: DENY", quote(s))
	}
	name, err := parseHeaderName(strings.TrimSpace(name))
	return tunnel.Header{Name: name, Value: strings.TrimSpace(value)}, err
}

func parseHeaderName(s string) (string, error) { return s, tunnel.ValidateHeaderName(s) }
