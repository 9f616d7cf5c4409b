package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// How often own certificates' files are looked at. A change is taken when two
	// looks have found the same, so that it is not read while it is written.
	defaultLookEvery = 5 * time.Second
	// A certificate with its chain is some kilobytes.
	maxOwnFile = 1 << 20
)

// A Pair is an own certificate: files in PEM, the chain in the same file as the
// certificate, after it.
type Pair struct{ Cert, Key string }

// own keeps the certificates that stand in files. find and rows may be called
// at any time; look only by one goroutine.
type own struct {
	files  []Pair
	folder string
	log    *slog.Logger

	pairs map[Pair]*ownCert // by the looking goroutine
	set   atomic.Pointer[[]ownCert]
}

// ownCert is what is known of a Pair.
type ownCert struct {
	pair   Pair
	seen   string           // of the files at the last look
	loaded string           // of the files when they were last read
	cert   *tls.Certificate // the last good one; nil: none yet
	err    error            // why the files cannot be used as they are now
	at     time.Time        // when that was found
}

func newOwn(cfg Config, log *slog.Logger) *own {
	o := &own{files: cfg.Files, folder: cfg.Folder, log: log, pairs: make(map[Pair]*ownCert)}
	o.publish()
	return o
}

// open reads everything for the first time. A named file that cannot be used is
// an error; one of the folder is not, since it may be one of many.
func (o *own) open() error {
	pairs, err := o.list()
	if err != nil {
		return &FileError{err}
	}
	for _, p := range pairs {
		c := &ownCert{pair: p}
		c.seen = p.state()
		c.read()
		o.pairs[p] = c
		switch {
		case c.err == nil:
		case slices.Contains(o.files, p):
			return &FileError{c.err}
		default:
			o.log.Error("own certificate not loaded", "cert", p.Cert, "err", c.err)
		}
	}
	o.publish()
	return nil
}

// run looks at the files until ctx ends.
func (o *own) run(ctx context.Context, every time.Duration) {
	if len(o.files) == 0 && o.folder == "" {
		return
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			o.look()
		case <-ctx.Done():
			return
		}
	}
}

// look takes changes that have come to rest.
func (o *own) look() {
	pairs, err := o.list()
	if err != nil {
		o.log.Error("own certificates: what was loaded is still served", "err", err)
		return
	}
	for _, p := range pairs {
		c := o.pairs[p]
		if c == nil {
			c = &ownCert{pair: p}
			o.pairs[p] = c
		}
		state := p.state()
		if state != c.seen {
			c.seen = state
			continue
		}
		if state == c.loaded {
			continue
		}
		had := c.cert != nil
		switch c.read(); {
		case c.err == nil:
			o.log.Info("own certificate loaded", "cert", p.Cert, "hosts", c.cert.Leaf.DNSNames, "until", c.cert.Leaf.NotAfter)
		case had:
			o.log.Error("own certificate not loaded again; the one from before is still served", "cert", p.Cert, "err", c.err)
		default:
			o.log.Error("own certificate not loaded", "cert", p.Cert, "err", c.err)
		}
	}
	for p := range o.pairs {
		if !slices.Contains(pairs, p) {
			o.log.Info("own certificate is gone from the folder; not served any more", "cert", p.Cert)
			delete(o.pairs, p)
		}
	}
	o.publish()
}

// publish shows the pairs to the handshakes.
func (o *own) publish() {
	set := make([]ownCert, 0, len(o.pairs))
	for _, c := range o.pairs {
		set = append(set, *c)
	}
	slices.SortFunc(set, func(a, b ownCert) int { return strings.Compare(a.pair.Cert, b.pair.Cert) })
	o.set.Store(&set)
}

// list gives the pairs that there are now: those named, and the folder's.
func (o *own) list() ([]Pair, error) {
	if o.folder == "" {
		return o.files, nil
	}
	found, err := scan(o.folder)
	if err != nil {
		return nil, fmt.Errorf("folder of own certificates: %w", err)
	}
	for p := range o.pairs { // half gone is damage; wholly gone is a wish
		if !slices.Contains(found, p) && !slices.Contains(o.files, p) && (exists(p.Cert) || exists(p.Key)) {
			found = append(found, p)
		}
	}
	return append(slices.Clone(o.files), found...), nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// scan finds pairs in a folder: NAME.crt, .cer or .pem beside NAME.key, and in
// its subfolders also fullchain.pem with privkey.pem (certbot) and tls.crt with
// tls.key (Kubernetes). Other files mean nothing.
func scan(folder string) ([]Pair, error) {
	pairs, err := scanOne(folder)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		sub := filepath.Join(folder, e.Name())
		// Stat, as a subfolder may be a symbolic link.
		if fi, err := os.Stat(sub); err != nil || !fi.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		more, err := scanOne(sub)
		if err != nil {
			return nil, err
		}
		pairs = append(pairs, more...)
	}
	return pairs, nil
}

