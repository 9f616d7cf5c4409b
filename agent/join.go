package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
)

const (
	// reachTimeout is how long Join looks for the edge.
	reachTimeout = 10 * time.Second
	// enrollTimeout is for one try to enroll, and enrollTries how many there
	// are: holders of the same invite share its key, and while two of them
	// join at once, each takes the edge's answers away from the other.
	enrollTimeout = 5 * time.Second
	enrollTries   = 6
)

// JoinOptions are what Join may be told besides the invite.
type JoinOptions struct {
	Name    string // wished for; "" = made of the host's name. An invite that has a name prevails.
	Version string // of the program, shown at the edge
	Reach   Reach
	Logger  *slog.Logger // nil discards
	Step    func(string) // called with what is done next, in words; may be nil

	reach time.Duration // how long to look for an edge; 0 = reachTimeout; tests shorten it
}

// Join makes this machine an agent of the invite's edge and writes down in dir
// what Run needs. It may be done again at any time: after a crash in the
// middle it goes on where it was, and an agent that has joined already learns
// the edge's present endpoints.
//
// A refusal of the edge is in the error's chain as a *control.Error.
func Join(ctx context.Context, dir *statedir.Dir, inv keys.Invite, o JoinOptions) (Joined, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.reach == 0 {
		o.reach = reachTimeout
	}
	if err := o.Reach.Validate(); err != nil {
		return Joined{}, err
	}
	if err := checkInvite(inv, time.Now()); err != nil {
		return Joined{}, err
	}
	if o.Name == "" {
		o.Name = hostName()
	} else if err := tunnel.ValidateName(o.Name); err != nil {
		return Joined{}, err
	}
	lock, err := dir.Lock(joinLock)
	if errors.Is(err, statedir.ErrLocked) {
		return Joined{}, fmt.Errorf("another `wgexpose join` is at work in %s: wait for it to end", dir)
	}
	if err != nil {
		return Joined{}, err
	}
	defer lock.Unlock()
	old, err := loadEdges(dir)
	switch {
	case errors.Is(err, ErrNotJoined):
		old = edgesState{}
	case err != nil:
		return Joined{}, err
	case old.Overlay.Prefix() != inv.Overlay:
		return Joined{}, fmt.Errorf("this agent has joined %s already, and the token is of another edge: give that one a state directory of its own, with --state DIR (this one is %s)", old.Domain, dir)
	}
	state, err := enroll(ctx, dir, inv, old, o)
	if err != nil {
		return Joined{}, fmt.Errorf("join: %w", err)
	}
	if err := saveEdges(dir, state); err != nil {
		return Joined{}, fmt.Errorf("join: %w", err)
	}
	return state.joined(), nil
}

func checkInvite(inv keys.Invite, now time.Time) error {
	if inv.Expired(now) {
		return &control.Error{Code: control.CodeInviteExpired, Message: fmt.Sprintf(
			"this invite expired on %s, and this machine's clock says %s: ask the edge's owner for a new one (wgexpose edge invite), or set the clock right if it is wrong",
			inv.Expires.Format(time.RFC1123), now.UTC().Format(time.RFC1123))}
	}
	return nil
}

func (o JoinOptions) step(what string) {
	if o.Step != nil {
		o.Step(what)
	}
}

// hostName makes an agent's name of the machine's: "Bob's Mac.local" becomes
// "bob-s-mac". It is "" when nothing is left of it.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	name, _, _ = strings.Cut(strings.ToLower(name), ".")
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)
	name = strings.Trim(name[:min(len(name), 60)], "-")
	if tunnel.ValidateName(name) != nil {
		return ""
	}
	return name
}

