package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// ErrLineTooLong is returned for an event of more than [MaxLine] bytes. The
// stream is of no use after it.
var ErrLineTooLong = fmt.Errorf("event longer than %d bytes", MaxLine)

// Session is the edge's end of one agent's event stream. It is valid until
// [Handler].Session returns.
type Session struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	body io.ReadCloser
	in   *bufio.Reader // used by Recv only

	// Process and Version are those of the agent's [Presence], or "".
	Process, Version string

	mu      sync.Mutex // serialises events: one line each
	started bool       // guarded by mu: the answer's header is out
}

func newSession(w http.ResponseWriter, body io.ReadCloser) *Session {
	return &Session{
		w: w, rc: http.NewResponseController(w), body: body,
		in: bufio.NewReaderSize(body, MaxLine),
	}
}

// Send sends one event. It may be called from several goroutines at once and
// gives up after 10 s with an error; the stream is broken then.
func (s *Session) Send(e ServerEvent) error {
	line, err := encodeLine(e)
	if err != nil {
		return fmt.Errorf("send %s: %w", e.Type, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("send %s: %w", e.Type, err)
	}
	if !s.started {
		s.started = true
		s.w.Header().Set("Content-Type", "application/x-ndjson")
		s.w.WriteHeader(http.StatusOK)
	}
	if _, err := s.w.Write(line); err != nil {
		return fmt.Errorf("send %s: %w", e.Type, err)
	}
	if err := s.rc.Flush(); err != nil {
		return fmt.Errorf("send %s: %w", e.Type, err)
	}
	// No deadline may lie in wait while nothing is being written: HTTP/2
	// resets the whole stream when it passes.
	if err := s.rc.SetWriteDeadline(time.Time{}); err != nil {
		return fmt.Errorf("send %s: %w", e.Type, err)
	}
	return nil
}

func (s *Session) begun() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started
}

// Recv waits for the agent's next event. The error is io.EOF when the agent
// ended the stream, and a deadline error after a minute of silence. It is
// called from one goroutine at a time.
func (s *Session) Recv() (AgentEvent, error) {
	if err := s.rc.SetReadDeadline(time.Now().Add(streamSilence)); err != nil {
		return AgentEvent{}, fmt.Errorf("receive event: %w", err)
	}
	var e AgentEvent
	if err := readLine(s.in, &e); err != nil {
		return AgentEvent{}, err
	}
	return e, nil
}

// Close makes a waiting Recv return. Send works until Handler.Session returns.
func (s *Session) Close() error { return s.body.Close() }

// encodeLine is one event on the wire.
func encodeLine(e any) ([]byte, error) {
	line, err := json.Marshal(e)
	if err != nil {
		return nil, err
	}
	if line = append(line, '\n'); len(line) > MaxLine {
		return nil, ErrLineTooLong
	}
	return line, nil
}

// readLine reads one event from in, whose buffer has MaxLine bytes.
func readLine(in *bufio.Reader, e validator) error {
	line, err := in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return ErrLineTooLong
	case errors.Is(err, io.EOF) && len(line) > 0:
		return fmt.Errorf("receive event: %w", io.ErrUnexpectedEOF)
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return fmt.Errorf("receive event: %w", err)
	}
	if err := unmarshal(line, e); err != nil {
		return fmt.Errorf("receive event: %w", err)
	}
	return nil
}
