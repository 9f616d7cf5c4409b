package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wgexpose/wgexpose/tunnel"
)

const (
	readTimeout    = 10 * time.Second // for the body of a call
	writeTimeout   = 10 * time.Second // for an answer, and for one event
	handlerTimeout = 30 * time.Second // for the edge to answer a call
	// stopTimeout is for calls under way when Serve ends. An agent that
	// vanished without a word keeps its connection open for all of it.
	stopTimeout = time.Second

	// idleTimeout ends a connection without an event stream or a call, which an
	// agent has no use for. net/http also keeps what a connection took, some 9 KB,
	// for as long after it has broken with a stream on it.
	idleTimeout = 10 * time.Second

	// streamSilence breaks an event stream whose agent is silent. Long before
	// that, the edge takes the agent for away; the stream is kept so that a
	// laptop that slept for a moment goes on where it was.
	streamSilence = time.Minute
)

// Handler is the edge's side of the API. Its methods are called concurrently,
// from is the caller's node id, which WireGuard has proven. An *[Error] that
// a method returns (or wraps) reaches the caller as it is; any other error is
// logged, and the caller is told [CodeInternal] without details.
type Handler interface {
	Enroll(ctx context.Context, from tunnel.NodeID, req EnrollRequest) (EnrollReply, error)
	Publish(ctx context.Context, from tunnel.NodeID, req PublishRequest) (PublishReply, error)

	// Session runs for the life of an agent's event stream and sends
	// [EventHello] first. The stream ends when it returns. ctx ends when the
	// agent hangs up or Serve is told to stop.
	Session(ctx context.Context, from tunnel.NodeID, s *Session) error
}

// Server serves the API to agents. Its zero value is not usable.
type Server struct {
	overlay tunnel.Overlay
	handler Handler
	log     *slog.Logger
	streams streams
}

// NewServer returns a server for the nodes of overlay. A nil log discards.
func NewServer(overlay tunnel.Overlay, handler Handler, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{overlay: overlay, handler: handler, log: log, streams: streams{latest: map[tunnel.NodeID]*Presence{}}}
}

type nodeKey struct{}

// Serve accepts connections from l until ctx ends, then gives calls under way
// a moment, closes everything and returns nil. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	// ctx ends the event streams, which would otherwise keep Shutdown waiting.
	srv := &http.Server{
		Handler:           s.mux(),
		Protocols:         protocols,
		ReadHeaderTimeout: readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		// An agent has one stream and a few calls; more is an attack.
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: 16, MaxReadFrameSize: 16 << 10},
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if node, ok := c.(*nodeConn); ok {
				return context.WithValue(ctx, nodeKey{}, node.id)
			}
			return ctx
		},
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := srv.Serve(newNodeListener(l, s.overlay, s.log))
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("serve control: %w", err)
	})
	g.Go(func() error {
		<-gctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if err := srv.Shutdown(stop); err != nil {
			s.log.Debug("control calls cut off at stop", "err", err)
		}
		return srv.Close()
	})
	err := g.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Server) mux() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/enroll", func(w http.ResponseWriter, r *http.Request) {
		call(s, w, r, MaxEnroll, s.handler.Enroll)
	})
	mux.HandleFunc("PUT /v1/tunnels", func(w http.ResponseWriter, r *http.Request) {
		call(s, w, r, MaxPublish, s.handler.Publish)
	})
	mux.HandleFunc("POST /v1/events", s.events)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.refuse(w, r, &Error{Code: CodeNotFound, Message: "the edge does not know " + r.Method + " " + clean(r.URL.Path, maxLabel) + "; it may be older than the agent"})
	})
	return mux
}

// call reads a request of at most limit bytes, asks handle, and writes the
// answer.
func call[Req, Reply any, P interface {
	*Req
	validator
}](s *Server, w http.ResponseWriter, r *http.Request, limit int, handle func(context.Context, tunnel.NodeID, Req) (Reply, error)) {
	from, ok := r.Context().Value(nodeKey{}).(tunnel.NodeID)
	if !ok {
		s.refuse(w, r, errors.New("connection without a node id"))
		return
	}
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(readTimeout)); err != nil {
		s.refuse(w, r, fmt.Errorf("set read deadline: %w", err))
		return
	}
	var req Req
	if err := decode(r.Body, limit, P(&req)); err != nil {
		s.refuse(w, r, &Error{Code: CodeBadRequest, Message: "the edge cannot read the request: " + err.Error()})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), handlerTimeout)
	defer cancel()
	reply, err := handle(ctx, from, req)
	if err != nil {
		s.refuse(w, r, err)
		return
	}
	s.answer(w, r, http.StatusOK, reply)
}

// refuse answers with err, and logs what the caller is not told.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var e *Error
	if !errors.As(err, &e) {
		s.log.Error("control call", "call", r.URL.Path, "node", r.Context().Value(nodeKey{}), "err", err)
		e = &Error{Code: CodeInternal, Message: "the edge had an internal error; its log says which"}
	}
	s.answer(w, r, e.status(), errorBody{e})
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, status int, body any) {
	rc := http.NewResponseController(w)
	err := rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		err = json.NewEncoder(w).Encode(body)
	}
	if err != nil { // the caller has gone
		s.log.Debug("control answer", "call", r.URL.Path, "node", r.Context().Value(nodeKey{}), "err", err)
	}
}

// events runs one event stream.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	from, ok := r.Context().Value(nodeKey{}).(tunnel.NodeID)
	if !ok {
		s.refuse(w, r, errors.New("connection without a node id"))
		return
	}
	mine := s.streams.begin(from, presenceOf(r.Header))
	if mine == nil {
		s.refuse(w, r, &Error{Code: CodeSuperseded, Message: "another process with this agent's key has taken its place at the edge"})
		return
	}
	defer s.streams.end(from, mine)
	session := newSession(w, r.Body)
	session.Process, session.Version = mine.Process, mine.Version
	err := s.handler.Session(r.Context(), from, session)
	session.Close()
	if err == nil || r.Context().Err() != nil || errors.Is(err, io.EOF) {
		return
	}
	if !session.begun() {
		s.refuse(w, r, err)
		return
	}
	var e *Error
	if !errors.As(err, &e) {
		s.log.Debug("event stream broke", "node", from, "err", err)
		return
	}
	if err := session.Send(ServerEvent{Type: eventError, Error: e}); err != nil {
		s.log.Debug("event stream broke", "node", from, "err", err)
	}
}
