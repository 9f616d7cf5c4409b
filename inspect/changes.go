package inspect

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Changes are what a replay sends otherwise. Nil fields stay as they were.
type Changes struct {
	Method *string
	// Path is the target, with its query.
	Path *string
	// Headers replaces all headers. A value that is Mask, or holds it as it was
	// shown, stands for the original one.
	Headers *[]Field
	// Body replaces the body. It is sent as it is, without Content-Encoding.
	Body *[]byte
}

// notReplayed are fields that belong to the first connection.
var notReplayed = []string{
	"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect", "Content-Length",
}

// replayRequest is the request as it is sent again.
func (x *exchange) replayRequest(c Changes) (*outgoing, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.cannotReplay(); err != nil {
		return nil, err
	}
	original := x.request.fields
	o := &outgoing{http2: x.request.proto == "HTTP/2.0", method: x.method, target: x.target, host: original.find("Host"), body: x.request.body.bytes()}
	headers := []Field(original)
	if c.Method != nil {
		o.method = *c.Method
	}
	if c.Path != nil {
		o.target = *c.Path
	}
	if c.Headers != nil {
		headers = unmask(*c.Headers, original)
	}
	switch {
	case c.Body != nil:
		o.body = *c.Body
	case x.request.cut:
		if why := x.request.cutWhy(); why != "" {
			return nil, fmt.Errorf("%w (%s)", ErrNotWhole, why)
		}
		return nil, ErrNotWhole
	}
	if o.method != x.method || o.target != x.target {
		if err := checkTarget(o.method, o.target); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrChanges, err)
		}
	}
	if o.http2 {
		var err error
		if o.url, err = parseTarget(o.target); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrChanges, err)
		}
	}
	for _, f := range headers {
		switch {
		case !isToken(f.Name):
			return nil, fmt.Errorf("%w: %q is no name for a header; letters, digits and hyphens are", ErrChanges, f.Name)
		case strings.EqualFold(f.Name, "Host"):
			if c.Headers != nil && (f.Value == "" || !httpguts.ValidHostHeader(f.Value)) {
				return nil, fmt.Errorf("%w: %q is no host; a name or an address is, with a port if need be, such as app.example.com:8080", ErrChanges, f.Value)
			}
			o.host = f.Value
		case !httpguts.ValidHeaderFieldValue(f.Value):
			return nil, fmt.Errorf("%w: the value of header %q has a line break or a control character", ErrChanges, f.Name)
		case strings.EqualFold(f.Name, "Te") && o.http2: // gRPC wants it
			o.headers = append(o.headers, f)
		case slices.ContainsFunc(notReplayed, func(n string) bool { return strings.EqualFold(n, f.Name) }),
			c.Body != nil && strings.EqualFold(f.Name, "Content-Encoding"), original.has("Connection", f.Name):
		default:
			o.headers = append(o.headers, f)
		}
	}
	o.length = len(o.body) > 0 || hasBody(o.method, original)
	return o, nil
}

// checkTarget tells what is wrong with a request's target. It has the form of a
// path, since whom it goes to is settled, or is *, for OPTIONS (RFC 9112 section
// 3.2).
func checkTarget(method, target string) error {
	switch {
	case !isToken(method):
		return fmt.Errorf("%q is no method", method)
	case strings.EqualFold(method, http.MethodConnect):
		return errors.New("CONNECT asks for a tunnel, and cannot be replayed")
	case target == "*" && method == http.MethodOptions:
		return nil
	case target == "*":
		return errors.New("the path * is for OPTIONS alone")
	case strings.ContainsFunc(target, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("path %q has a control character", target)
	case strings.Contains(target, " "):
		return fmt.Errorf("path %q has a space; write %%20", target)
	case strings.Contains(target, "#"):
		return fmt.Errorf("path %q has a fragment (#), which is for browsers and is never sent; write %%23 for a # of the path", target)
	}
	u, err := url.Parse(target)
	switch {
	case err == nil && u.Scheme != "":
		return fmt.Errorf("%q is a whole URL; give its path, such as %s: the request goes to the tunnel's upstream, whatever it says", target, cmp.Or(u.EscapedPath(), "/"))
	case !strings.HasPrefix(target, "/"):
		return fmt.Errorf("path %q is none: a path begins with /", target)
	}
	_, err = parseTarget(target)
	return err
}

// parseTarget reads a target that is a path. What begins with // is one, too.
func parseTarget(target string) (*url.URL, error) {
	u, err := url.ParseRequestURI(target)
	if wrong := (*url.Error)(nil); errors.As(err, &wrong) {
		err = wrong.Err // which does not say the target again
	}
	if err != nil {
		return nil, fmt.Errorf("path %q: %w", target, err)
	}
	return u, nil
}

// hasBody tells whether a length of 0 is said: by methods that are expected to
// bring a body, and where the original said it.
func hasBody(method string, original fields) bool {
	switch method {
	case "POST", "PUT", "PATCH":
		return true
	}
	return original.find("Content-Length") != ""
}
