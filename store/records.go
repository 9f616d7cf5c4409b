package store

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/tunnel"
)

// Where the records are. Numbers have leading zeros, so that keys sort as they do.
//
//	settings                      Settings
//	node/0000000001               Node
//	nodekey/<public key>          tunnel.NodeID   whose key it is
//	name/<agent name>             tunnel.NodeID   whose name it is
//	invite/<invite id>            Invite
//	public/https/<host name>      Public
//	public/tcp/<port>             Public
//
// nodekey/ and name/ exist for their condition: created in the commit that
// creates a node, they let no key and no name be given twice.
const (
	SettingsKey    = "settings"
	NodePrefix     = "node/"
	NodeKeyPrefix  = "nodekey/"
	NamePrefix     = "name/"
	InvitePrefix   = "invite/"
	PublicPrefix   = "public/"
	HTTPSPrefix    = "public/https/"
	TCPPrefix      = "public/tcp/"
	inviteIDLength = 10
)

// NodeKey is the key of a [Node].
func NodeKey(id tunnel.NodeID) string { return fmt.Sprintf("%s%010d", NodePrefix, uint32(id)) }

// NodeKeyKey is the key under which the node of a WireGuard key is found.
// base64url: a slash in a key would look like a part of the path.
func NodeKeyKey(key keys.Public) string {
	b := key.Bytes()
	return NodeKeyPrefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// NameKey is the key under which the node of an agent name is found.
func NameKey(name string) string { return NamePrefix + name }

// InviteKey is the key of an [Invite].
func InviteKey(id string) string { return InvitePrefix + id }

// HTTPSKey is the key of the [Public] record of a host name, which is canonical.
func HTTPSKey(host string) string { return HTTPSPrefix + host }

// TCPKey is the key of the [Public] record of a TCP port.
func TCPKey(port uint16) string { return fmt.Sprintf("%s%05d", TCPPrefix, port) }

// InviteID names an invite by the public key that it carries: ten characters
// that a person can read out, of base32 of the key's SHA-256 hash.
func InviteID(key keys.Public) string {
	b := key.Bytes()
	sum := sha256.Sum256(b[:])
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:inviteIDLength]
}

// Settings are what the edge drew or was told once, for good.
type Settings struct {
	Overlay tunnel.Overlay `json:"overlay"`
	Domain  string         `json:"domain"`
	Created time.Time      `json:"created"`
}

// A NodeKind is what a node is.
type NodeKind string

// The kinds of nodes. An edge may keep others for its own ends, such as a
// record that holds the key of what it has revoked.
const (
	EdgeNode   NodeKind = "edge"
	AgentNode  NodeKind = "agent"
	InviteNode NodeKind = "invite"
)

// A Node is whatever has an overlay prefix, which follows from its ID. An ID
// is never used again.
type Node struct {
	ID       tunnel.NodeID  `json:"id"`
	Kind     NodeKind       `json:"kind"`
	Name     string         `json:"name"`
	Key      keys.Public    `json:"key"`
	Version  string         `json:"version,omitempty"`  // of its program, as it says
	Platform string         `json:"platform,omitempty"` // "linux/amd64", as it says
	Created  time.Time      `json:"created"`
	Joined   bool           `json:"joined"`            // it has shaken hands with its own key
	Endpoint netip.AddrPort `json:"endpoint,omitzero"` // where it was last heard from
	Invite   string         `json:"invite,omitempty"`  // the ID of the invite that it came with, or is
	Domains  []string       `json:"domains,omitempty"` // host names outside of the edge's domain that it may have, by its invite; *.x: all below x
}

// An Invite lets agents join. It is kept after its uses, so that a late comer
// is told what became of it.
type Invite struct {
	ID      string        `json:"id"` // see [InviteID]
	Node    tunnel.NodeID `json:"node"`
	Key     keys.Public   `json:"key"`            // the private one is in the token and nowhere else
	Name    string        `json:"name,omitempty"` // for the agent; empty: its own choice
	Uses    int           `json:"uses"`           // how many agents may join with it
	Used    []InviteUse   `json:"used,omitempty"` // those that did
	Created time.Time     `json:"created"`
	Expires time.Time     `json:"expires"`
	Revoked bool          `json:"revoked,omitempty"`
	Domains []string      `json:"domains,omitempty"` // see Node
}

// An InviteUse is one agent that joined.
type InviteUse struct {
	Key  keys.Public   `json:"key"`
	Node tunnel.NodeID `json:"node"`
	At   time.Time     `json:"at"`
}

// A Public is one public side, a host name or a TCP port, and whose it is. It
// stays reserved for its node while nothing is published on it.
type Public struct {
	Node      tunnel.NodeID `json:"node"`
	Name      string        `json:"name"` // of the tunnel
	Kind      tunnel.Kind   `json:"kind"`
	Host      string        `json:"host,omitempty"`      // http: the host name
	Port      uint16        `json:"port,omitempty"`      // tcp: the port
	Generated bool          `json:"generated,omitempty"` // nobody asked for this very name or port
	Active    bool          `json:"active"`              // the agent wants it served
	Spec      tunnel.Spec   `json:"spec"`                // what the agent last asked for
	Created   time.Time     `json:"created"`
	Seen      time.Time     `json:"seen"` // when the agent last wanted it
}
