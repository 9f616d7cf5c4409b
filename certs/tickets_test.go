package certs

import (
	"crypto/tls"
	"net"
	"testing"
	"time"
)

// Session tickets are encrypted under a key that crypto/tls changes every day and
// forgets after a week: what was recorded cannot be read with what a machine holds
// later. Setting a key by hand, in whatever config, would end that.
func TestSessionTicketKeysRotate(t *testing.T) {
	m, _ := start(t, Config{Mode: Internal, Domain: "tickets.test", Storage: t.TempDir()})
	if err := m.Manage(t.Context(), "tickets.test"); err != nil {
		t.Fatal(err)
	}
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		config := m.TLSConfig()
		began := time.Now()
		now := began
		config.Time = func() time.Time { return now }
		ticketOf := func() []byte { return ticket(t, config, version) }
		opens := func(ticket []byte) bool {
			s, err := config.DecryptTicket(ticket, tls.ConnectionState{})
			return err == nil && s != nil
		}
		first := ticketOf()
		if !opens(first) {
			t.Fatalf("%s: its own ticket does not open", name)
		}
		now = began.Add(25 * time.Hour)
		second := ticketOf()
		if !opens(first) || !opens(second) {
			t.Errorf("%s: a ticket of yesterday does not open", name)
		}
		now = began.Add(7*24*time.Hour + time.Minute)
		ticketOf()
		if opens(first) || !opens(second) {
			t.Errorf("%s: after a week the first key is there: %v; that of the second day: %v", name, opens(first), opens(second))
		}
	}
}

// ticket shakes hands and returns the ticket that the server gives.
func ticket(t *testing.T, config *tls.Config, version uint16) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	served := make(chan error, 1)
	go func() {
		s := tls.Server(b, config)
		_, err := s.Write([]byte("x")) // after the ticket
		served <- err
	}()
	cache := &oneSession{}
	c := tls.Client(a, &tls.Config{ServerName: "tickets.test", InsecureSkipVerify: true, MaxVersion: version, ClientSessionCache: cache})
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	if cache.session == nil {
		t.Fatal("there was no ticket")
	}
	raw, _, err := cache.session.ResumptionState()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// oneSession keeps the last session, and offers none.
type oneSession struct{ session *tls.ClientSessionState }

func (o *oneSession) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (o *oneSession) Put(_ string, s *tls.ClientSessionState)    { o.session = s }

// What a scanner warns of is not offered.
func TestNoCBC(t *testing.T) {
	m, _ := start(t, Config{Mode: Internal, Domain: "cbc.test", Storage: t.TempDir()})
	if err := m.Manage(t.Context(), "cbc.test"); err != nil {
		t.Fatal(err)
	}
	for _, suite := range tls.CipherSuites() {
		if suite.SupportedVersions[0] == tls.VersionTLS13 {
			continue
		}
		_, err := handshake(t, m, &tls.Config{ServerName: "cbc.test", InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite.ID}})
		switch suite.ID {
		case tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256:
			if err != nil {
				t.Errorf("%s: %v", suite.Name, err)
			}
		default: // the certificate is no RSA
			if err == nil {
				t.Errorf("%s is taken", suite.Name)
			}
		}
	}
}
