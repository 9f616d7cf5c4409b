package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/statedir"
)

// drainTimeout is how long running connections may go on after the end.
const drainTimeout = 10 * time.Second

// regroup is how long a new owner waits for the other commands that run
// before it publishes. They come within some 50 ms, unless one hangs.
const regroup = 2 * time.Second

// owner is the process that holds the links of a state directory.
//
// It starts from the bottom up (set, inspector, links, socket, own tunnels) and ends in
// this order: own tunnels are withdrawn and drained while guests are served,
// and those of guests that end, too; then links, inspector and socket close; then the lock
// is free; and only then the other guests hear of it, so that the first of them
// finds the lock free. One that wished to end after the set had settled comes
// to the next owner with that wish.
type owner struct {
	dir     *statedir.Dir
	state   edgesState
	key     keys.Private
	version string
	log     *slog.Logger
	set     *set
	muster  *muster // of the commands that run already
	reach   Reach
}

// own runs this process as the owner until its tunnels have ended. It gives
// the lock back.
func (r *runner) own(ctx context.Context, lock *statedir.Lock) (err error) {
	unlock := sync.OnceValue(lock.Unlock)
	defer func() { err = errors.Join(err, unlock()) }()
	o := &owner{
		dir: r.cfg.Dir, state: r.state, key: r.key, version: r.cfg.Version, log: r.log, set: newSet(r.log),
		reach: r.cfg.Reach,
	}
	o.set.certificates = r.cfg.Certificates.with()
	listener, err := o.dir.ListenUnix(socketFile)
	if err != nil {
		return err
	}
	r.log.Debug("this process holds the links", "state", o.dir.String())

	others, err := r.roll.others()
	if err != nil {
		r.log.Warn("some files of commands that ended stay in the state directory", "err", err)
	}
	ends, err := newTLSEnd(r.cfg.Certificates, o.dir, o.state.Domain, o.set, o.log)
	if err != nil {
		listener.Close()
		return err
	}
	o.muster = newMuster(others, regroup)
	defer o.muster.end()
	o.set.inherited = r.stranded || len(others) > 0
	o.set.inspection.version, o.set.inspection.status = r.cfg.Version, func() Status { return o.status(0) }
	o.set.inspect(r.cfg.Inspect)
	defer o.set.inspection.end()
	offers, version := r.roster.offers()
	mine, err := o.set.add(os.Getpid(), offers, nil)
	if err != nil {
		listener.Close()
		return err
	}
	r.begun.Store(true)
	r.stranded = false
	r.roster.attach(version, func(offers []offer) {
		if err := o.set.replace(context.WithoutCancel(ctx), mine, offers); err != nil {
			mine.inbox.put(message{Type: msgEnd, Error: asControl(err)})
		}
	})
	defer func() { r.lost(r.roster.detach()) }()

	clock, err := openClock(o.dir)
	if err != nil {
		r.log.Warn("a clock that was set back will not be noticed", "err", err)
	}
	// Links and guests outlive ctx: the drain needs them.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	beats := pulse{time.Now()}
	var links sync.WaitGroup
	for _, edge := range o.state.Edges {
		l := newLink(edge, o.key, o.state, r.process, o.set, clock, o.muster.all, o.log)
		l.version, l.how, l.ends, l.pulse = o.version, r.cfg.Reach, ends, beats
		links.Go(func() {
			if err := l.run(life); err != nil {
				if control.CodeOf(err) == control.CodeRevoked {
					err = errors.Join(err, o.noteRevoked(err.Error()))
				}
				o.set.stop(asControl(err)) // ends consume, with this error
			}
		})
	}
	links.Go(func() { ends.run(life) })
	if r.cfg.Health {
		links.Go(func() { (&upstreams{set: o.set, pulse: beats}).run(life) })
	}
	guests := newGuests(o, listener)
	var accept errgroup.Group
	accept.Go(guests.accept)

	err = r.consume(ctx, mine)
	r.drain(ctx, o.set, mine)
	end()
	links.Wait()
	o.set.inspection.end() // before the next owner looks for the port
	listener.Close()
	err = errors.Join(err, accept.Wait(), unlock())
	guests.dismiss()
	return err
}

// noteRevoked keeps for later starts what the edge said.
func (o *owner) noteRevoked(why string) error {
	state := o.state
	state.Revoked = why
	return saveEdges(o.dir, state)
}

// drain withdraws this process's tunnels, and tells the user of it.
func (r *runner) drain(ctx context.Context, s *set, mine *claim) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.drain)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { s.withdraw(ctx, mine) }) // closes the inbox
	for {
		m, ok := mine.inbox.next(context.WithoutCancel(ctx))
		if !ok {
			break
		}
		if err := r.handle(m); err != nil {
			r.log.Debug("refused while ending", "err", err)
		}
	}
	wg.Wait()
	// Guests whose user pressed Ctrl-C for all are on their way, too.
	if err := s.settle(ctx); err != nil {
		r.log.Debug("ended before a guest had withdrawn", "err", err)
	}
}

// guests serves agent.sock.
type guests struct {
	owner    *owner
	listener net.Listener
	ctx      context.Context // of all connections; ends with dismiss
	cancel   context.CancelFunc
	wg       sync.WaitGroup // of connections
}

func newGuests(o *owner, l net.Listener) *guests {
	g := &guests{owner: o, listener: l}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	return g
}

