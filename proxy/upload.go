package proxy

import (
	"io"
	"net/http"
	"sync"
)

// upload is a request's body on its way to the upstream. Two goroutines look at
// it: the transport's, which reads it and may still do so when the answer is
// complete, and the handler's, which must know how far it came and may not
// return while it is being read.
type upload struct {
	body    io.ReadCloser
	from    *http.Request // as the server has it: its Trailer fills at the body's end
	trailer http.Header   // the trailers that pass, filled by the Read that meets the end

	mu      sync.Mutex // guards all below
	idle    sync.Cond  // reading turned false
	reading bool
	stopped bool
	eof     bool
	err     error // other than io.EOF

	speed     pace
	interrupt func() // not guarded; set before the first Read
}

func newUpload(r *http.Request) *upload {
	u := &upload{body: r.Body, from: r}
	u.idle.L = &u.mu
	for name := range r.Trailer {
		if claimsOrigin(name) {
			continue // a server may take it for a header field
		}
		if u.trailer == nil {
			u.trailer = make(http.Header)
		}
		u.trailer[name] = nil
	}
	u.eof = r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0
	return u
}

func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	if u.stopped || u.body == nil {
		u.mu.Unlock()
		return 0, http.ErrBodyReadAfterClose
	}
	u.reading = true
	u.speed.startLocked(u.tooSlow)
	u.mu.Unlock()

	n, err := u.body.Read(p)

	u.mu.Lock()
	defer u.mu.Unlock()
	u.reading = false
	u.speed.stopLocked(n)
	if err != nil && err != io.EOF && u.speed.slow {
		err = errSlow
	}
	switch {
	case err == io.EOF:
		u.eof = true
		for name := range u.trailer {
			u.trailer[name] = u.from.Trailer[name]
		}
	case err != nil && !u.stopped:
		u.err = err
	}
	u.idle.Broadcast()
	return n, err
}

// Close ends reading; the server closes the body itself.
func (u *upload) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopped = true
	return nil
}

// done reports whether the visitor has sent all of it.
func (u *upload) done() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.eof
}

// failure returns why reading from the visitor failed, if it did.
func (u *upload) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// stop ends reading, and waits for a read under way when interrupt says that it
// has seen to its end.
func (u *upload) stop(interrupt func() bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.stopped = true
	if !u.reading || !interrupt() {
		return
	}
	for u.reading {
		u.idle.Wait()
	}
}
