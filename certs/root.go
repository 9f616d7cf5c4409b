package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/wgexpose/wgexpose/statedir"
)

// In the storage directory:
//
//	ca/root.crt, ca/root.key     the authority, always both
//	ca-<domain>/…                that of a domain which the edge had before
//	.ca-…/                       one that was not finished
const (
	rootDir  = "ca"
	rootCert = "root.crt"
	rootKey  = "root.key"

	rootLifetime = 10 * 365 * 24 * time.Hour
	// A root with less than this left is replaced when the edge starts.
	rootMinimum = 30 * 24 * time.Hour
)

// root is the internal authority's certificate and key.
type root struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// InternalRootPEM returns the certificate of the internal authority that is
// kept in the directory storage, in PEM, for visitors to trust. It may be
// called from any process. ErrNoRoot says that there is none.
func InternalRootPEM(storage string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(storage, rootDir, rootCert))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoRoot
	}
	if err != nil {
		return nil, fmt.Errorf("read the internal authority's certificate: %w", err)
	}
	return b, nil
}

// openRoot returns the authority for domain: the present one, that which was
// set aside when the domain changed and has now changed back, or a new one.
func openRoot(storage, domain string, now time.Time, log *slog.Logger) (*root, error) {
	unfinished, err := filepath.Glob(filepath.Join(storage, ".ca-*"))
	if err != nil {
		return nil, fmt.Errorf("look for unfinished internal authorities: %w", err)
	}
	for _, dir := range unfinished {
		if err := os.RemoveAll(dir); err != nil {
			return nil, statedir.Explain("remove an unfinished internal authority", dir, err)
		}
	}

	present := filepath.Join(storage, rootDir)
	r, err := loadRoot(present)
	if err != nil {
		return nil, err
	}
	var why string
	if r != nil {
		if why = r.unfit(domain, now); why == "" {
			return r, nil
		}
		aside, err := r.setAside(storage)
		if err != nil {
			return nil, err
		}
		log.Warn("the internal certificate authority no longer fits; it is kept aside", "reason", why, "dir", aside)
	}

	before := present + "-" + domain
	if r, err = loadRoot(before); err != nil {
		return nil, err
	}
	if r != nil && r.unfit(domain, now) == "" {
		if err := os.Rename(before, present); err != nil {
			return nil, statedir.Explain("take up again the internal authority", before, err)
		}
		log.Warn("the internal certificate authority that this domain had before is used again", "domain", domain)
		return r, syncDir(storage)
	}

	if r, err = newRoot(domain, now); err != nil {
		return nil, fmt.Errorf("make the internal authority: %w", err)
	}
	if err := r.save(storage); err != nil {
		return nil, statedir.Explain("save the internal authority", present, err)
	}
	msg := "made the internal certificate authority: visitors must trust its root (wgexpose edge ca; of an agent, wgexpose ca)"
	if why != "" {
		msg = "made a new internal certificate authority: visitors must trust its root instead (wgexpose edge ca)"
	}
	log.Info(msg, "domain", domain, "not_after", r.cert.NotAfter)
	return r, nil
}

// newRoot makes a root that can sign for domain and the names below it only.
//
// The constraint is critical (RFC 5280 section 4.2.1.10): software that does
// not understand it must refuse the root. A constraint on host names leaves
// other kinds of names free, so that addresses are excluded. MaxPathLen 0: no
// further authorities below.
func newRoot(domain string, now time.Time) (*root, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	name := "wgexpose " + domain
	if len(name) > 64 { // ub-common-name
		name = name[:64]
	}
	tmpl := &x509.Certificate{
		Subject:                     pkix.Name{CommonName: name, Organization: []string{"wgexpose internal CA"}},
		NotBefore:                   now.Add(-backdate),
		NotAfter:                    now.Add(rootLifetime),
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid:       true,
		IsCA:                        true,
		MaxPathLenZero:              true,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         []string{domain},
		ExcludedIPRanges: []*net.IPNet{
			{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)},
			{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
		},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &root{cert: cert, key: key}, nil
}

// unfit says why r cannot serve domain, or "".
func (r *root) unfit(domain string, now time.Time) string {
	if !slices.Equal(r.cert.PermittedDNSDomains, []string{domain}) {
		return fmt.Sprintf("the edge's domain is now %s, and the root is limited to %s", domain, r.limit())
	}
	if r.cert.NotAfter.Sub(now) < rootMinimum {
		return "it expires on " + r.cert.NotAfter.Format(time.DateOnly)
	}
	return ""
}

func (r *root) limit() string { return strings.Join(r.cert.PermittedDNSDomains, ", ") }

// save writes r to storage, whole or not at all.
func (r *root) save(storage string) error {
	keyDER, err := x509.MarshalPKCS8PrivateKey(r.key)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(storage, ".ca-") // mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // nothing there after the rename
	files := []struct {
		name, kind string
		der        []byte
	}{
		{rootKey, "PRIVATE KEY", keyDER},
		{rootCert, "CERTIFICATE", r.cert.Raw},
	}
	for _, f := range files {
		b := pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der})
		if err := writeFile(filepath.Join(tmp, f.name), b); err != nil {
			return err
		}
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(storage, rootDir)); err != nil {
		return err
	}
	return syncDir(storage)
}

// setAside moves r from its place and returns where it is now.
func (r *root) setAside(storage string) (string, error) {
	aside := filepath.Join(storage, rootDir+"-"+r.limit())
	if _, err := os.Lstat(aside); err == nil {
		aside += "-" + r.cert.NotBefore.UTC().Format("20060102T150405")
	}
	if err := os.Rename(filepath.Join(storage, rootDir), aside); err != nil {
		return "", statedir.Explain("keep the former internal authority aside", aside, err)
	}
	return aside, nil
}

// loadRoot reads the authority in dir. It is nil when there is no such
// directory.
func loadRoot(dir string) (*root, error) {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	r, err := readRoot(dir)
	if errors.Is(err, ErrPermissions) {
		return nil, fmt.Errorf("the internal certificate authority in %s is refused: %w", dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("the internal certificate authority in %s cannot be used: %w; "+
			"restore it, or move the directory away to have a new one made, which visitors must then trust instead", dir, err)
	}
	return r, nil
}

func readRoot(dir string) (*root, error) {
	certDER, err := readPEM(filepath.Join(dir, rootCert), "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", rootCert, err)
	}
	keyFile := filepath.Join(dir, rootKey)
	if err := checkPrivate(keyFile); err != nil {
		return nil, err
	}
	keyDER, err := readPEM(keyFile, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", rootKey, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s", rootKey, rootCert)
	}
	return &root{cert: cert, key: key}, nil
}

func readPEM(path, kind string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s holds no PEM block %q", filepath.Base(path), kind)
	}
	return block.Bytes, nil
}

// checkPrivate refuses a key file that others than its owner can read.
func checkPrivate(path string) error {
	if runtime.GOOS == "windows" {
		return nil // access there is not in the mode bits
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if perm := fi.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("%w: %s has mode %04o (run: chmod 600 %[2]s)", ErrPermissions, path, perm)
	}
	return nil
}

func writeFile(path string, b []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Sync()
}

// syncDir makes renames in dir durable. Windows cannot sync directories.
func syncDir(dir string) (err error) {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Sync()
}
