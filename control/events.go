package control

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// EventStream is the agent's end of its event stream.
type EventStream struct {
	body   io.ReadCloser
	out    *io.PipeWriter
	in     *bufio.Reader // used by Recv only
	cancel context.CancelFunc
	mu     sync.Mutex // serialises events: one line each
}

// Events opens the event stream. It waits up to 10 s for the edge to answer;
// ctx covers the whole life of the stream.
func (c *Client) Events(ctx context.Context) (*EventStream, error) {
	return c.EventsOf(ctx, Presence{})
}

// EventsOf is Events of a process that tells who it is. The error has
// [CodeSuperseded] when another process took its place.
func (c *Client) EventsOf(ctx context.Context, p Presence) (*EventStream, error) {
	ctx, cancel := context.WithCancel(ctx)
	// Not a deadline of ctx, which would end the stream as well.
	timer := time.AfterFunc(dialTimeout, cancel)
	in, out := io.Pipe()
	r, err := newRequest(ctx, http.MethodPost, "/v1/events", in)
	if err != nil {
		timer.Stop()
		cancel()
		return nil, fmt.Errorf("open event stream: %w", err)
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	p.set(r.Header)
	resp, err := c.http.Do(r)
	if err != nil {
		if !timer.Stop() {
			err = fmt.Errorf("no answer within %v", dialTimeout)
		}
		cancel()
		return nil, fmt.Errorf("open event stream: %w", plain(err))
	}
	s := &EventStream{body: resp.Body, out: out, in: bufio.NewReaderSize(resp.Body, MaxLine), cancel: cancel}
	if err := checkStatus(resp); err != nil {
		timer.Stop()
		s.Close()
		return nil, fmt.Errorf("open event stream: %w", err)
	}
	if !timer.Stop() {
		s.Close()
		return nil, fmt.Errorf("open event stream: no answer within %v", dialTimeout)
	}
	return s, nil
}

// Send sends one event. It may be called from several goroutines at once. It
// blocks while the connection takes no more; Close ends that.
func (s *EventStream) Send(e AgentEvent) error {
	line, err := encodeLine(e)
	if err != nil {
		return fmt.Errorf("send %s: %w", e.Type, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.out.Write(line); err != nil {
		return fmt.Errorf("send %s: %w", e.Type, err)
	}
	return nil
}

// Recv waits for the edge's next event; the caller watches the clock. The
// error is an *[Error] when the edge ended the session with one, io.EOF when
// it ended without. Recv is called from one goroutine at a time.
func (s *EventStream) Recv() (ServerEvent, error) {
	var e ServerEvent
	if err := readLine(s.in, &e); err != nil {
		return ServerEvent{}, err
	}
	if e.Type == eventError {
		return ServerEvent{}, e.Error
	}
	return e, nil
}

// CloseSend tells the edge that no more events come: a graceful end.
func (s *EventStream) CloseSend() error { return s.out.Close() }

// Close ends the stream and makes waiting Send and Recv return.
func (s *EventStream) Close() error {
	s.cancel()
	s.out.CloseWithError(io.ErrClosedPipe)
	return s.body.Close()
}
