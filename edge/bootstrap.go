package edge

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"reflect"
	"time"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
)

// lockedWait is how long a command's look into the database, or an edge that
// starts or stops, may hold up the other.
const lockedWait = 5 * time.Second

// openStore opens the database. A command that looks into it while no edge runs
// has it for milliseconds, and must not keep the edge from starting.
func openStore(ctx context.Context, dir *statedir.Dir) (*store.Bolt, error) {
	var db *store.Bolt
	err := whileLocked(ctx, func() (err error) {
		db, err = store.OpenBolt(dir.Path(dbFile))
		return err
	})
	return db, err
}

// whileLocked repeats try as long as another process has the database, for a
// few seconds.
func whileLocked(ctx context.Context, try func() error) error {
	ctx, cancel := context.WithTimeout(ctx, lockedWait)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := try()
		if !errors.Is(err, store.ErrLocked) {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return err
		}
	}
}

// bootstrap makes the store that of an edge with this key and domain, and gives
// the settings. At the first start it draws the overlay.
func bootstrap(ctx context.Context, s store.Store, key keys.Public, domain string, now time.Time) (settings store.Settings, was string, err error) {
	_, err = commit(ctx, s, nil, func(snap *snapshot) ([]store.Op, error) {
		settings, was = snap.settings.Value, snap.settings.Value.Domain
		var ops []op
		if snap.settings.Revision == 0 {
			overlay, err := tunnel.NewOverlay(rand.Reader)
			if err != nil {
				return nil, err
			}
			settings = store.Settings{Overlay: overlay, Domain: domain, Created: now}
		}
		if domain != "" {
			settings.Domain = domain
		}
		if settings.Domain == "" {
			return nil, errors.New("the edge has no domain yet: name the one that its tunnels' host names lie under, with --domain example.com")
		}
		if settings != snap.settings.Value {
			ops = append(ops, put(store.SettingsKey, settings, snap.settings.Revision))
		}
		more, err := selfOps(snap, key, now)
		if err != nil {
			return nil, err
		}
		return puts(append(ops, more...)...)
	})
	return settings, was, err
}

// edgeKey reads this edge's key, or makes it at the first start. A key that is
// gone from beside a database that knows it is not replaced: agents trust that
// one alone, and a new file would hide what happened.
func edgeKey(ctx context.Context, s store.Store, path string) (keys.Private, error) {
	key, err := keys.Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	_, _, err = store.Read[store.Node](ctx, s, store.NodeKey(edgeNode))
	if err == nil {
		return keys.Private{}, fmt.Errorf("%s is missing, and agents trust the key in it alone: restore it from a copy, or start with an empty state directory and join all agents again", path)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return keys.Private{}, err
	}
	key, err = keys.LoadOrCreate(path)
	if _, told := errors.AsType[*keys.FileError](err); !told {
		err = statedir.Explain("make the key", path, err)
	}
	return key, err
}

// selfOps make the record of this edge's own node.
func selfOps(snap *snapshot, key keys.Public, now time.Time) ([]op, error) {
	self, ok := snap.nodes[edgeNode]
	if !ok {
		node := store.Node{ID: edgeNode, Kind: store.EdgeNode, Name: "edge", Key: key, Created: now, Joined: true}
		return []op{put(store.NodeKey(edgeNode), node, 0), put(store.NodeKeyKey(key), edgeNode, 0)}, nil
	}
	if self.Value.Key != key {
		return nil, fmt.Errorf("the key in %s is not the one that this database knows (%s, not %s), and agents trust that one alone: "+
			"restore the key file, or start with an empty state directory and join all agents again", keyFile, key.Short(), self.Value.Key.Short())
	}
	return nil, nil
}

// saveServing keeps how the edge is reached, for when it is stopped.
func saveServing(ctx context.Context, s store.Store, sv serving) error {
	_, err := commit(ctx, s, nil, func(snap *snapshot) ([]store.Op, error) {
		if snap.serving.Revision != 0 && snap.serving.Value == sv {
			return nil, nil
		}
		return puts(put(servingKey, sv, snap.serving.Revision))
	})
	return err
}

// saveOwnCertificates keeps where own certificates are, for when the edge is stopped.
func saveOwnCertificates(ctx context.Context, s store.Store, files []certs.Pair, folder string) error {
	own := ownCertificates{Files: append([]certs.Pair(nil), files...), Folder: folder}
	paths := []*string{&own.Folder}
	for i := range own.Files {
		paths = append(paths, &own.Files[i].Cert, &own.Files[i].Key)
	}
	for _, p := range paths {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("own certificates: %w", err)
		}
		*p = abs
	}
	was, rev, err := store.Read[ownCertificates](ctx, s, ownCertificatesKey)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if reflect.DeepEqual(was, own) {
		return nil
	}
	ops, err := puts(put(ownCertificatesKey, own, rev))
	if err != nil {
		return err
	}
	_, err = s.Commit(ctx, ops...)
	return err
}

// selfEdge is this edge as invites and enrolled agents get it.
func selfEdge(key keys.Public, sv serving) (keys.Edge, error) {
	endpoints, err := sv.endpoints()
	return keys.Edge{Key: key, Node: uint32(edgeNode), Endpoints: endpoints}, err
}

// CA is the root certificate of the edge's internal authority, PEM. It is
// certs.ErrNoRoot when there is none.
func CA(dir *statedir.Dir) ([]byte, error) { return certs.InternalRootPEM(dir.Path(certsDir)) }

// publicPort is the port of host names in public addresses.
func publicPort(configured uint16, listener netip.AddrPort) uint16 {
	if configured != 0 {
		return configured
	}
	return listener.Port()
}