func scanOne(folder string) ([]Pair, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var pairs []Pair
	names := make(map[string]bool, len(entries))
	for _, e := range entries {
		names[e.Name()] = true
	}
	for _, e := range entries {
		stem, key := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name())), ""
		switch filepath.Ext(e.Name()) {
		case ".crt", ".cer", ".pem":
			key = stem + ".key"
			if e.Name() == "fullchain.pem" {
				key = "privkey.pem"
			}
		}
		if key != "" && names[key] {
			pairs = append(pairs, Pair{Cert: filepath.Join(folder, e.Name()), Key: filepath.Join(folder, key)})
		}
	}
	return pairs, nil
}

// state changes when one of the files does. Links are followed.
func (p Pair) state() string {
	var b strings.Builder
	for _, path := range []string{p.Cert, p.Key} {
		fi, err := os.Stat(path)
		if err != nil {
			fmt.Fprintf(&b, "%v\n", err)
			continue
		}
		fmt.Fprintf(&b, "%d %d\n", fi.Size(), fi.ModTime().UnixNano())
	}
	return b.String()
}

// read reads the files. If they are no good, c keeps what it had.
func (c *ownCert) read() {
	c.loaded = c.seen
	cert, err := c.pair.load()
	if err != nil {
		c.err, c.at = err, time.Now()
		return
	}
	c.cert, c.err = cert, nil
}

// load reads and checks a pair.
func (p Pair) load() (*tls.Certificate, error) {
	chain, err := readOwn(p.Cert)
	if err != nil {
		return nil, err
	}
	key, err := readOwn(p.Key)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(chain, key)
	switch {
	case err != nil && !bytes.Contains(chain, []byte("-----BEGIN CERTIFICATE-----")):
		return nil, fmt.Errorf("%s holds no certificate: it is expected there in PEM, with its chain after it", p.Cert)
	case err != nil && !bytes.Contains(key, []byte("PRIVATE KEY-----")):
		return nil, fmt.Errorf("%s holds no private key: it is expected there in PEM, without a password", p.Key)
	case err != nil:
		return nil, fmt.Errorf("%s with the key in %s: %w", p.Cert, p.Key, err)
	case len(cert.Leaf.DNSNames) == 0:
		return nil, fmt.Errorf("the certificate in %s names no host in its subject alternative names, so that no browser would take it", p.Cert)
	}
	return &cert, nil
}

func readOwn(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("%w: the edge's user must be able to read it", err)
		}
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxOwnFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxOwnFile {
		return nil, fmt.Errorf("%s is larger than %d bytes, and so is no certificate or key", path, maxOwnFile)
	}
	return b, nil
}

// find returns the certificate for host, canonical: one that names it rather
// than a wildcard, one that hello's client can use, and of several the one that
// lasts longest. Expired ones are none. hello may be nil.
func (o *own) find(host string, hello *tls.ClientHelloInfo, now time.Time) *tls.Certificate {
	var best *tls.Certificate
	var rank [3]int64
	for _, c := range *o.set.Load() {
		if c.cert == nil || now.After(c.cert.Leaf.NotAfter) || c.cert.Leaf.VerifyHostname(host) != nil {
			continue
		}
		var r [3]int64
		if slices.Contains(c.cert.Leaf.DNSNames, host) {
			r[0] = 1
		}
		if hello != nil && hello.SupportsCertificate(c.cert) == nil {
			r[1] = 1
		}
		r[2] = c.cert.Leaf.NotAfter.Unix()
		if best == nil || slices.Compare(r[:], rank[:]) > 0 {
			best, rank = c.cert, r
		}
	}
	return best
}

// covers reports whether there is a certificate for host.
func (o *own) covers(host string) bool { return o.find(host, nil, time.Now()) != nil }

// issuerName is who signed a certificate, for people.
func issuerName(leaf *x509.Certificate) string {
	name := leaf.Issuer.CommonName
	if len(leaf.Issuer.Organization) > 0 && !strings.Contains(name, leaf.Issuer.Organization[0]) {
		name = strings.TrimSpace(leaf.Issuer.Organization[0] + " " + name)
	}
	if name == "" {
		return leaf.Issuer.String()
	}
	return name
}
