package certs

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"
)

// Mode says where certificates come from.
type Mode string

const (
	ACME     Mode = "acme"     // an ACME authority, Let's Encrypt by default
	Internal Mode = "internal" // the edge's own authority
	Off      Mode = "off"      // no TLS here
)

// A Challenge is a way to prove to an ACME authority that a name is ours.
type Challenge string

const (
	HTTP01    Challenge = "http-01"     // RFC 8555 section 8.3: over port 80, see Manager.HTTPChallenge
	TLSALPN01 Challenge = "tls-alpn-01" // RFC 8737: over port 443, see Manager.TLSConfig
)

// Config is what a Manager works from. Allowed may be called from many
// goroutines at once, for each handshake among others, and must not block.
type Config struct {
	Mode    Mode
	Domain  string // the edge's own; required for Internal
	Storage string // directory, made with mode 0700; one running Manager each

	// Allowed says whether host (lower case, no trailing dot, ASCII) is in the
	// tunnel table. The domain itself is always allowed; nil allows no other.
	Allowed func(host string) bool

	// For ACME only. Choosing this mode is the agreement to the authority's
	// terms of service; the command's help says so.
	Email      string      // where the authority writes to; may be empty
	CA         string      // URL of the directory; "" is Let's Encrypt
	CARoot     string      // PEM file of roots to trust for CA, besides the system's
	Challenges []Challenge // those that visitors' listeners can serve; nil is all

	// Apart is for a Domain that only limits what an internal authority vouches
	// for, and gets no certificate by itself: it is somebody else's.
	Apart bool

	// Outcome, if set, is told each time that host's certificate has come into
	// memory, with nil, and each time that it could not be had. It must not block.
	Outcome func(host string, err error)

	Logger *slog.Logger // nil discards

	// Set by this package's tests; zero is the default.
	leafLifetime func() time.Duration
	checkEvery   time.Duration
}

// Validate says what is wrong, in words for the person who wrote it.
func (c Config) Validate() error {
	switch c.Mode {
	case Off:
		return nil
	case ACME, Internal:
	default:
		return fmt.Errorf("tls mode %q is unknown: it must be acme, internal or off", c.Mode)
	}
	if c.Storage == "" {
		return errors.New("a directory to keep certificates in is required")
	}
	if c.Domain == "" && c.Mode == Internal {
		return errors.New("the internal certificate authority needs the edge's domain, which its root is limited to")
	}
	if c.Domain != "" {
		if _, err := canonical(c.Domain); err != nil {
			return fmt.Errorf("domain %q: %w", c.Domain, err)
		}
	}
	if c.CA != "" {
		if u, err := url.Parse(c.CA); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
			return fmt.Errorf("ACME directory %q is not a URL such as https://acme.example.com/directory", c.CA)
		}
	}
	for _, ch := range c.Challenges {
		if ch != HTTP01 && ch != TLSALPN01 {
			return fmt.Errorf("ACME challenge %q is unknown: it must be http-01 or tls-alpn-01", ch)
		}
	}
	return nil
}

// lifetime of a certificate of the internal authority. Seven days: nobody can
// revoke these certificates, so a copied key should be worth little; and an
// edge that was off for a weekend comes back with a certificate that still
// holds. certmagic renews with a third of it left, after 4.7 days.
const defaultLeafLifetime = 7 * 24 * time.Hour

func (c Config) lifetime() time.Duration {
	if c.leafLifetime != nil {
		return c.leafLifetime()
	}
	return defaultLeafLifetime
}
