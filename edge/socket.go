package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/statedir"
)

const (
	maxAdminRequest = 64 << 10 // bytes
	maxAdminAnswer  = 64 << 20 // bytes; 100,000 tunnels are some 30 MB
	adminTimeout    = 30 * time.Second
)

// named is the request of calls that take one name.
type named struct {
	Name string `json:"name"`
}

// done is the answer of calls that have nothing to say.
type done struct{}

// adminFailure is the body of an answer that is no success.
type adminFailure struct {
	Error *Refusal `json:"error"`
}

// adminServer serves Admin on the Unix socket: JSON over HTTP. Whoever can
// connect may do everything; the socket's mode lets only the edge's user.
type adminServer struct {
	admin Admin
	log   *slog.Logger
}

func (s *adminServer) mux() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /v1/invite", adminCall(s, s.admin.Invite))
	mux.Handle("GET /v1/agents", adminCall(s, func(ctx context.Context, _ done) ([]AgentRow, error) { return s.admin.Agents(ctx) }))
	mux.Handle("GET /v1/tunnels", adminCall(s, func(ctx context.Context, _ done) ([]TunnelRow, error) { return s.admin.Tunnels(ctx) }))
	mux.Handle("GET /v1/invites", adminCall(s, func(ctx context.Context, _ done) ([]InviteRow, error) { return s.admin.Invites(ctx) }))
	mux.Handle("POST /v1/revoke", adminCall(s, func(ctx context.Context, n named) (done, error) { return done{}, s.admin.Revoke(ctx, n.Name) }))
	mux.Handle("POST /v1/revoke-invite", adminCall(s, func(ctx context.Context, n named) (done, error) { return done{}, s.admin.RevokeInvite(ctx, n.Name) }))
	mux.Handle("POST /v1/release", adminCall(s, func(ctx context.Context, n named) (done, error) { return done{}, s.admin.Release(ctx, n.Name) }))
	mux.Handle("GET /v1/certs", adminCall(s, func(ctx context.Context, _ done) ([]certs.Status, error) { return s.admin.Certs(ctx) }))
	mux.Handle("GET /v1/status", adminCall(s, func(ctx context.Context, _ done) (Status, error) { return s.admin.Status(ctx) }))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, http.StatusNotFound, adminFailure{&Refusal{RefusedNotFound,
			fmt.Sprintf("the running edge does not know the call %.80q; it may be older than this command", r.Method+" "+r.URL.Path)}})
	})
	return mux
}

// adminCall decodes a request, calls, and answers.
func adminCall[Req, Reply any](s *adminServer, call func(context.Context, Req) (Reply, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req Req
		if r.Method != http.MethodGet {
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAdminRequest)).Decode(&req); err != nil {
				s.answer(w, http.StatusBadRequest, adminFailure{&Refusal{RefusedBadRequest, "not a request of this API: " + err.Error()}})
				return
			}
		}
		ctx, cancel := context.WithTimeout(r.Context(), adminTimeout)
		defer cancel()
		reply, err := call(ctx, req)
		if refusal := asRefusal(err); refusal != nil {
			s.answer(w, http.StatusUnprocessableEntity, adminFailure{refusal})
			return
		}
		if err != nil {
			// The caller is the edge's owner, from whom nothing is kept.
			s.answer(w, http.StatusInternalServerError, adminFailure{&Refusal{"", err.Error()}})
			return
		}
		s.answer(w, http.StatusOK, reply)
	})
}

func (s *adminServer) answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.log.Debug("answer a command", "err", err) // it has gone
	}
}

// serve answers until ctx ends, and calls under way a moment longer. It closes l.
func (s *adminServer) serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.mux(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      adminTimeout + 10*time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve the admin socket: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-gctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if err := srv.Shutdown(stop); err != nil {
			s.log.Debug("commands cut off at stop", "err", err)
		}
		return srv.Close()
	})
	return g.Wait()
}

// socketAdmin is Admin over the socket of a running edge.
type socketAdmin struct{ client *http.Client }

func newSocketAdmin(dir *statedir.Dir) *socketAdmin {
	return &socketAdmin{&http.Client{
		Timeout: adminTimeout + 5*time.Second,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dir.DialUnix(ctx, socketFile) },
		},
	}}
}

func (a *socketAdmin) Close() error {
	a.client.CloseIdleConnections()
	return nil
}

func (a *socketAdmin) Invite(ctx context.Context, opts InviteOptions) (result InviteResult, err error) {
	err = a.call(ctx, http.MethodPost, "invite", opts, &result)
	if err == nil && result.Token == "" {
		err = errors.New("the running edge answered without a token: it may be of another version than this command")
	}
	return result, err
}

func (a *socketAdmin) Agents(ctx context.Context) (rows []AgentRow, err error) {
	err = a.call(ctx, http.MethodGet, "agents", nil, &rows)
	return rows, err
}

func (a *socketAdmin) Tunnels(ctx context.Context) (rows []TunnelRow, err error) {
	err = a.call(ctx, http.MethodGet, "tunnels", nil, &rows)
	return rows, err
}

func (a *socketAdmin) Invites(ctx context.Context) (rows []InviteRow, err error) {
	err = a.call(ctx, http.MethodGet, "invites", nil, &rows)
	return rows, err
}

func (a *socketAdmin) Revoke(ctx context.Context, agent string) error {
	return a.call(ctx, http.MethodPost, "revoke", named{agent}, &done{})
}

func (a *socketAdmin) RevokeInvite(ctx context.Context, id string) error {
	return a.call(ctx, http.MethodPost, "revoke-invite", named{id}, &done{})
}

func (a *socketAdmin) Release(ctx context.Context, name string) error {
	return a.call(ctx, http.MethodPost, "release", named{name}, &done{})
}

func (a *socketAdmin) Certs(ctx context.Context) (rows []certs.Status, err error) {
	err = a.call(ctx, http.MethodGet, "certs", nil, &rows)
	return rows, err
}

func (a *socketAdmin) Status(ctx context.Context) (st Status, err error) {
	err = a.call(ctx, http.MethodGet, "status", nil, &st)
	return st, err
}

func (a *socketAdmin) call(ctx context.Context, method, path string, req, reply any) error {
	var body io.Reader
	if method != http.MethodGet {
		data, err := json.Marshal(req)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://edge/v1/"+path, body)
	if err != nil {
		return err
	}
	resp, err := a.client.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("ask the running edge: %w", err)
	}
	defer resp.Body.Close()
	answer := json.NewDecoder(io.LimitReader(resp.Body, maxAdminAnswer))
	if resp.StatusCode == http.StatusOK {
		if err := answer.Decode(reply); err != nil {
			return fmt.Errorf("read the running edge's answer: %w", err)
		}
		return nil
	}
	var failure adminFailure
	if err := answer.Decode(&failure); err != nil || failure.Error == nil {
		return fmt.Errorf("the running edge answered %s, and nothing that this version understands", resp.Status)
	}
	if failure.Error.Code == "" {
		return errors.New(failure.Error.Message)
	}
	return failure.Error
}
