//go:build linux

package reference

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"
)

// ProxyConfig is what RunProxy needs.
type ProxyConfig struct {
	Host   string `json:"host"`   // address for visitors
	Origin string `json:"origin"` // host:port of a web server
}

// RunProxy is a plain httputil.ReverseProxy behind TLS until ctx ends. Its one
// setting that is not a default is the number of connections kept to the
// origin: the default of two would make it dial for most requests.
func RunProxy(ctx context.Context, cfg ProxyConfig, ready func(Ready) error) error {
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(cfg.Host, "0"))
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, 1024
	defer transport.CloseIdleConnections()
	server := &http.Server{
		Handler: &httputil.ReverseProxy{
			Transport: transport,
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(&url.URL{Scheme: "http", Host: cfg.Origin})
				r.SetXForwarded()
			},
		},
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}},
		ReadHeaderTimeout: 10 * time.Second,
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := ready(Ready{Event: "ready", Public: ln.Addr().String()}); err != nil {
		ln.Close()
		return err
	}
	if err := server.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// selfSigned makes a certificate that nobody trusts, with the kind of key that
// certificate authorities sign by default today.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"localhost"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
