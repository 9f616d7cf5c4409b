package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/tunnel"
)

// Limits of the wire format, in bytes or entries. A reader gives up beyond
// them, so no caller can make the other side hold more.
const (
	MaxEnroll  = 16 << 10 // body of an enroll request or answer
	MaxPublish = 1 << 20  // body of a publish request or answer
	MaxLine    = 16 << 10 // one event, newline included
	MaxTunnels = 1000     // tunnels in one publish request

	maxText  = 1024 // human-readable text
	maxLabel = 128  // versions, platforms, session ids
)

// EnrollRequest asks the edge to make the holder of an invite an agent.
type EnrollRequest struct {
	Key      keys.Public `json:"key"`                // the agent's own, its private half already on disk
	Name     string      `json:"name,omitempty"`     // wished for; "" lets the edge choose
	Version  string      `json:"version,omitempty"`  // of the agent's program
	Platform string      `json:"platform,omitempty"` // such as linux/amd64
}

// EnrollReply is what an agent must know from then on.
type EnrollReply struct {
	Node    tunnel.NodeID  `json:"node"`
	Name    string         `json:"name"` // the name it got, unique at the edge
	Overlay tunnel.Overlay `json:"overlay"`
	Domain  string         `json:"domain"`
	Edges   []keys.Edge    `json:"edges"`
}

// PublishRequest is the whole set of tunnels that an agent wants served.
// Whatever an earlier request named and this one does not is withdrawn.
type PublishRequest struct {
	Session string        `json:"session"` // as the edge's hello gave it
	Tunnels []tunnel.Spec `json:"tunnels"`
}

// PublishReply has one answer for each tunnel of the request, in its order.
type PublishReply struct {
	Tunnels []Published `json:"tunnels"`
}

// Published is the edge's answer for one tunnel: a public URL, or an error.
type Published struct {
	ID        tunnel.ID `json:"id"`
	Name      string    `json:"name"` // as asked for, or as the edge chose
	PublicURL string    `json:"public_url,omitempty"`
	Error     *Error    `json:"error,omitempty"`
}

// Types of a [ServerEvent].
const (
	EventHello      = "hello"      // the first: Session and Domain are set
	EventHeartbeat  = "heartbeat"  // from an agent: still here; from the edge: the answer
	EventSuperseded = "superseded" // another process with the same key took over; the last
	EventRevoked    = "revoked"    // the agent was revoked; the last
	EventDraining   = "draining"   // the edge stops soon
	eventError      = "error"      // the handler ended with an error; the last
)

// EventUpstream is the [AgentEvent] that tells how an upstream is.
const EventUpstream = "upstream"

// Heartbeat is how often an agent sends [EventHeartbeat]. Each is answered with
// one, which tells the agent that it is heard.
const Heartbeat = 2 * time.Second

// ServerEvent is one line from the edge.
type ServerEvent struct {
	Type    string `json:"type"`
	Session string `json:"session,omitempty"` // hello: names this stream in publish requests
	Domain  string `json:"domain,omitempty"`  // hello: the edge's domain
	Version string `json:"version,omitempty"` // hello: of the edge's program
	From    string `json:"from,omitempty"`    // hello: the UDP address that the edge has the agent's packets from; "": it is a stream
	Message string `json:"message,omitempty"` // revoked, superseded, draining: for a person
	Pong    uint64 `json:"pong,omitempty"`    // heartbeat: the Ping that it answers, at once
	Error   *Error `json:"error,omitempty"`
}

// AgentEvent is one line from the agent.
type AgentEvent struct {
	Type   string    `json:"type"`
	Tunnel tunnel.ID `json:"tunnel,omitempty"` // upstream: whose
	OK     bool      `json:"ok,omitempty"`     // upstream: the last dial succeeded
	Code   string    `json:"code,omitempty"`   // upstream: why not, one of the CodeUpstream constants
	Error  string    `json:"error,omitempty"`  // upstream: why not, in words
	At     time.Time `json:"at,omitzero"`      // when it was seen, by the agent's clock
	Call   bool      `json:"call,omitempty"`   // heartbeat: begin a WireGuard handshake, since this agent's clock is behind and its own are ignored
	Ping   uint64    `json:"ping,omitempty"`   // heartbeat: asks for one with this Pong; of meaning to the agent alone
}

// validator is a wire type that can tell whether it makes sense, and that
// cleans its human-readable texts while it looks.
type validator interface{ validate() error }

