//go:build linux

// Package load makes the traffic that is measured. A load process is told one
// job and answers with its result, so that it begins each time with nothing
// left over:
//
//	{"bulk":{"addr":"127.0.0.1:20000","streams":8,"warmup":500000000,"for":3000000000},"pids":{"edge":4711}}
//
// as a line of JSON on standard input, and on standard output
//
//	{"event":"warm"}
//	{"event":"result","bulk":{…}}
//
// Durations are in nanoseconds in JSON. A line "stop" on standard input ends a
// bulk transfer early, and "go" tells an idle job that its connections were
// looked at long enough.
package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/wgexpose/wgexpose/bench/procfs"
	"github.com/wgexpose/wgexpose/bench/stats"
)

// Job is one of these, with what all have in common.
type Job struct {
	Bulk    *Bulk    `json:"bulk,omitempty"`
	Echo    *Echo    `json:"echo,omitempty"`
	Connect *Connect `json:"connect,omitempty"`
	HTTPS   *HTTPS   `json:"https,omitempty"`
	Idle    *Idle    `json:"idle,omitempty"`

	Handshake *Handshake `json:"handshake,omitempty"`

	// PIDs are the processes whose processor time belongs to the job, by
	// name. The load process itself is added as "load".
	PIDs map[string]int `json:"pids,omitempty"`
	// Congestion is the TCP congestion control of the load's own sockets.
	// Empty: the machine's.
	Congestion string `json:"congestion,omitempty"`
}

// Answer is a line that a load process prints.
type Answer struct {
	Event   string         `json:"event"` // warm, held or result
	Bulk    *BulkResult    `json:"bulk,omitempty"`
	Echo    *EchoResult    `json:"echo,omitempty"`
	Connect *ConnectResult `json:"connect,omitempty"`
	HTTPS   *HTTPSResult   `json:"https,omitempty"`
	Idle    *IdleResult    `json:"idle,omitempty"`
	Usage   *Usage         `json:"usage,omitempty"` // with a result

	Handshake *HandshakeResult `json:"handshake,omitempty"`
}

// Events of an Answer.
const (
	EventWarm   = "warm"   // bulk: the time that counts begins
	EventHeld   = "held"   // idle: all connections are open
	EventResult = "result" // the last
)

// Usage is what a job took while it counted.
type Usage struct {
	Seconds float64            `json:"seconds"`
	CPU     map[string]float64 `json:"cpu"` // processor seconds by process
	// Others is the share of the machine's processors, 1 for one of them,
	// that everything else took: what disturbed the measurement. The
	// kernel's work on behalf of nobody is in it as well.
	Others float64 `json:"others"`
}

// Run reads a job from in and does it. Answers go to out.
func Run(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() {
		return errors.Join(errors.New("load: no job on standard input"), lines.Err())
	}
	var job Job
	if err := json.Unmarshal(lines.Bytes(), &job); err != nil {
		return fmt.Errorf("load: read the job: %w", err)
	}
	// A word on standard input ends a job's wait; the end of standard input
	// says that whoever wanted the result is gone.
	words := make(chan string)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		defer cancel(errors.New("load: standard input has ended"))
		for lines.Scan() {
			select {
			case words <- strings.Trim(lines.Text(), "\" "):
			case <-ctx.Done():
				return
			}
		}
	}()
	encoder := json.NewEncoder(out)
	r := &runner{job: job, words: words, answer: func(a Answer) error { return encoder.Encode(a) }}
	result, err := r.run(ctx)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	result.Event = EventResult
	return r.answer(result)
}

// runner does one job.
type runner struct {
	job    Job
	words  <-chan string
	answer func(Answer) error
}

func (r *runner) run(ctx context.Context) (Answer, error) {
	switch j := r.job; {
	case j.Bulk != nil:
		return r.bulk(ctx, *j.Bulk)
	case j.Echo != nil:
		return r.echo(ctx, *j.Echo)
	case j.Connect != nil:
		return r.connect(ctx, *j.Connect)
	case j.HTTPS != nil:
		return r.https(ctx, *j.HTTPS)
	case j.Handshake != nil:
		return r.handshake(ctx, *j.Handshake)
	case j.Idle != nil:
		return r.idle(ctx, *j.Idle)
	}
	return Answer{}, errors.New("load: the job is empty")
}

// dial connects to addr as a visitor.
func (r *runner) dial(ctx context.Context, addr string) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	if r.job.Congestion != "" {
		dialer.Control = setCongestion(r.job.Congestion)
	}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// dialTimeout is longer than any path that works takes.
const dialTimeout = 10 * time.Second

// abort closes a connection with a reset, so that nothing that is under way
// has to be delivered first.
func abort(c *net.TCPConn) {
	_ = c.SetLinger(0) // fails only on a connection that is gone
	c.Close()
}

// summarize is stats.Summarize for several collections.
func summarize(parts [][]time.Duration) stats.Latency {
	var all []time.Duration
	for _, p := range parts {
		all = append(all, p...)
	}
	return stats.Summarize(all)
}

// meter reads processor times at two moments.
type meter struct {
	pids   map[string]int
	start  time.Time
	before map[string]time.Duration
	busy   time.Duration
}

func (m *meter) read() (map[string]time.Duration, time.Duration, error) {
	out := make(map[string]time.Duration, len(m.pids))
	for name, pid := range m.pids {
		cpu, err := procfs.CPU(pid)
		if err != nil {
			return nil, 0, fmt.Errorf("processor time of %s: %w", name, err)
		}
		out[name] = cpu
	}
	busy, err := procfs.Busy()
	return out, busy, err
}

// begin starts a measurement of what the job's processes use.
func (r *runner) begin() (*meter, error) {
	m := &meter{pids: map[string]int{"load": pid()}, start: time.Now()}
	for name, pid := range r.job.PIDs {
		m.pids[name] = pid
	}
	var err error
	m.before, m.busy, err = m.read()
	return m, err
}

// end returns what they used since begin.
func (m *meter) end() (*Usage, error) {
	after, busy, err := m.read()
	if err != nil {
		return nil, err
	}
	u := &Usage{Seconds: time.Since(m.start).Seconds(), CPU: make(map[string]float64)}
	ours := 0.0
	for name := range m.pids {
		u.CPU[name] = (after[name] - m.before[name]).Seconds()
		ours += u.CPU[name]
	}
	u.Others = max(0, ((busy-m.busy).Seconds()-ours)/u.Seconds)
	return u, nil
}
