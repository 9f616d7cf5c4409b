package certs

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
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
	Domain  string // the edge's own; required for Internal and for DNS
	Storage string // directory, made with mode 0700; one running Manager each

	// Allowed says whether host (lower case, no trailing dot, ASCII) is in the
	// tunnel table. The domain itself is always allowed; nil allows no other.
	Allowed func(host string) bool

	// Own certificates, from files. Names that they cover are served with them,
	// and no others are ordered for these names.
	Files  []Pair
	Folder string // with pairs of files, see scan; "" is none

	// For ACME only. Choosing this mode is the agreement to the authorities'
	// terms of service; the command's help says so.
	Issuers    []Issuer    // asked in this order, for each certificate; nil is Let's Encrypt
	Challenges []Challenge // those that visitors' listeners can serve; nil is all
	DNS        *DNS        // how to prove names of the domain with DNS-01; nil is not at all

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
	lookEvery    time.Duration // at own certificates' files
	roomEvery    time.Duration // whether there is room again where there was none
}

// An Issuer is one ACME authority, and the account there.
type Issuer struct {
	CA    string // URL of the directory; "" is Let's Encrypt
	Root  string // PEM file of roots to trust for CA, besides the system's
	Email string // where the authority writes to; may be empty
	EAB   EAB    // for authorities that want one
}

// directory is the URL of the directory.
func (i Issuer) directory() string { return cmp.Or(i.CA, certmagic.LetsEncryptProductionCA) }

// EAB binds the ACME account to one that the authority knows already (RFC 8555
// section 7.3.4). The zero value is none.
type EAB struct {
	KeyID string
	Key   Secret // base64url, as the authority gives it
}

// A Secret is a text that does not show itself.
type Secret string

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "********"
}

// GoString is for %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue is for log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// issuers are the authorities to ask.
func (c Config) issuers() []Issuer {
	if len(c.Issuers) == 0 {
		return []Issuer{{}}
	}
	return c.Issuers
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
	for _, p := range c.Files {
		if p.Cert == "" || p.Key == "" {
			return errors.New("an own certificate needs both a certificate file and a key file")
		}
	}
	for i, issuer := range c.Issuers {
		if err := issuer.validate(); err != nil {
			return err
		}
		// certmagic files certificates and accounts by this key.
		if slices.ContainsFunc(c.Issuers[:i], func(other Issuer) bool { return other.directory() == issuer.directory() }) {
			return fmt.Errorf("the ACME directory %s stands twice in the list: a second authority must be another one", issuer.directory())
		}
	}
	for _, ch := range c.Challenges {
		if ch != HTTP01 && ch != TLSALPN01 {
			return fmt.Errorf("ACME challenge %q is unknown: it must be http-01 or tls-alpn-01", ch)
		}
	}
	if c.DNS != nil {
		if c.Domain == "" {
			return errors.New("the DNS challenge is for the edge's domain, and none is set")
		}
		return c.DNS.Validate()
	}
	return nil
}

func (i Issuer) validate() error {
	if i.CA != "" {
		if u, err := url.Parse(i.CA); err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
			return fmt.Errorf("ACME directory %q is not a URL such as https://acme.example.com/directory", i.CA)
		}
	}
	if (i.EAB.KeyID == "") != (i.EAB.Key == "") {
		return fmt.Errorf("external account binding for %s: a key id and a key go together, and one is missing", i.directory())
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
