package certs

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Sources of certificates in a Status.
const (
	SourceACME     = "acme"
	SourceInternal = "internal"
	SourceFile     = "file"
)

// States of a certificate in a Status.
const (
	StateValid    = "valid"
	StateExpiring = "expiring" // little time is left, and there is no new one
	StateFailing  = "failing"  // still good, but it was not renewed; Error says why
	StateExpired  = "expired"
	StatePending  = "pending" // being ordered
	StateFailed   = "failed"  // there is none; Error says why; it is tried again
	StateBroken   = "broken"  // its files cannot be used; Error says why
)

// A Status is what is known of one certificate, or of one that is wanted.
type Status struct {
	Name     string    `json:"name"`            // host name, or a wildcard such as *.example.com
	Names    []string  `json:"names,omitempty"` // all that stand on the certificate
	State    string    `json:"state"`           // one of the State constants
	Source   string    `json:"source"`          // one of the Source constants
	Issuer   string    `json:"issuer,omitempty"`
	From     time.Time `json:"from,omitzero"`
	Until    time.Time `json:"until,omitzero"`
	Error    string    `json:"error,omitempty"` // of the last attempt, if that failed
	FailedAt time.Time `json:"failed_at,omitzero"`
	File     string    `json:"file,omitempty"` // of an own certificate, or a broken one
}

// describe fills in what stands on the certificate.
func (s *Status) describe(leaf *x509.Certificate, now time.Time) {
	s.Names, s.Issuer, s.From, s.Until = leaf.DNSNames, issuerName(leaf), leaf.NotBefore, leaf.NotAfter
	switch {
	case now.After(leaf.NotAfter):
		s.State = StateExpired
	case s.Error != "":
		s.State = StateFailing
	case late(leaf, now):
		s.State = StateExpiring
	default:
		s.State = StateValid
	}
}

// late reports whether a certificate should have been replaced by now: less than
// a quarter of its time is left, and it is renewed with a third left.
func late(leaf *x509.Certificate, now time.Time) bool {
	return leaf.NotAfter.Sub(now) < leaf.NotAfter.Sub(leaf.NotBefore)/4
}

// Status lists the certificates in use and those wanted, by name. It is empty
// until Run has opened everything, and with mode Off.
func (m *Manager) Status() []Status {
	l := m.live.Load()
	if l == nil {
		return nil
	}
	return l.status(time.Now())
}

