package tunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Kind says what visitors of a tunnel speak.
type Kind string

// The kinds of tunnels.
const (
	HTTP Kind = "http" // found by host name
	TCP  Kind = "tcp"  // found by port
	TLS  Kind = "tls"  // found by the host name in the ClientHello
)

// Validate refuses other kinds than those that there are.
func (k Kind) Validate() error {
	if k == HTTP || k == TCP || k == TLS {
		return nil
	}
	return fmt.Errorf("%q is no kind of tunnel; allowed are http, tcp and tls", clip(string(k)))
}

// Hosted reports whether visitors find such a tunnel by a host name, which
// belongs to one tunnel alone, whatever its kind. The others have a port.
func (k Kind) Hosted() bool { return k == HTTP || k == TLS }

// Limits of a Spec's strings, in bytes.
const (
	maxUpstream   = 512
	maxHostHeader = maxHost + len(":65535")
)

// A Spec is what an agent wants published.
type Spec struct {
	ID         ID     `json:"id"`
	Name       string `json:"name,omitempty"` // "" leaves the choice to the edge
	Kind       Kind   `json:"kind"`
	Host       string `json:"host,omitempty"`        // http, tls: the whole host name; "" is Name under the edge's domain, or a random one
	Port       uint16 `json:"port,omitempty"`        // tcp: the public port; 0 leaves the choice to the edge
	Upstream   string `json:"upstream"`              // canonical text, to be shown and to find a generated name again
	HostHeader string `json:"host_header,omitempty"` // http: sent to the upstream; "" passes the visitor's on

	Policy *Policy `json:"policy,omitempty"` // nil: everybody may come, nothing is changed; never written to

	// TerminateAt says where TLS ends. For tls: AtEdge, AtAgent, or "" for the
	// upstream, to which it passes untouched. For http: AtAgent, or "" for the edge.
	TerminateAt string `json:"terminate_at,omitempty"`

	UpstreamProtocol string `json:"upstream_protocol,omitempty"` // http: what the upstream speaks, HTTP2 or "" for HTTP/1.1

	HSTS bool `json:"hsts,omitempty"` // http: browsers are told to come over HTTPS alone

	Compression bool `json:"compression,omitempty"` // http: answers that the upstream did not compress are, where TLS ends
}

// Values of a [Spec] TerminateAt.
const (
	AtEdge  = "edge"  // of tls tunnels: the edge has the certificate, the upstream gets plain bytes
	AtAgent = "agent" // the agent has the certificate, and the edge sees nothing but what TLS shows
)

// EndsTLSAtEdge reports whether the edge needs a certificate for the tunnel.
func (s Spec) EndsTLSAtEdge() bool {
	return s.Kind == HTTP && s.TerminateAt == "" || s.Kind == TLS && s.TerminateAt == AtEdge
}

// EndsTLSAtAgent reports whether the agent needs one.
func (s Spec) EndsTLSAtAgent() bool { return s.Kind.Hosted() && s.TerminateAt == AtAgent }

// PassesTLS reports whether visitors' connections pass the edge as they come, or
// as what is inside of their TLS, and not as requests.
func (s Spec) PassesTLS() bool { return s.Kind == TLS || s.EndsTLSAtAgent() }

// validateEnd says what is wrong with where TLS ends.
func (s Spec) validateEnd() error {
	switch {
	case s.TerminateAt == "", s.Kind == TLS && s.TerminateAt == AtEdge:
		return nil
	case !s.Kind.Hosted():
		return fmt.Errorf("where TLS ends is said of an http tunnel or a tls tunnel, and this one is %s", s.Kind)
	case s.TerminateAt != AtAgent:
		return fmt.Errorf("TLS may end at the agent, at the edge (of a tls tunnel: %s; http needs no word for it), or pass to a tls tunnel's upstream; this tunnel is %s, and asks for %q",
			AtEdge, s.Kind, clip(s.TerminateAt))
	case s.Policy.needsRequests():
		return errors.New("passwords and rules for headers are for the edge to enforce, which sees no requests where TLS ends at the agent: leave them out, or terminate_at agent; networks (cidr_allow, cidr_deny) can stay")
	}
	return nil
}

// HTTP2 is the [Spec] UpstreamProtocol of upstreams that are spoken to in HTTP/2:
// without a negotiation before (h2c) where the upstream is plain, by ALPN where it
// is https.
const HTTP2 = "http2"

// Validate says what is wrong with a Spec, whoever sent it: afterwards every
// string is short and printable, a name is a DNS label and a host canonical.
// The Upstream is the agent's own business and not looked into.
func (s Spec) Validate() error {
	if s.ID == 0 {
		return errors.New("the tunnel has no id")
	}
	if err := s.Kind.Validate(); err != nil {
		return err
	}
	if s.Name != "" {
		if err := ValidateName(s.Name); err != nil {
			return err
		}
	}
	if s.Upstream == "" || len(s.Upstream) > maxUpstream || !printable(s.Upstream) {
		return fmt.Errorf("the upstream of the tunnel must be 1 to %d bytes of printable text", maxUpstream)
	}
	if s.Host != "" && !s.Kind.Hosted() {
		return fmt.Errorf("a host name belongs to an http tunnel or a tls tunnel, and this one is %s", s.Kind)
	}
	if err := s.validateEnd(); err != nil {
		return err
	}
	if s.Kind != HTTP && (s.HostHeader != "" || s.Compression || s.HSTS || s.UpstreamProtocol != "") {
		return fmt.Errorf("a host header, compression, HSTS or an upstream protocol belongs to an http tunnel, and this one is %s", s.Kind)
	}
	if s.UpstreamProtocol != "" && s.UpstreamProtocol != HTTP2 {
		return fmt.Errorf("%q is no protocol for an upstream; allowed is %s, or nothing for HTTP/1.1", clip(s.UpstreamProtocol), HTTP2)
	}
	if s.Kind != TCP && s.Port != 0 {
		return fmt.Errorf("a port belongs to a tcp tunnel, and this one is %s", s.Kind)
	}
	if s.Host != "" {
		switch canonical, err := CanonicalHost(s.Host); {
		case err != nil:
			return err
		case canonical != s.Host:
			return fmt.Errorf("the host name %q must be written as %q", clip(s.Host), canonical)
		}
	}
	if err := s.Policy.validate(s.Kind); err != nil {
		return err
	}
	// RFC 9110, section 7.2: no more than host and port.
	if len(s.HostHeader) > maxHostHeader || strings.ContainsFunc(s.HostHeader, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("/\\@?#\"<>,;", r)
	}) {
		return errors.New("the host header must be a host name with an optional port, such as localhost:3000")
	}
	return nil
}

// printable says whether s is valid UTF-8 without control characters, those
// that change the direction of text among them, so that it can be shown.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return !unicode.IsPrint(r)
	})
}

// A State says whether a tunnel's agent is there.
type State string

// The states of a tunnel.
const (
	Up   State = "up"
	Away State = "away" // nothing was heard of the agent; its name and port are kept
)

// An Entry is a published tunnel, as an edge serves it.
type Entry struct {
	Spec                     // Name, Host and Port as the edge chose them
	Generated bool           `json:"generated,omitempty"` // the edge chose the name
	Node      NodeID         `json:"node"`
	Agent     string         `json:"agent"`      // name of the node
	Addr      netip.AddrPort `json:"addr"`       // of the tunnel in the overlay, port DialPort
	PublicURL string         `json:"public_url"` // https://app.example.com, tcp://example.com:20022
	State     State          `json:"state"`
}
