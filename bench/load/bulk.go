//go:build linux

package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wgexpose/wgexpose/bench/origin"
)

// Bulk moves bytes through some connections for some time.
type Bulk struct {
	Addr    string        `json:"addr"`
	Up      bool          `json:"up"` // from the visitor to the origin
	Streams int           `json:"streams"`
	Warmup  time.Duration `json:"warmup"` // does not count
	For     time.Duration `json:"for"`    // counts
	// Until ends it earlier, when so many bytes were counted. Zero: never.
	Until int64 `json:"until,omitempty"`
	// Control is the origin's Unix socket. Uploads are counted there, where
	// they arrive: what the visitor wrote may still be on its way.
	Control string `json:"control"`
}

// BulkResult is what arrived while it counted.
type BulkResult struct {
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
	Gbps    float64 `json:"gbps"`
	// Series is what had arrived about each tenth of a second, from the
	// moment that the first byte was asked for: the warm-up too.
	Series []Point `json:"series"`
	// Least and Most are of single streams in bytes; downloads only.
	Least int64 `json:"least,omitempty"`
	Most  int64 `json:"most,omitempty"`
}

// Point is the number of bytes that had arrived after some time.
type Point struct {
	Seconds float64 `json:"s"`
	Bytes   int64   `json:"bytes"`
}

// seriesStep is the resolution of BulkResult.Series.
const seriesStep = 100 * time.Millisecond

// chunk is what a stream reads and writes at a time, in bytes.
const chunk = 256 << 10

// counter counts bytes that arrived.
type counter interface {
	read() (origin.Reading, error)
}

func (r *runner) bulk(ctx context.Context, b Bulk) (Answer, error) {
	streams := make([]*stream, b.Streams)
	for i := range streams {
		conn, err := r.dial(ctx, b.Addr)
		if err != nil {
			return Answer{}, fmt.Errorf("load: stream %d: %w", i, err)
		}
		defer abort(conn)
		streams[i] = &stream{conn: conn}
	}
	var count counter = downloads(streams)
	if b.Up {
		control, err := net.Dial("unix", b.Control)
		if err != nil {
			return Answer{}, err
		}
		defer control.Close()
		count = uploads{control}
	}

	// A stream that ends before all of them are aborted has failed.
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	for i, s := range streams {
		wg.Go(func() {
			if err := s.run(b.Up); err != nil {
				cancel(fmt.Errorf("load: stream %d ended early: %w", i, err))
			}
		})
	}
	answer, err := r.measure(ctx, b, streams, count)
	if failed := context.Cause(ctx); failed != nil && err != nil {
		err = failed // the measurement only sees the consequence
	}
	cancel(nil)
	for _, s := range streams {
		abort(s.conn)
	}
	wg.Wait()
	return answer, err
}

// measure takes a reading of count at the start, at the end of the warm-up and
// at the end, and for the series in between.
func (r *runner) measure(ctx context.Context, b Bulk, streams []*stream, count counter) (Answer, error) {
	first, err := count.read()
	if err != nil {
		return Answer{}, err
	}
	var (
		result BulkResult
		last   = first
		from   origin.Reading // where it begins to count
		used   *meter
		each   []int64 // bytes of each stream then
	)
	tick := time.NewTicker(seriesStep)
	defer tick.Stop()
	for ended := false; !ended; {
		if used == nil && last.At-first.At >= b.Warmup {
			from = last
			for _, s := range streams {
				each = append(each, s.bytes.Load())
			}
			if used, err = r.begin(); err != nil {
				return Answer{}, err
			}
			if err := r.answer(Answer{Event: EventWarm}); err != nil {
				return Answer{}, err
			}
		}
		select {
		case <-tick.C:
		case word := <-r.words:
			if word != "stop" {
				return Answer{}, fmt.Errorf("load: %q means nothing here", word)
			}
			ended = true
		case <-ctx.Done():
			return Answer{}, context.Cause(ctx)
		}
		now, err := count.read()
		if err != nil {
			return Answer{}, err
		}
		result.Series = append(result.Series, Point{(now.At - first.At).Seconds(), now.Bytes - first.Bytes})
		last = now
		if used != nil && (now.At-from.At >= b.For || b.Until > 0 && now.Bytes-from.Bytes >= b.Until) {
			ended = true
		}
	}
	if used == nil {
		return Answer{}, errors.New("load: stopped before the warm-up was over")
	}
	usage, err := used.end()
	if err != nil {
		return Answer{}, err
	}
	result.Bytes = last.Bytes - from.Bytes
	result.Seconds = (last.At - from.At).Seconds()
	result.Gbps = gbps(from, last)
	if !b.Up {
		for i, s := range streams {
			n := s.bytes.Load() - each[i]
			if i == 0 || n < result.Least {
				result.Least = n
			}
			result.Most = max(result.Most, n)
		}
	}
	return Answer{Bulk: &result, Usage: usage}, nil
}

// gbps is the rate between two readings.
func gbps(a, b origin.Reading) float64 {
	return float64(b.Bytes-a.Bytes) * 8 / float64((b.At - a.At).Nanoseconds())
}

// stream is one connection.
type stream struct {
	conn  *net.TCPConn
	bytes atomic.Int64 // moved on this side
}

// run moves bytes until the connection ends. It returns nil when this side
// ended it.
func (s *stream) run(up bool) error {
	command := []byte{origin.Download}
	if up {
		command[0] = origin.Upload
	}
	if _, err := s.conn.Write(command); err != nil {
		return unlessClosed(err)
	}
	for b := make([]byte, chunk); ; {
		var n int
		var err error
		if up {
			n, err = s.conn.Write(b)
		} else {
			n, err = s.conn.Read(b)
		}
		s.bytes.Add(int64(n))
		if err != nil {
			return unlessClosed(err)
		}
	}
}

func unlessClosed(err error) error {
	switch {
	case errors.Is(err, net.ErrClosed):
		return nil
	case errors.Is(err, io.EOF):
		return errors.New("the other side closed it")
	}
	return err
}

// downloads counts what the streams received.
type downloads []*stream

func (d downloads) read() (origin.Reading, error) {
	r := origin.Reading{At: origin.Now()}
	for _, s := range d {
		r.Bytes += s.bytes.Load()
	}
	return r, nil
}

// uploads asks the origin.
type uploads struct{ control net.Conn }

func (u uploads) read() (origin.Reading, error) { return origin.Read(u.control) }
