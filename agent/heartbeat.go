package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/wgexpose/wgexpose/control"
)

// receive reads events until the stream ends.
func (l *link) receive(ctx context.Context, stream *control.EventStream, pings *pinger) error {
	for {
		e, err := stream.Recv()
		switch {
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, io.EOF):
			return errors.New("the edge closed the connection")
		case errors.Is(err, syscall.ECONNRESET):
			return errors.New("the edge does not know the connection any more; it was restarted")
		case err != nil:
			return fmt.Errorf("the connection to the edge broke: %w", err)
		}
		if took, ok := pings.latency(e.Pong); ok {
			l.answered(took)
		}
		pings.heard()
		switch e.Type {
		case control.EventSuperseded:
			return errSuperseded
		case control.EventRevoked:
			msg := "this agent was revoked at the edge"
			if e.Message != "" {
				msg = e.Message
			}
			return &control.Error{Code: control.CodeRevoked, Message: msg}
		case control.EventDraining:
			l.set.linkState(l, LinkDegraded, "the edge is stopping: it takes no new visitors, and is looked for until it is back")
		}
	}
}

// noteClock keeps how far the clock has come, and has the edge called for a new
// handshake where this side's would not be heard. The last one was at shaken.
func (l *link) noteClock(shaken time.Time) {
	if err := l.clock.goesOn(); err != nil {
		l.log.Warn("a clock that is set back will not be noticed after a restart", "err", err)
	}
	l.call.Store(time.Since(shaken) > l.callAfter && l.clock.behind() > 0)
}

// watch returns a *pathError when the edge is silent for too long, or at once
// when the node is nudged. An event from the edge is an answer to a heartbeat,
// and so is proof of both directions. Bulk traffic may hold up events;
// WireGuard's count of received bytes then shows that the edge lives, and a
// handshake that it hears. A handshake that the edge began may mean that it was
// started anew and knows nothing of this stream: an event at once, through ask,
// is answered with a reset then, which is sooner known than the next heartbeat.
//
// It rests while events come, unless there is a handshake: see link.rest. That one has
// come is seen when the rest is over, so that each costs nothing here.
func (l *link) watch(ctx context.Context, n *node, pings *pinger, ask chan<- struct{}) error {
	event := time.Now()
	look := time.NewTimer(l.rest(event))
	defer look.Stop()
	alert := event  // until when a handshake may show
	rested := false // since the look before
	sign, proof := event, event
	shaken := event
	probed := false // by a handshake, since proof
	last, err := n.peer(l.edge.Key)
	if err != nil {
		return err
	}
	for {
		select {
		case <-n.paths.Shaking():
			now := time.Now()
			if now.After(alert) { // else strangers could put the look off for ever
				look.Reset(lookPause)
			}
			alert = now.Add(silence)
			continue
		case reason := <-n.nudges:
			return &pathError{reason}
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		if last := pings.lastEvent(); last.After(event) {
			event, probed = last, false
			if sign.Before(event) {
				sign = event
			}
			if proof.Before(event) {
				proof = event
			}
		}
		if left := l.rest(event) - time.Since(event); event.After(alert) && left > 0 {
			l.noteClock(shaken)
			rested = true
			look.Reset(left)
			continue
		}
		look.Reset(lookPause)
		now, err := n.peer(l.edge.Key)
		if err != nil {
			return err
		}
		// After a rest, these may be the bytes that came with the event.
		if now.RxBytes != last.RxBytes && !rested {
			sign = time.Now()
		}
		if !now.LastHandshake.Equal(last.LastHandshake) {
			shaken = time.Now()
			proof, probed = shaken, false
			nonblocking(ask)
		}
		// Half of the silence is over: a probe, which any edge acknowledges.
		if time.Since(sign) > silence/2 {
			nonblocking(ask)
		}
		last, rested = now, false
		l.noteClock(shaken)
		if time.Since(sign) > silence || time.Since(event) > maxSilence {
			return silentFor(silence)
		}
		if l.streaming.Load() {
			continue
		}
		if time.Since(proof) > silence && !probed {
			probed = true
			nonblocking(ask)
			if err := n.dev.Handshake(l.edge.Key); err != nil {
				n.log.Debug("ask the edge for a handshake", "err", err)
			}
		}
		if time.Since(proof) > oneWay && time.Since(sign) < silence/2 {
			return &pathError{"the edge hears nothing from here, though something comes from it"}
		}
	}
}

// send sends heartbeats, one when asked to, and reports, and the end of the
// stream when bye ends.
func (l *link) send(ctx, bye context.Context, stream *control.EventStream, pings *pinger, ask <-chan struct{}) error {
	beat := time.NewTimer(l.pulse.wait(time.Now(), control.Heartbeat))
	defer beat.Stop()
	if err := stream.Send(pings.ping()); err != nil { // so that a new link has a latency
		return err
	}
	for {
		var err error
		select {
		case <-beat.C:
			err = stream.Send(l.beat(pings))
			beat.Reset(l.pulse.wait(time.Now(), control.Heartbeat))
		case <-ask:
			err = stream.Send(l.beat(pings))
		case r := <-l.reports:
			err = stream.Send(r.event)
			close(r.sent)
		case <-bye.Done():
			return stream.CloseSend()
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// beat is the next heartbeat.
func (l *link) beat(pings *pinger) control.AgentEvent {
	e := pings.ping()
	e.Call = l.call.Load()
	return e
}

// report hands an event to the edge, and waits a moment for it to be on its
// way. Without a session it is kept until there is one, if there is room.
func (l *link) report(e control.AgentEvent) {
	r := report{event: e, sent: make(chan struct{})}
	select {
	case l.reports <- r:
	default:
		return
	}
	timer := time.NewTimer(reportWait)
	defer timer.Stop()
	select {
	case <-r.sent:
	case <-timer.C:
	}
}
