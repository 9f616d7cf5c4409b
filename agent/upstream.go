package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/tunnel"
)

// upstreamTimeout bounds connecting to an upstream, TLS included. The edge
// waits equally long for the agent's answer.
const upstreamTimeout = 10 * time.Second

// dialUpstream connects to u; protocol is what an https upstream must agree to
// speak, http/1.1 or h2, because the edge speaks it through the tunnel. The error is
// for visitors and users to read: "connection refused by 127.0.0.1:8089".
func dialUpstream(ctx context.Context, u tunnel.Upstream, protocol string, insecure bool) (net.Conn, *control.Error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, u.Network(), u.Address())
	if err != nil {
		return nil, explainDial(u, err)
	}
	if u.Scheme != "https" {
		return c, nil
	}
	t := tls.Client(c, &tls.Config{ServerName: u.Host, NextProtos: []string{protocol}, InsecureSkipVerify: insecure})
	err = t.HandshakeContext(ctx)
	// A server without ALPN agrees to nothing, and then speaks HTTP/1.1 (RFC 7301).
	if err == nil && protocol == "h2" && t.ConnectionState().NegotiatedProtocol != protocol {
		err = errNoHTTP2
	}
	if err != nil {
		c.Close()
		return nil, explainTLS(u, err)
	}
	return t, nil
}

// errNoHTTP2 is what a server without HTTP/2 is told when it does not say so
// itself.
var errNoHTTP2 = errors.New("no HTTP/2")

// wsaeConnRefused is Windows' ECONNREFUSED, which package syscall does not take
// for one. No other system has such a high number.
const wsaeConnRefused = syscall.Errno(10061)

func explainDial(u tunnel.Upstream, err error) *control.Error {
	where := u.Address()
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, wsaeConnRefused):
		return &control.Error{Code: control.CodeUpstreamRefused, Message: "connection refused by " + where}
	case errors.As(err, &dns):
		return &control.Error{Code: control.CodeUpstreamUnreachable, Message: fmt.Sprintf("the host name %s cannot be resolved", u.Host)}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return &control.Error{Code: control.CodeUpstreamTimeout, Message: fmt.Sprintf("no answer from %s within %v", where, upstreamTimeout)}
	case u.Scheme == "unix" && errors.Is(err, fs.ErrNotExist):
		return &control.Error{Code: control.CodeUpstreamRefused, Message: "there is no socket " + where}
	case errors.Is(err, fs.ErrPermission):
		return &control.Error{Code: control.CodeUpstreamUnreachable, Message: "no permission to connect to " + where}
	}
	var sys syscall.Errno
	if errors.As(err, &sys) {
		return &control.Error{Code: control.CodeUpstreamUnreachable, Message: fmt.Sprintf("%s cannot be reached: %v", where, sys)}
	}
	return &control.Error{Code: control.CodeUpstreamUnreachable, Message: fmt.Sprintf("%s cannot be reached: %v", where, err)}
}

// noApplicationProtocol is the alert of a server that speaks none of the offered
// protocols (RFC 7301, section 3.2).
const noApplicationProtocol = tls.AlertError(120)

func explainTLS(u tunnel.Upstream, err error) *control.Error {
	where := u.Address()
	var remote *net.OpError // a server's alert; its type is crypto/tls's own
	var verify *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &verify):
		return &control.Error{Code: control.CodeUpstreamTLS, Message: fmt.Sprintf("the certificate of %s is not trusted (%v); --upstream-tls-verify=false accepts it", where, verify.Err)}
	case errors.Is(err, errNoHTTP2), errors.As(err, &remote) && remote.Err.Error() == noApplicationProtocol.Error():
		return &control.Error{Code: control.CodeUpstreamTLS, Message: where + " does not offer the protocol that the tunnel asks for; leave --upstream-protocol out for HTTP/1.1, or set it to http2"}
	case errors.As(err, &record):
		return &control.Error{Code: control.CodeUpstreamTLS, Message: fmt.Sprintf("%s does not speak TLS; name it with http:// instead of https://", where)}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return &control.Error{Code: control.CodeUpstreamTimeout, Message: fmt.Sprintf("no TLS answer from %s within %v", where, upstreamTimeout)}
	}
	return &control.Error{Code: control.CodeUpstreamTLS, Message: fmt.Sprintf("TLS with %s: %v", where, err)}
}
