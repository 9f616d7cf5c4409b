//go:build linux

package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/bench/stats"
)

// HTTPS asks for one page again and again, over kept connections with
// HTTP/1.1. The client is small on purpose: what it uses of the processors is
// missing elsewhere, and makes two servers look more alike than they are.
type HTTPS struct {
	Addr   string        `json:"addr"`
	Host   string        `json:"host"` // in the Host header and as the TLS server name
	Path   string        `json:"path"`
	Size   int           `json:"size"` // of the page, in bytes
	Conns  int           `json:"conns"`
	Warmup time.Duration `json:"warmup"`
	For    time.Duration `json:"for"`
}

// HTTPSResult counts requests. A request that fails fails the job.
type HTTPSResult struct {
	Requests  int           `json:"requests"`
	Seconds   float64       `json:"seconds"`
	PerSecond float64       `json:"per_second"`
	Latency   stats.Latency `json:"latency"`
	TLS       string        `json:"tls"` // version and cipher suite
}

func (r *runner) https(ctx context.Context, h HTTPS) (Answer, error) {
	browsers := make([]*browser, h.Conns)
	for i := range browsers {
		b, err := r.browse(ctx, h)
		if err != nil {
			return Answer{}, fmt.Errorf("load: connection %d: %w", i, err)
		}
		defer b.conn.Close()
		defer context.AfterFunc(ctx, func() { b.conn.Close() })()
		browsers[i] = b
	}
	if _, err := all(browsers, time.Now().Add(h.Warmup)); err != nil {
		return Answer{}, err
	}
	used, err := r.begin()
	if err != nil {
		return Answer{}, err
	}
	start := time.Now()
	samples, err := all(browsers, start.Add(h.For))
	if err != nil {
		return Answer{}, err
	}
	seconds := time.Since(start).Seconds()
	usage, err := used.end()
	if err != nil {
		return Answer{}, err
	}
	latency := summarize(samples)
	state := browsers[0].conn.ConnectionState()
	return Answer{Usage: usage, HTTPS: &HTTPSResult{
		Requests: latency.N, Seconds: seconds, PerSecond: float64(latency.N) / seconds, Latency: latency,
		TLS: tls.VersionName(state.Version) + " " + tls.CipherSuiteName(state.CipherSuite),
	}}, nil
}

// all lets every browser ask until end, at least once.
func all(browsers []*browser, end time.Time) ([][]time.Duration, error) {
	samples := make([][]time.Duration, len(browsers))
	errs := make([]error, len(browsers))
	var wg sync.WaitGroup
	for i, b := range browsers {
		wg.Go(func() {
			for {
				took, err := b.ask()
				if err != nil {
					errs[i] = fmt.Errorf("load: request of connection %d: %w", i, err)
					return
				}
				samples[i] = append(samples[i], took)
				if !time.Now().Before(end) {
					return
				}
			}
		})
	}
	wg.Wait()
	return samples, errors.Join(errs...)
}

// browser is one connection.
type browser struct {
	conn    *tls.Conn
	in      *bufio.Reader
	request []byte
	size    int
}

func (r *runner) browse(ctx context.Context, h HTTPS) (*browser, error) {
	conn, err := r.dial(ctx, h.Addr)
	if err != nil {
		return nil, err
	}
	// Whether the certificate is trusted is not what is measured.
	t := tls.Client(conn, &tls.Config{ServerName: h.Host, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err := t.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return &browser{
		conn: t, in: bufio.NewReaderSize(t, 64<<10), size: h.Size,
		request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n", h.Path, h.Host),
	}, nil
}

// ask makes a request and reads its answer.
func (b *browser) ask() (time.Duration, error) {
	start := time.Now()
	if err := b.conn.SetDeadline(start.Add(stuck)); err != nil {
		return 0, err
	}
	if _, err := b.conn.Write(b.request); err != nil {
		return 0, err
	}
	if err := readPage(b.in, b.size); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

// readPage reads an answer of 200 with a body of size bytes, and nothing else.
func readPage(in *bufio.Reader, size int) error {
	status, err := readLine(in)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(status, "HTTP/1.1 200 ") {
		return fmt.Errorf("the answer is %q", status)
	}
	length := -1
	for {
		line, err := readLine(in)
		if err != nil {
			return err
		}
		if line == "" {
			break
		}
		name, value, _ := strings.Cut(line, ":")
		if strings.EqualFold(name, "Content-Length") {
			if length, err = strconv.Atoi(textproto.TrimString(value)); err != nil {
				return fmt.Errorf("the answer has %q", line)
			}
		}
	}
	if length != size {
		return fmt.Errorf("the answer has a Content-Length of %d, want %d (-1: none)", length, size)
	}
	_, err = io.CopyN(io.Discard, in, int64(size))
	return err
}

// readLine reads a line without its end.
func readLine(in *bufio.Reader) (string, error) {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}