// Attempts counts the attempts to get or renew a certificate since Run began: those
// that brought one, and those that failed.
func (m *Manager) Attempts() (obtained, failed uint64) {
	l := m.live.Load()
	if l == nil {
		return 0, 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.obtained, l.failed
}

// Trouble reports whether a certificate needs somebody's attention.
func (s Status) Trouble() bool { return s.State != StateValid && s.State != StatePending }

// LastError is why the last attempt to get a certificate for host failed, or nil.
func (m *Manager) LastError(host string) error {
	l := m.live.Load()
	if l == nil {
		return nil
	}
	host, err := canonical(host)
	if err != nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if o := l.names[l.subject(host)]; o != nil {
		return o.err
	}
	return nil
}

func (l *live) status(now time.Time) []Status {
	var all []Status
	for _, c := range *l.own.set.Load() {
		all = append(all, c.status(now))
	}
	source := SourceACME
	if l.ca() {
		source = SourceInternal
	}
	l.mu.Lock()
	for subject, o := range l.names {
		s := Status{Name: subject, Source: source, State: StatePending}
		if o.err != nil {
			s.State, s.Error, s.FailedAt = StateFailed, o.err.Error(), o.at
		}
		all = append(all, s)
	}
	l.mu.Unlock()
	for i := range all {
		if s := &all[i]; s.Source != SourceFile {
			if leaf := l.leaf(s.Name); leaf != nil {
				s.describe(leaf, now)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// status is what is known of an own certificate.
func (c *ownCert) status(now time.Time) Status {
	s := Status{Name: filepath.Base(c.pair.Cert), Source: SourceFile, File: c.pair.Cert, State: StateBroken}
	if c.err != nil {
		s.Error, s.FailedAt = c.err.Error(), c.at
	}
	if c.cert != nil {
		s.Name = c.cert.Leaf.DNSNames[0]
		s.describe(c.cert.Leaf, now)
	}
	return s
}

// leaf is the certificate in memory that was ordered for subject: the one that
// lasts longest.
func (l *live) leaf(subject string) (leaf *x509.Certificate) {
	for _, c := range l.cache.AllMatchingCertificates(subject) {
		if c.Leaf != nil && slices.Contains(c.Leaf.DNSNames, subject) && (leaf == nil || c.Leaf.NotAfter.After(leaf.NotAfter)) {
			leaf = c.Leaf
		}
	}
	return leaf
}

// Stored lists, for when no Manager runs, the certificates that one has left in its
// storage, and own ones as their files are now. Of several for one name in the
// storage it gives the one that lasts longest. What cannot be read is broken.
func Stored(storage string, files []Pair, folder string) ([]Status, error) {
	all, err := listStored(storage)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	own := own{files: files, folder: folder}
	pairs, err := own.list()
	if err != nil {
		all = append(all, Status{Name: filepath.Base(folder), Source: SourceFile, File: folder, State: StateBroken, Error: err.Error(), FailedAt: now})
		pairs = files
	}
	for _, p := range pairs {
		c := ownCert{pair: p}
		c.read()
		all = append(all, c.status(now))
	}
	slices.SortStableFunc(all, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// listStored lists what is in a storage.
func listStored(storage string) ([]Status, error) {
	files, err := filepath.Glob(filepath.Join(storage, "certificates", "*", "*", "*.crt"))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	best := make(map[string]Status)
	for _, file := range files {
		leaf, err := firstCertificate(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		s := Status{Source: SourceACME}
		if strings.HasPrefix(filepath.Base(filepath.Dir(filepath.Dir(file))), "internal-") {
			s.Source = SourceInternal
		}
		if err != nil {
			s.Name, s.File, s.State, s.Error, s.FailedAt = filepath.Base(filepath.Dir(file)), file, StateBroken, err.Error(), now
			best[file] = s
			continue
		}
		s.describe(leaf, now)
		if len(leaf.DNSNames) == 0 {
			continue // not one of ours
		}
		s.Name = leaf.DNSNames[0]
		if before, ok := best[s.Name]; !ok || s.Until.After(before.Until) {
			best[s.Name] = s
		}
	}
	all := make([]Status, 0, len(best))
	for _, s := range best {
		all = append(all, s)
	}
	return all, nil
}

func firstCertificate(file string) (*x509.Certificate, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return leaf, nil
}

const (
	// remindEvery is the time between two reminders of a certificate that should
	// have been replaced. Attempts that fail are logged when they do.
	remindEvery = 24 * time.Hour
	remindLook  = time.Hour
)

// remind logs daily which certificates run out. With those of 90 days it begins
// more than three weeks before the end.
func (l *live) remind(ctx context.Context) {
	t := time.NewTicker(remindLook)
	defer t.Stop()
	last := make(map[string]time.Time)
	for {
		select {
		case now := <-t.C:
			l.remindOnce(now, last)
		case <-ctx.Done():
			return
		}
	}
}

// remindOnce logs what is due; last has when each name was logged.
func (l *live) remindOnce(now time.Time, last map[string]time.Time) {
	for _, s := range l.status(now) {
		switch s.State {
		case StateExpiring, StateFailing, StateExpired:
		default:
			delete(last, s.Name)
			continue
		}
		if now.Sub(last[s.Name]) < remindEvery {
			continue
		}
		last[s.Name] = now
		attrs := []any{"host", s.Name, "expires_in", s.Until.Sub(now).Round(time.Minute), "issuer", s.Issuer}
		if s.File != "" {
			attrs = append(attrs, "cert", s.File)
		}
		if s.Error != "" {
			attrs = append(attrs, "err", s.Error)
		}
		l.log.Error("a certificate runs out and has not been replaced", attrs...)
	}
}
