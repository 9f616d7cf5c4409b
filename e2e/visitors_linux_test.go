package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/wgexpose/wgexpose/e2e/lab"
	"github.com/wgexpose/wgexpose/e2e/origin"
)

const (
	typeEvery   = 50 * time.Millisecond  // a key
	probeEvery  = 100 * time.Millisecond // a new visitor
	statusEvery = 500 * time.Millisecond
	probeFor    = 20 * time.Second // one visitor's patience
	maxProbes   = 64               // at once
)

// typist is somebody at work in an ssh session: a key goes there, and its echo
// comes back.
type typist struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	stop chan struct{}
	done chan struct{}

	mu    sync.Mutex // guards all below
	typed []time.Time
	heard []time.Duration // delays of the echoes, by key
	err   error           // why the session ended before stop
	news  chan struct{}   // closed and replaced at each echo, and at the end
}

// startTypist opens a session, and returns when the first key has come back.
func (w *world) startTypist() (*typist, error) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		return nil, err
	}
	y := &typist{stop: make(chan struct{}), done: make(chan struct{}), news: make(chan struct{})}
	args := append(w.sshd.options(""), "-tt", "-p", w.sshPort(), w.sshd.user+"@"+lab.Cloud.String(), "stty raw -echo; printf "+typistReady+"; exec cat")
	y.cmd = exec.Command(ssh, args...)
	y.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	y.cmd.Stderr = os.Stderr
	if y.in, err = y.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := y.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := w.lab.Host.Start(y.cmd); err != nil {
		return nil, err
	}
	ready := make([]byte, len(typistReady))
	if _, err := io.ReadFull(out, ready); err != nil {
		_ = y.cmd.Process.Kill() // it may have ended
		return nil, errors.Join(fmt.Errorf("no ssh session: %w", err), y.cmd.Wait())
	}
	var both sync.WaitGroup
	both.Go(y.work)
	both.Go(func() { y.listen(out) })
	go func() {
		defer close(y.done)
		both.Wait()
		_ = y.cmd.Wait() // listen has noted what there is to it
	}()
	return y, y.echoed(time.Time{})
}

// typistReady is what the other end says when it echoes keys.
const typistReady = "ready"

// key is the n-th that is typed.
func key(n int) byte { return 'a' + byte(n%26) }

func (y *typist) work() {
	tick := time.NewTicker(typeEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		y.mu.Lock()
		y.typed = append(y.typed, time.Now())
		y.mu.Unlock()
		if _, err := y.in.Write([]byte{key(n)}); err != nil {
			y.end(err)
			return
		}
		select {
		case <-tick.C:
		case <-y.stop:
			return
		case <-y.ended():
			return
		}
	}
}

func (y *typist) listen(out io.Reader) {
	buf := make([]byte, 4096)
	for {
		n, err := out.Read(buf)
		now := time.Now()
		for _, b := range buf[:n] {
			y.mu.Lock()
			i := len(y.heard)
			wrong := i >= len(y.typed) || b != key(i)
			if !wrong {
				y.heard = append(y.heard, now.Sub(y.typed[i]))
				close(y.news)
				y.news = make(chan struct{})
			}
			y.mu.Unlock()
			if wrong {
				y.end(fmt.Errorf("ssh: key %d came back as %q", i, b))
			}
		}
		if err != nil {
			y.end(fmt.Errorf("the ssh session ended: %w", err))
			return
		}
	}
}

func (y *typist) end(err error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.err == nil {
		y.err = err
		close(y.news)
		y.news = make(chan struct{})
	}
}

func (y *typist) ended() <-chan struct{} {
	c := make(chan struct{})
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.err != nil {
		close(c)
	}
	return c
}

// echoed waits for a key that was typed after since to come back.
func (y *typist) echoed(since time.Time) error {
	timeout := time.NewTimer(fullPatience)
	defer timeout.Stop()
	for {
		y.mu.Lock()
		err, news := y.err, y.news
		n := len(y.heard)
		ok := n > 0 && y.typed[n-1].After(since)
		y.mu.Unlock()
		switch {
		case err != nil:
			return err
		case ok:
			return nil
		}
		select {
		case <-news:
		case <-timeout.C:
			return fmt.Errorf("the ssh session says nothing for %v", fullPatience)
		}
	}
}

// stall is the longest that a key typed after since took to come back.
func (y *typist) stall(since time.Time) (longest time.Duration) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for i, d := range y.heard {
		if y.typed[i].Add(typeEvery).After(since) {
			longest = max(longest, d)
		}
	}
	return longest
}

// leave ends the session, and tells whether it had been there until then.
func (y *typist) leave() error {
	y.mu.Lock()
	err := y.err
	y.mu.Unlock()
	close(y.stop)
	_ = y.cmd.Process.Kill() // it may have ended
	<-y.done
	return err
}

// download reads what the origin pours.
type download struct {
	cancel context.CancelFunc
	done   chan struct{}

	mu  sync.Mutex // guards all below
	n   int64
	sum string
	err error
	end http.Header // trailers
}