// enroll asks each of the invite's edges in turn.
func enroll(ctx context.Context, dir *statedir.Dir, inv keys.Invite, old edgesState, o JoinOptions) (edgesState, error) {
	overlay, err := tunnel.OverlayFrom(inv.Overlay)
	if err != nil {
		return edgesState{}, err
	}
	// The key is on disk before the edge hears of it: a crash after the
	// answer then loses nothing.
	key, err := openKey(dir)
	if err != nil {
		return edgesState{}, err
	}
	n, err := openNode(inv.Key, overlay.NodeAddr(tunnel.NodeID(inv.Node)), o.Reach, o.Logger)
	if err != nil {
		return edgesState{}, err
	}
	defer n.close()
	var errs []error
	for _, edge := range inv.Edges {
		o.step("looking for the edge at " + edgeName(edge))
		if err := n.reach(ctx, edge, o.reach); err != nil {
			errs = append(errs, explainUnreached(ctx, err))
			continue
		}
		o.step("the edge answers; enrolling")
		reply, err := enrollAt(ctx, n, overlay, edge, key.Public(), o)
		switch control.CodeOf(err) {
		case control.CodeRevoked:
			// This machine was an agent once, and its key is burnt.
			if key, err = replaceKey(dir); err != nil {
				return edgesState{}, err
			}
			reply, err = enrollAt(ctx, n, overlay, edge, key.Public(), o)
		case control.CodeKeyKnown:
			if old.Node != 0 {
				o.Logger.Info("this agent has joined already; the edge's address is brought up to date")
				old.Edges, old.Revoked = inv.Edges, ""
				return old, nil
			}
		}
		if err != nil {
			return edgesState{}, err
		}
		if reply.Overlay.Prefix() != inv.Overlay {
			return edgesState{}, fmt.Errorf("the edge's overlay %v is not the invite's %v: the invite is of another edge, ask for a new one", reply.Overlay, inv.Overlay)
		}
		return edgesState{Node: reply.Node, Name: reply.Name, Overlay: reply.Overlay, Domain: reply.Domain, Edges: reply.Edges}, nil
	}
	return edgesState{}, errors.Join(errs...)
}

// replaceKey puts a revoked key aside.
func replaceKey(dir *statedir.Dir) (keys.Private, error) {
	path := dir.Path(keyFile)
	if err := os.Rename(path, path+".revoked"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return keys.Private{}, statedir.Explain("put the revoked key aside", path, err)
	}
	return openKey(dir)
}

// openKey reads this agent's key, or makes it.
func openKey(dir *statedir.Dir) (keys.Private, error) {
	path := dir.Path(keyFile)
	key, err := keys.LoadOrCreate(path)
	if _, told := errors.AsType[*keys.FileError](err); !told {
		err = statedir.Explain("make the key", path, err)
	}
	return key, err
}

func explainUnreached(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var u *unreachableError
	if errors.As(err, &u) && len(u.tried) > 0 {
		u.joining = true
		return fmt.Errorf("%w. On the edge's machine, check that `wgexpose edge` runs, that `wgexpose edge invites` lists the invite as open and that the firewall lets this UDP port in; from a network that blocks UDP, try another one", err)
	}
	return err
}

// enrollAt calls one edge, which n has reached, until it answers.
func enrollAt(ctx context.Context, n *node, overlay tunnel.Overlay, edge keys.Edge, key keys.Public, o JoinOptions) (control.EnrollReply, error) {
	to := netip.AddrPortFrom(overlay.NodeAddr(tunnel.NodeID(edge.Node)), tunnel.ControlPort)
	req := control.EnrollRequest{Key: key, Name: o.Name, Version: o.Version, Platform: runtime.GOOS + "/" + runtime.GOARCH}
	for try := 1; ; try++ {
		reply, err := enrollOnce(ctx, n, to, req)
		if err == nil || control.CodeOf(err) != "" || ctx.Err() != nil || try == enrollTries {
			return reply, err
		}
		o.Logger.Debug("enroll", "try", try, "err", err)
		select {
		case <-time.After(rand.N(time.Second)):
		case <-ctx.Done():
			return reply, ctx.Err()
		}
		if err := n.reach(ctx, edge, o.reach); err != nil {
			return reply, explainUnreached(ctx, err)
		}
	}
}

func enrollOnce(ctx context.Context, n *node, to netip.AddrPort, req control.EnrollRequest) (control.EnrollReply, error) {
	ctx, cancel := context.WithTimeout(ctx, enrollTimeout)
	defer cancel()
	client := control.NewClient(func(ctx context.Context) (net.Conn, error) {
		return n.stack.DialTCP(ctx, netip.AddrPort{}, to)
	})
	defer client.Close()
	return client.Enroll(ctx, req)
}
