package tunnel

import (
	"errors"
	"fmt"
	"strings"
)

// Kind is what a tunnel carries.
type Kind string

const (
	HTTP Kind = "http" // requests, by host name
	TCP  Kind = "tcp"  // connections, by port
)

// Validate reports whether k is a kind.
func (k Kind) Validate() error {
	if k != HTTP && k != TCP {
		return fmt.Errorf("kind %q: want %s or %s", abridge(string(k)), HTTP, TCP)
	}
	return nil
}

// Spec is one tunnel as an agent wants it published.
type Spec struct {
	ID   ID     `json:"id"`
	Name string `json:"name,omitempty"`
	Kind Kind   `json:"kind"`
	// Host is the whole host name asked for, of an HTTP tunnel; empty means
	// Name under the edge's domain, or a random one when Name is empty too.
	Host string `json:"host,omitempty"`
	// Port is the public port asked for, of a TCP tunnel; zero means any.
	Port uint16 `json:"port,omitempty"`
	// Upstream is the target in canonical form: shown to people, and what a
	// random host name is given back for.
	Upstream string `json:"upstream"`
	// HostHeader is sent to an HTTP upstream in place of the visitor's
	// Host, unless it is empty.
	HostHeader string `json:"host_header,omitempty"`
}

// Validate reports what is wrong with s. It bounds every string, since specs
// come over the network.
func (s Spec) Validate() error {
	if err := s.Kind.Validate(); err != nil {
		return err
	}
	if s.Name != "" {
		if err := ValidateName(s.Name); err != nil {
			return err
		}
	}
	if _, err := ParseUpstream(s.Kind, s.Upstream); err != nil {
		return err
	}
	if len(s.HostHeader) > maxHost+6 || strings.ContainsAny(s.HostHeader, " \t\r\n\x00/\\@?#") {
		return fmt.Errorf("host header %q: want a host name, with a port or without", abridge(s.HostHeader))
	}
	switch s.Kind {
	case HTTP:
		if s.Port != 0 {
			return errors.New("an http tunnel has a host name and no port")
		}
		if s.Host != "" {
			canonical, err := CanonicalHost(s.Host)
			if err != nil {
				return err
			}
			if canonical != s.Host {
				return fmt.Errorf("host %q is not in canonical form: want %q", s.Host, canonical)
			}
		}
	case TCP:
		if s.Host != "" || s.HostHeader != "" {
			return errors.New("a tcp tunnel has a port and no host name or host header")
		}
		if s.Name == "" {
			return errors.New("a tcp tunnel needs a name")
		}
	}
	return nil
}