func (w *world) startDownload() (*download, error) {
	ctx, cancel := context.WithCancel(w.t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.public["web"]+"/pour", nil)
	if err != nil {
		cancel()
		return nil, err
	}
	tr := w.transport()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		cancel()
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		cancel()
		resp.Body.Close()
		return nil, errors.New(resp.Status)
	}
	d := &download{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		defer tr.CloseIdleConnections()
		defer resp.Body.Close()
		h := sha256.New()
		buf := make([]byte, 32<<10)
		for {
			n, err := resp.Body.Read(buf)
			h.Write(buf[:n])
			d.mu.Lock()
			d.n += int64(n)
			if err != nil {
				d.sum, d.end = hex.EncodeToString(h.Sum(nil)), resp.Trailer
				if err != io.EOF {
					d.err = fmt.Errorf("the download broke: %w", err)
				}
			}
			d.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return d, nil
}

func (d *download) bytes() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.n
}

// finish waits for the end, after the origin was told to stop, and checks what
// came.
func (d *download) finish() error {
	select {
	case <-d.done:
	case <-time.After(fullPatience):
		d.cancel()
		<-d.done
		return fmt.Errorf("the download did not end within %v", fullPatience)
	}
	d.cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return d.err
	}
	if n, sum := d.end.Get(origin.TrailerLength), d.end.Get(origin.TrailerSum); n != strconv.FormatInt(d.n, 10) || sum != d.sum {
		return fmt.Errorf("the download has %d bytes with sum %s, and the origin sent %s with %s", d.n, d.sum, n, sum)
	}
	return nil
}

// watchers are new visitors all the time, and somebody who looks at the status
// all the time, to see whether the two agree.
type watchers struct {
	w    *world
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu       sync.Mutex // guards all below
	served   []served
	statuses []seen
	news     chan struct{} // closed and replaced at each served visitor
}

// served is a visitor who got what he came for.
type served struct{ from, to time.Time }

// seen is one look at the status.
type seen struct {
	at time.Time
	up bool
}

func (w *world) watch() *watchers {
	ctx, stop := context.WithCancel(w.t.Context())
	x := &watchers{w: w, stop: stop, news: make(chan struct{})}
	x.wg.Go(func() { x.probe(ctx) })
	x.wg.Go(func() { x.look(ctx) })
	return x
}

func (x *watchers) end() {
	x.stop()
	x.wg.Wait()
}

func (x *watchers) probe(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	room := make(chan struct{}, maxProbes)
	var all sync.WaitGroup
	defer all.Wait()
	for {
		select {
		case room <- struct{}{}:
			all.Go(func() {
				defer func() { <-room }()
				from := time.Now()
				if x.w.visit(ctx) != nil {
					return
				}
				x.mu.Lock()
				defer x.mu.Unlock()
				x.served = append(x.served, served{from, time.Now()})
				close(x.news)
				x.news = make(chan struct{})
			})
		default: // all of them wait
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// visit is one visitor on a connection of his own.
func (w *world) visit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeFor)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.public["web"]+"/", nil)
	if err != nil {
		return err
	}
	tr := w.transport()
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
		return &turnedAway{resp.Header.Get("Wgexpose-Error")}
	case string(body) != origin.Greeting:
		return fmt.Errorf("%s: %.200q", resp.Status, body)
	}
	return nil
}

// turnedAway is a visitor who was asked to come again later.
type turnedAway struct{ code string }

func (e *turnedAway) Error() string { return "503 with Retry-After: " + e.code }

// look asks for the status as users do.
func (x *watchers) look(ctx context.Context) {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		at := time.Now()
		asking, cancel := context.WithTimeout(ctx, 2*time.Second)
		out, err := x.w.status(asking)
		cancel()
		if ctx.Err() != nil {
			return
		}
		var st struct {
			Links []struct{ State string }
		}
		up := err == nil && json.Unmarshal([]byte(out), &st) == nil && len(st.Links) == 1 && st.Links[0].State == "up"
		x.mu.Lock()
		x.statuses = append(x.statuses, seen{at, up})
		x.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// servedAfter waits for a visitor who came after since to be served, and tells
// how long after since that was.
func (x *watchers) servedAfter(since time.Time) (time.Duration, error) {
	timeout := time.NewTimer(fullPatience)
	defer timeout.Stop()
	for {
		x.mu.Lock()
		news := x.news
		for i := len(x.served) - 1; i >= 0; i-- {
			if s := x.served[i]; s.from.After(since) {
				first := s.to.Sub(since)
				for ; i >= 0; i-- {
					if s := x.served[i]; s.from.After(since) {
						first = min(first, s.to.Sub(since))
					}
				}
				x.mu.Unlock()
				return first, nil
			}
		}
		x.mu.Unlock()
		select {
		case <-news:
		case <-timeout.C:
			return 0, fmt.Errorf("no visitor was served for %v", fullPatience)
		}
	}
}

// falseUp is the longest time for which every look said up while no visitor
// was served.
func (x *watchers) falseUp() (longest time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var since time.Time // the later of the first look that said up, and the last that was served
	next := 0           // of served, which are in order of their end, nearly
	for _, look := range x.statuses {
		for next < len(x.served) && x.served[next].to.Before(look.at) {
			if at := x.served[next].to; at.After(since) && !since.IsZero() {
				longest = max(longest, at.Sub(since))
				since = at
			}
			next++
		}
		switch {
		case !look.up:
			since = time.Time{}
		case since.IsZero():
			since = look.at
		default:
			longest = max(longest, look.at.Sub(since))
		}
	}
	return longest
}
