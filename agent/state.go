package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
)

// Files of the agent's state directory.
const (
	keyFile    = "agent.key"
	edgesFile  = "edges.json"
	lockFile   = "agent.lock"
	joinLock   = "join.lock"
	socketFile = "agent.sock"

	stateVersion = 1 // of the directory
	edgesVersion = 1 // of edges.json
)

// ErrNotJoined is in the chain of errors that a state directory without an
// edge causes.
var ErrNotJoined = errors.New("this agent has not joined an edge")

// Joined is what an agent knows of its place in the overlay.
type Joined struct {
	Name    string // the agent's, unique at the edge
	Node    tunnel.NodeID
	Edge    string // HOST:PORT of the first edge
	Domain  string // of the edge
	Overlay tunnel.Overlay
}

// edgesState is the content of edges.json.
type edgesState struct {
	Version int            `json:"version"`
	Node    tunnel.NodeID  `json:"node"`
	Name    string         `json:"name"`
	Overlay tunnel.Overlay `json:"overlay"`
	Domain  string         `json:"domain"`
	Edges   []keys.Edge    `json:"edges"`

	// Revoked is the edge's word that it knows this agent no more. It
	// answers nothing afterwards, so only this can tell a later start why.
	Revoked string `json:"revoked,omitempty"`
}

// refusal is the *control.Error of an agent that was revoked, or nil.
func (s edgesState) refusal() error {
	if s.Revoked == "" {
		return nil
	}
	return &control.Error{Code: control.CodeRevoked, Message: s.Revoked}
}

func (s edgesState) joined() Joined {
	j := Joined{Name: s.Name, Node: s.Node, Domain: s.Domain, Overlay: s.Overlay}
	if len(s.Edges) > 0 {
		j.Edge = edgeName(s.Edges[0])
	}
	return j
}

// edgeName is how an edge is called in events: its first UDP endpoint.
func edgeName(e keys.Edge) string {
	for _, ep := range e.Endpoints {
		if ep.Kind == keys.EndpointUDP {
			return ep.Addr
		}
	}
	return e.Key.Short()
}

// loadKey reads the key of an agent that has joined.
func loadKey(dir *statedir.Dir) (keys.Private, error) {
	key, err := keys.Load(dir.Path(keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return keys.Private{}, fmt.Errorf("the agent's key %s is missing, and without it the edge does not know this agent: restore it, or join again with a new invite", dir.Path(keyFile))
	}
	return key, err
}

// loadEdges reads edges.json. The error wraps ErrNotJoined when there is none.
func loadEdges(dir *statedir.Dir) (edgesState, error) {
	if err := dir.CheckVersion(stateVersion); err != nil {
		return edgesState{}, err
	}
	path := dir.Path(edgesFile)
	data, err := dir.ReadFile(edgesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return edgesState{}, fmt.Errorf("%w: get a token with `wgexpose edge invite` on the edge, and run `wgexpose join TOKEN` here (state directory %s)", ErrNotJoined, dir)
	}
	if err != nil {
		return edgesState{}, err
	}
	var s edgesState
	if err := json.Unmarshal(data, &s); err != nil {
		return edgesState{}, fmt.Errorf("%s is damaged (%w): restore it, or remove it and join again", path, err)
	}
	if s.Version > edgesVersion {
		return edgesState{}, &statedir.VersionError{Path: path, Found: s.Version, Supported: edgesVersion}
	}
	if s.Version < 1 || s.Node == 0 || len(s.Edges) == 0 || !s.Overlay.Prefix().IsValid() {
		return edgesState{}, fmt.Errorf("%s is damaged (it names no edge): restore it, or remove it and join again", path)
	}
	return s, nil
}

func saveEdges(dir *statedir.Dir, s edgesState) error {
	s.Version = edgesVersion
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return dir.WriteFile(edgesFile, append(data, '\n'))
}