// accept serves until the listener is closed.
func (g *guests) accept() error {
	for {
		c, err := g.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil { // out of descriptors, say: those who are here go on
			g.owner.log.Warn("accept on agent.sock", "err", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		g.wg.Go(func() {
			conn := newLocalConn(c)
			defer conn.Close()
			if err := g.serve(conn); err != nil {
				g.owner.log.Debug("guest", "err", err)
			}
		})
	}
}

// dismiss tells all guests that the owner ends, and waits for them to have
// heard it. The listener must be closed.
func (g *guests) dismiss() {
	g.cancel()
	g.wg.Wait()
}

func (g *guests) serve(c *localConn) error {
	var req request
	if err := c.readSoon(&req); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if req.Version != localVersion {
		return c.write(message{Version: localVersion, Type: msgEnd, Error: versionError(os.Getpid())})
	}
	switch req.Type {
	case askStatus:
		return g.status(c, req)
	case askRun:
		return g.run(c, req)
	}
	return c.write(message{Version: localVersion, Type: msgEnd, Error: &control.Error{Code: codeLocal, Message: "unknown request " + req.Type}})
}

// status answers until nobody asks any more, or the owner ends.
func (g *guests) status(c *localConn, req request) error {
	defer context.AfterFunc(g.ctx, func() { c.Close() })()
	feed := g.owner.set.visitFeed(req.Of)
	defer feed.close()
	for {
		st := g.owner.status(req.Of)
		if req.Visits {
			st.Visits = feed.take()
		}
		if err := c.write(message{Type: msgStatus, Status: &st}); err != nil {
			return err
		}
		req = request{}
		if err := c.read(&req); err != nil || req.Type != askStatus {
			return nil // it has hung up, as all do in the end
		}
	}
}

// run serves one guest's tunnels until it withdraws them or has gone, or the
// owner ends.
func (g *guests) run(c *localConn, req request) error {
	set := g.owner.set
	set.inspect(req.Inspect)
	mine, err := set.add(req.PID, req.Tunnels, &req)
	g.owner.muster.arrived(req.Name)
	if err != nil {
		return c.write(message{Version: localVersion, Type: msgEnd, Error: asControl(err)})
	}
	if err := c.write(message{Version: localVersion, Type: msgWelcome}); err != nil {
		mine.inbox.close()
		g.release(mine)
		return err
	}
	g.owner.log.Debug("guest has come", "pid", req.PID)
	if idle := g.owner.idle(req); len(idle) > 0 {
		mine.log.Warn(fmt.Sprintf("without effect: %s; the wgexpose command that holds this agent's links (process %d) was started first, and goes by its own settings",
			strings.Join(idle, ", "), os.Getpid()))
	}

	// The reader ends with the guest's wish to withdraw, or its end.
	left := make(chan error, 1)
	g.wg.Go(func() { left <- g.read(c, mine) })
	var writer errgroup.Group
	writer.Go(func() error {
		for {
			m, ok := mine.inbox.next(context.Background())
			if !ok {
				return nil
			}
			if err := c.write(m); err != nil {
				c.Close() // a guest that does not read is none; ends the reader
				return err
			}
		}
	})
	select {
	case err = <-left:
		if !g.release(mine) {
			<-g.ctx.Done() // soon: the owner ends
			break
		}
		werr := writer.Wait()
		if err != nil { // gone without a word, as after kill -9
			return nil
		}
		if werr != nil {
			return werr
		}
		return c.write(message{Type: msgDone})
	case <-g.ctx.Done():
	}
	// No withdrawal: the next owner goes on with these tunnels. What has been
	// said before, an end above all, is told first.
	set.cut(mine)
	mine.inbox.put(message{Type: msgBye})
	mine.inbox.close()
	return writer.Wait()
}

// read takes a guest's further requests, up to its wish to withdraw.
func (g *guests) read(c *localConn, mine *claim) error {
	for {
		var req request
		if err := c.read(&req); err != nil || req.Type != askUpdate {
			return err
		}
		if err := g.owner.set.replace(g.ctx, mine, req.Tunnels); err != nil {
			mine.inbox.put(message{Type: msgEnd, Error: asControl(err)})
		}
	}
}

// idle are the settings of a guest that have no effect, since it asks for something
// else than what this owner, whose links and inspector all share, was told.
func (o *owner) idle(req request) []string {
	var idle []string
	if t := cmp.Or(req.Reach.Transport, TransportAuto); t != TransportAuto && t != o.reach.Transport {
		idle = append(idle, "--transport "+t)
	}
	if req.Reach.Proxy != "" && req.Reach.Proxy != o.reach.Proxy {
		idle = append(idle, "--proxy") // its value may hold a password
	}
	if mtu := req.Reach.MTU; mtu != 0 && mtu != o.reach.MTU {
		idle = append(idle, fmt.Sprintf("--mtu %d", mtu))
	}
	if req.Inspect.Addr != "" && req.Inspect.Unmask && !o.set.inspection.unmasks() {
		idle = append(idle, "--inspect-unmask")
	}
	return idle
}

// release withdraws a guest's tunnels, unless it is too late for that.
func (g *guests) release(mine *claim) bool {
	ctx, cancel := context.WithTimeout(g.ctx, drainTimeout)
	defer cancel()
	return g.owner.set.withdraw(ctx, mine)
}

// status is how everything is, or with of only the tunnels of that process.
func (o *owner) status(of int) Status {
	st := Status{
		Agent: o.state.Name, Node: o.state.Node, Domain: o.state.Domain, Overlay: o.state.Overlay,
		Running: true, PID: os.Getpid(), Version: o.version,
	}
	o.set.status(&st, of)
	return st
}
