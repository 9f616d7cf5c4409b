package edge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
)

// Names of what an edge keeps in its state directory.
const (
	lockFile   = "edge.lock"
	keyFile    = "edge.key"
	dbFile     = "edge.db"
	socketFile = "edge.sock"
	certsDir   = "certs"

	stateVersion = 1 // of the directory's layout
)

// Admin is what the commands do to an edge. With the edge running they act on
// it, and return when they have taken effect; else they read and write its
// database, and facts that only a running edge has are left out.
//
// What is refused for a reason that the user can read is a [*Refusal].
type Admin interface {
	Invite(ctx context.Context, opts InviteOptions) (InviteResult, error)
	Agents(ctx context.Context) ([]AgentRow, error)
	Tunnels(ctx context.Context) ([]TunnelRow, error)
	Invites(ctx context.Context) ([]InviteRow, error)
	Revoke(ctx context.Context, agent string) error
	RevokeInvite(ctx context.Context, id string) error
	// Release gives a reserved name or port back: a tunnel's name, its host
	// name or public URL, or a TCP port.
	Release(ctx context.Context, name string) error
	// Certs lists the certificates. Of a stopped edge they are those that it has
	// stored, and own ones where they were at its last start.
	Certs(ctx context.Context) ([]certs.Status, error)
	// Status is all of it at a glance.
	Status(ctx context.Context) (Status, error)
	Close() error
}

// InviteOptions are what an invite allows. Zero fields are the defaults.
type InviteOptions struct {
	Name string        `json:"name,omitempty"` // for the agent; "" lets it choose its own
	Uses int           `json:"uses,omitempty"` // 1
	TTL  time.Duration `json:"ttl,omitempty"`  // 24 h, in nanoseconds on the wire
	// Domains are host names outside of the edge's domain that its agents may have:
	// shop.customer.org, or *.customer.org for all below customer.org. None.
	Domains []string `json:"domains,omitempty"`
}

// InviteResult is a new invite. The token is a secret until it is used up.
type InviteResult struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
	Warning string    `json:"warning,omitempty"` // such as an endpoint that the internet cannot reach
}

// States of agents, tunnels and invites as the rows give them.
const (
	StateUp       = "up"
	StateAway     = "away"
	StateError    = "error"    // a tunnel whose agent is up and cannot reach the upstream
	StateReserved = "reserved" // a tunnel that nobody asks for now; its owner keeps the name
	StateOpen     = "open"     // an invite that can be used
	StateUsed     = "used"
	StateExpired  = "expired"
	StateRevoked  = "revoked"
)

// AgentRow is one agent. State, Since, MTU, Rx and Tx are of a running edge only.
type AgentRow struct {
	Name     string        `json:"name"`
	Node     tunnel.NodeID `json:"node"`
	Key      keys.Public   `json:"key"`
	State    string        `json:"state,omitempty"` // up, away
	Since    time.Time     `json:"since,omitzero"`  // it is in this state
	Endpoint string        `json:"endpoint,omitempty"`
	MTU      int           `json:"mtu,omitempty"`      // how large packets to it are, inside WireGuard, in bytes; 0: it is not here
	Rx       uint64        `json:"rx_bytes,omitempty"` // over WireGuard, since the edge started
	Tx       uint64        `json:"tx_bytes,omitempty"`
	Version  string        `json:"version,omitempty"`
	Platform string        `json:"platform,omitempty"`
	Created  time.Time     `json:"created"`
	Joined   bool          `json:"joined"` // has connected with its own key
	Tunnels  int           `json:"tunnels"`
	Domains  []string      `json:"domains,omitempty"` // that it may have besides the edge's
}

// TunnelRow is one public side, served or reserved. With the edge stopped,
// State is reserved or empty.
type TunnelRow struct {
	Name      string      `json:"name"`
	Kind      tunnel.Kind `json:"kind"`
	PublicURL string      `json:"public_url"`
	Agent     string      `json:"agent"`
	Upstream  string      `json:"upstream"`
	State     string      `json:"state,omitempty"`  // up, away, error, reserved
	Reason    string      `json:"reason,omitempty"` // of error
	Generated bool        `json:"generated,omitempty"`
}

// InviteRow is one invite that was not swept yet.
type InviteRow struct {
	ID      string    `json:"id"`
	Name    string    `json:"name,omitempty"`
	State   string    `json:"state"` // open, used, expired, revoked
	Uses    int       `json:"uses"`
	Used    int       `json:"used"`
	Agents  []string  `json:"agents,omitempty"` // that joined with it
	Domains []string  `json:"domains,omitempty"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// The codes of a [Refusal].
const (
	RefusedNotFound   = "not_found"
	RefusedBadRequest = "bad_request"
	RefusedAmbiguous  = "ambiguous"   // the name means several things
	RefusedInUse      = "in_use"      // what is to be released is being served
	RefusedNotRunning = "not_running" // the edge has to run for it, or has to have run
)

// Refusal is an admin call that was refused for a reason to be read.
type Refusal struct {
	Code    string `json:"code"` // one of the Refused constants
	Message string `json:"message"`
}

func (r *Refusal) Error() string { return r.Message }

func refuse(code, format string, args ...any) error {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

// OpenAdmin reaches the edge that runs on dir, or else the database that it left
// there. An edge that is just starting or stopping is waited for, for a moment.
func OpenAdmin(ctx context.Context, dir *statedir.Dir) (Admin, error) {
	var admin Admin
	err := whileLocked(ctx, func() error {
		conn, err := dir.DialUnix(ctx, socketFile)
		if err == nil {
			conn.Close() // it is there; each call has its own
			admin = newSocketAdmin(dir)
			return nil
		}
		if !errors.Is(err, statedir.ErrNotRunning) {
			return err
		}
		db, err := openStopped(dir)
		if err != nil {
			return err
		}
		admin = &storeAdmin{store: db, close: db.Close, certs: func() ([]certs.Status, error) {
			own, _, err := store.Read[ownCertificates](ctx, db, ownCertificatesKey)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return nil, err
			}
			return certs.Stored(dir.Path(certsDir), own.Files, own.Folder)
		}}
		return nil
	})
	if errors.Is(err, store.ErrLocked) {
		return nil, fmt.Errorf("the edge on %s is starting or stopping, or another command is at work there: try again in a moment (%w)", dir, err)
	}
	return admin, err
}

// openStopped opens the database of an edge that does not run. It makes none.
func openStopped(dir *statedir.Dir) (*store.Bolt, error) {
	if _, err := os.Stat(dir.Path(dbFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no edge in %s yet: start it first, with wgexpose edge, or name its state directory with --state", dir)
	} else if err != nil {
		return nil, err
	}
	if err := dir.CheckVersion(stateVersion); err != nil {
		return nil, err
	}
	return store.OpenBolt(dir.Path(dbFile))
}