func (r *EnrollRequest) validate() error {
	if r.Key.IsZero() {
		return errors.New("key is missing")
	}
	if r.Name != "" {
		if err := tunnel.ValidateName(r.Name); err != nil {
			return fmt.Errorf("name: %w", err)
		}
	}
	r.Version, r.Platform = clean(r.Version, maxLabel), clean(r.Platform, maxLabel)
	return nil
}

func (r *EnrollReply) validate() error {
	if r.Node == 0 {
		return errors.New("node is missing")
	}
	if !r.Overlay.Prefix().IsValid() {
		return errors.New("overlay is missing")
	}
	if len(r.Edges) == 0 {
		return errors.New("edges are missing")
	}
	for _, e := range r.Edges {
		if e.Key.IsZero() || e.Node == 0 {
			return errors.New("an edge has no key or no node id")
		}
	}
	r.Name, r.Domain = clean(r.Name, maxText), clean(r.Domain, maxText)
	return nil
}

// validate checks the shape only. What is wrong with one tunnel is told as
// that tunnel's own error, so that the others of the set are served.
func (r *PublishRequest) validate() error {
	if len(r.Session) > maxLabel {
		return errors.New("session is too long")
	}
	if len(r.Tunnels) > MaxTunnels {
		return fmt.Errorf("%d tunnels, of at most %d", len(r.Tunnels), MaxTunnels)
	}
	seen := make(map[tunnel.ID]bool, len(r.Tunnels))
	for _, t := range r.Tunnels {
		if seen[t.ID] {
			return fmt.Errorf("tunnel id %d appears twice", t.ID)
		}
		seen[t.ID] = true
	}
	return nil
}

func (r *PublishReply) validate() error {
	if len(r.Tunnels) > MaxTunnels {
		return fmt.Errorf("%d tunnels, of at most %d", len(r.Tunnels), MaxTunnels)
	}
	for i := range r.Tunnels {
		p := &r.Tunnels[i]
		p.Name, p.PublicURL = clean(p.Name, maxText), clean(p.PublicURL, maxText)
		if p.Error != nil {
			if err := p.Error.validate(); err != nil {
				return fmt.Errorf("tunnel %d: %w", p.ID, err)
			}
		}
	}
	return nil
}

func (e *ServerEvent) validate() error {
	if err := checkType(e.Type); err != nil {
		return err
	}
	if len(e.Session) > maxLabel {
		return errors.New("session is too long")
	}
	if e.Type == EventHello && e.Session == "" {
		return errors.New("hello without a session")
	}
	e.Domain, e.Version, e.Message = clean(e.Domain, maxText), clean(e.Version, maxLabel), clean(e.Message, maxText)
	e.From = clean(e.From, maxLabel)
	if e.Error != nil {
		return e.Error.validate()
	}
	if e.Type == eventError {
		return errors.New("error event without an error")
	}
	return nil
}

func (e *AgentEvent) validate() error {
	if err := checkType(e.Type); err != nil {
		return err
	}
	e.Code, e.Error = clean(e.Code, maxLabel), clean(e.Error, maxText)
	return nil
}

func (e *Error) validate() error {
	if e.Code == "" {
		return errors.New("error without a code")
	}
	e.Code, e.Message = clean(e.Code, maxLabel), clean(e.Message, maxText)
	return nil
}

func (b *errorBody) validate() error {
	if b.Error == nil {
		return errors.New("no error in it")
	}
	return b.Error.validate()
}

func checkType(s string) error {
	if s == "" || len(s) > maxLabel {
		return errors.New("type is missing or too long")
	}
	return nil
}

// clean makes text of the other side fit to be printed on a terminal or a
// page: at most limit bytes, valid UTF-8, no control characters. A peer that
// is hostile could otherwise rewrite the user's screen with escape sequences.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return ' '
		}
		if unicode.Is(unicode.Cf, r) { // bidirectional overrides among them
			return -1
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// decode reads one JSON value of at most limit bytes, and nothing after it,
// into v and validates it. The errors are for the sender to read.
func decode(r io.Reader, limit int, v validator) error {
	data, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return err
	}
	if len(data) > limit {
		return fmt.Errorf("longer than %d bytes", limit)
	}
	return unmarshal(data, v)
}

func unmarshal(data []byte, v validator) error {
	// The decoder would take "null" as a valid nothing.
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return errors.New("not a JSON object")
	}
	if err := json.Unmarshal(data, v); err != nil {
		return err
	}
	return v.validate()
}
